// Package wire has the forms of the data between the guest and its host: the instructions in the
// guest's initramfs, and the messages of the guest, one JSON object on a line.
package wire

import "encoding/json"

// Names of the guest's devices: serial numbers of disks, and the name of the channel's port.
const (
	TargetDisk = "target"
	TreeDisk   = "tree"
	SourceDisk = "source"
	Port       = "installer"
)

// Places in the guest's initramfs.
const (
	InstructionsPath = "instructions.json"
	ModulesDir       = "modules"
	BaseDir          = "base"    // where the initramfs is bound, so that it can be left
	NewRootDir       = "newroot" // where the image's tree is mounted
)

// SourceDir is the second mount point of the image's tree, as the installer sees it: the source
// that is a directory, and the tree of the survey.
const SourceDir = "/run/source"

// Nodes of the disks as the installer sees them. The names occur nowhere else, so that the host can
// replace them with names that the user knows.
const (
	TargetNode = "/dev/installer-target"
	SourceNode = "/dev/installer-source"
)

// References of the source on the installer's command line.
const (
	SourceRef     = "oci-archive:" + SourceNode
	SourceTreeRef = "rootfs:" + SourceDir
)

// FilesDir is the directory of further files for the installer.
const FilesDir = "/run/files"

// GuestCommand is the hidden command of the installer that runs in the guest;
// its one argument is GuestInit, or GuestContainer with a second argument.
const (
	GuestCommand   = "build-guest"
	GuestInit      = "init"
	GuestContainer = "container"
)

// Instructions describe the work of the guest.
type Instructions struct {
	Modules []string `json:"modules"` // files in ModulesDir, in the order to load them
	Argv    []string `json:"argv"`    // the installer's command line
	// Nodes are made of the disks with these serial numbers.
	Nodes     map[string]string `json:"nodes"`
	Tree      bool              `json:"tree"`       // the container's root is on TreeDisk; else it is empty
	SourceDir bool              `json:"source_dir"` // mount the tree on SourceDir, too
	// Files are written to FilesDir, by their names.
	Files map[string][]byte `json:"files,omitempty"`
}

// Phases that the guest announces.
const (
	PhaseDevices   = "devices"
	PhaseInstaller = "installer"
)

// Message is a message of the guest. One field is set.
type Message struct {
	Beat  bool            `json:"beat,omitempty"`
	Phase string          `json:"phase,omitempty"` // it begins
	Line  json.RawMessage `json:"line,omitempty"`  // one line of the installer's output
	Exit  *Exit           `json:"exit,omitempty"`  // the last message
}

// Exit is the end of the guest's work.
type Exit struct {
	Status int    `json:"status"` // exit status of the installer; -1 if it did not come to run or was killed
	Error  string `json:"error,omitempty"`
}
