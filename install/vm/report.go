package vm

import (
	"installer/install"
	"installer/install/verify"
)

// Report is the evidence of a build: of the installation in the guest, and of the virtual machine.
// --report writes it as JSON.
type Report struct {
	install.Report
	Machine MachineReport `json:"machine"`
}

// MachineReport describes the virtual machine and its output.
type MachineReport struct {
	Accel     Accel           `json:"accel"`
	Memory    int64           `json:"memory"` // bytes
	CPUs      int             `json:"cpus"`
	Kernel    string          `json:"kernel"` // version; the image's own
	Phases    []PhaseTime     `json:"phases"`
	HostSteps []install.Event `json:"host_steps"`         // that ended on the host, with their times
	Attempts  []string        `json:"attempts,omitempty"` // machines that ended before the installer started, with the reasons
	Checks    []verify.Check  `json:"checks,omitempty"`   // of OUTPUT, made on the host; those that need a mount are not made
	Planned   *Plan           `json:"planned,omitempty"`  // of a dry run
	Output    string          `json:"output"`
	Format    Format          `json:"format"`
	FileSize  int64           `json:"file_size"` // bytes
	Allocated int64           `json:"allocated"` // bytes that the file takes of its file system
}
