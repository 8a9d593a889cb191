// Package wire is what the guest and its host say to each other: the
// instructions that lie in the guest's initramfs, and the messages that come
// out of it, one JSON object on a line.
package wire

import "encoding/json"

// Names by which the guest finds its devices: serial numbers of disks, and the
// name of the channel's port.
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

// SourceDir is where the image's tree is mounted a second time, as the
// installer sees it: for a source that is a directory, and to be looked through.
const SourceDir = "/run/source"

// Nodes of the disks as the installer sees them: names that occur nowhere else,
// so that the host can say in their place what a person knows.
const (
	TargetNode = "/dev/installer-target"
	SourceNode = "/dev/installer-source"
)

// References of the source as the installer is given them.
const (
	SourceRef     = "oci-archive:" + SourceNode
	SourceTreeRef = "rootfs:" + SourceDir
)

// FilesDir is where the installer finds what it is to read beside the image.
const FilesDir = "/run/files"

// GuestCommand is the hidden command of the installer that runs in the guest;
// its one argument is GuestInit, or GuestContainer with a second argument.
const (
	GuestCommand   = "build-guest"
	GuestInit      = "init"
	GuestContainer = "container"
)

// Instructions are what the guest is to do.
type Instructions struct {
	Modules []string `json:"modules"` // files in ModulesDir, in the order to load them
	Argv    []string `json:"argv"`    // the installer's command line
	// Nodes are made of the disks with these serial numbers.
	Nodes     map[string]string `json:"nodes"`
	Tree      bool              `json:"tree"`       // the container's root is on TreeDisk; else it is empty
	SourceDir bool              `json:"source_dir"` // mount the tree on SourceDir too
	// Files are put into FilesDir, by their names.
	Files map[string][]byte `json:"files,omitempty"`
}

// Phases that the guest tells of.
const (
	PhaseDevices   = "devices"
	PhaseInstaller = "installer"
)

// Message is one thing the guest tells. One field is set.
type Message struct {
	Beat  bool            `json:"beat,omitempty"`
	Phase string          `json:"phase,omitempty"` // it begins
	Line  json.RawMessage `json:"line,omitempty"`  // one line of the installer's output
	Exit  *Exit           `json:"exit,omitempty"`  // the last message
}

// Exit is how the guest's work ended.
type Exit struct {
	Status int    `json:"status"` // exit status of the installer; -1 if it did not come to run or was killed
	Error  string `json:"error,omitempty"`
}
