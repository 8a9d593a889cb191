package install

import (
	"fmt"
	"time"

	"installer/disk"
	"installer/finalize"
	"installer/install/size"
	"installer/rootfs/bootloader"
	"installer/rootfs/bootloader/payload"
)

// ReportVersion is raised when a field of Report changes its meaning or goes away.
const ReportVersion = 1

// Report is the evidence of an installation. --report writes it as JSON.
type Report struct {
	Version    int              `json:"version"`
	Outcome    Outcome          `json:"outcome"`
	Error      string           `json:"error,omitempty"`
	Started    time.Time        `json:"started"`
	Ended      time.Time        `json:"ended"`
	Source     SourceReport     `json:"source"`
	Disk       DiskReport       `json:"disk"`
	Plan       *Plan            `json:"plan,omitempty"`
	Deployment DeploymentReport `json:"deployment"`
	SELinux    *SELinuxReport   `json:"selinux,omitempty"` // of a system whose files have labels
	Steps      []StepResult     `json:"steps"`
	Finalize   *finalize.Report `json:"finalize,omitempty"`
	Notes      []string         `json:"notes,omitempty"`
	UndoErrors []string         `json:"undo_errors,omitempty"`
}

// Outcome is how an installation ended.
type Outcome string

// The outcomes. Complete is said only after every proof of the finalize pipeline holds.
const (
	Complete Outcome = "complete"
	Failed   Outcome = "failed"
	Unproven Outcome = "unproven" // everything was written, and the release was skipped as asked for
	Planned  Outcome = "planned"  // of a dry run: everything before the first write
)

// StepResult is one step that was begun.
type StepResult struct {
	Name    string    `json:"name"`
	Title   string    `json:"title"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Message string    `json:"message,omitempty"`
	Error   string    `json:"error,omitempty"`
}

// SourceReport describes the installed image.
type SourceReport struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest,omitempty"` // of the manifest; empty for a directory tree
	Layers    int    `json:"layers"`
	// BaseLayers is how many of the layers hold the objects of an ostree commit, BaseCommit.
	BaseLayers int    `json:"base_layers,omitempty"`
	BaseCommit string `json:"base_commit,omitempty"`
	Bytes      int64  `json:"bytes"` // read from the source
}

// DiskReport describes the disk.
type DiskReport struct {
	Path       string           `json:"path"`
	Size       int64            `json:"size"`        // bytes
	SectorSize int              `json:"sector_size"` // bytes
	Partitions []disk.Partition `json:"partitions,omitempty"`
	Filesystem disk.Filesystem  `json:"filesystem"`
	RootUUID   string           `json:"root_uuid,omitempty"`
	// Mounted are the file systems that were installed to, of to-filesystem; Path is the first
	// one's mount point.
	Mounted    []MountedFilesystem `json:"mounted,omitempty"`
	Bootloader bootloader.Kind     `json:"bootloader"`
}

// Plan describes an installation before its first write.
type Plan struct {
	Device     string           `json:"device"`
	Block      bool             `json:"block"` // a block device, not a file
	Model      string           `json:"model"`
	Serial     string           `json:"serial,omitempty"`
	Size       int64            `json:"size"`            // bytes
	Found      []disk.Found     `json:"found,omitempty"` // on the disk: all of it will be lost
	Partitions []disk.Partition `json:"partitions"`
	// Mounted are the file systems that are installed to, of to-filesystem.
	Mounted     []MountedFilesystem `json:"mounted,omitempty"`
	Filesystem  disk.Filesystem     `json:"filesystem"`
	RootNeed    int64               `json:"root_need"` // bytes that the root takes at least; of a dry run exact, else it may be somewhat less
	Source      string              `json:"source"`
	Digest      string              `json:"digest,omitempty"` // of the source's manifest
	Target      string              `json:"target,omitempty"` // image that updates come from
	Stateroot   string              `json:"stateroot"`
	Bootloader  bootloader.Kind     `json:"bootloader"`
	Firmware    string              `json:"firmware"`
	Signed      payload.Source      `json:"signed_loader,omitempty"` // where the image has the signed boot loader that is installed
	BoundImages []BoundImage        `json:"bound_images,omitempty"`  // that are brought along
	Kargs       []string            `json:"kargs"`                   // without ostree=, which names the deployment
	Config      []string            `json:"config_files,omitempty"`  // that the install configuration comes from
}

// DeploymentReport describes the deployment.
type DeploymentReport struct {
	Commit       string   `json:"commit,omitempty"` // checksum
	Path         string   `json:"path,omitempty"`   // below the root file system
	BootChecksum string   `json:"boot_checksum,omitempty"`
	Kernel       string   `json:"kernel,omitempty"` // version
	Kargs        []string `json:"kargs,omitempty"`
	Composefs    string   `json:"composefs,omitempty"` // fs-verity digest of the composefs image that the root is mounted from
	Files        int      `json:"files"`
	Bytes        int64    `json:"bytes"` // content of the files
}

// SELinuxReport describes the SELinux labels of the installed system.
type SELinuxReport struct {
	Policy     string `json:"policy"`             // SELINUXTYPE
	Enforcing  bool   `json:"enforcing"`          // SELINUX of the image's configuration
	Version    int    `json:"version"`            // of the binary policy
	Checksum   string `json:"checksum,omitempty"` // SHA-256 of the binary policy
	Labels     int    `json:"labels"`             // that differ, in the image's tree
	Labelled   int    `json:"labelled"`           // files, directories and links of the tree
	Unlabelled int    `json:"unlabelled"`         // those that the policy leaves without a label
	System     int    `json:"system"`             // files labelled beside those of the tree
}

// String describes the labels in a line; it is empty without any.
func (s *SELinuxReport) String() string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%s on %s, by the policy %s (version %d)", size.Count(s.Labels, "label"), size.Count(s.Labelled+s.System, "file"), s.Policy, s.Version)
}

func (r *Report) finish(err error) {
	r.Ended = time.Now()
	r.Outcome = Complete
	if err != nil {
		r.Outcome, r.Error = Failed, err.Error()
	}
}
