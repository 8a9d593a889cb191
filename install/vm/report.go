package vm

import (
	"installer/install"
	"installer/install/verify"
)

// Report is the evidence of a build: that of the installation in the guest,
// and what the virtual machine cost. --report writes it as JSON.
type Report struct {
	install.Report
	Machine MachineReport `json:"machine"`
}

// MachineReport says how the disk image came about.
type MachineReport struct {
	Accel     Accel           `json:"accel"`
	Memory    int64           `json:"memory"` // bytes
	CPUs      int             `json:"cpus"`
	Kernel    string          `json:"kernel"` // version; the image's own
	Phases    []PhaseTime     `json:"phases"`
	HostSteps []install.Event `json:"host_steps"`         // those that ended on the host, with their times
	Attempts  []string        `json:"attempts,omitempty"` // machines that did not get to the installer, and why
	Checks    []verify.Check  `json:"checks,omitempty"`   // of OUTPUT, made on the host; those that need a mount are not made
	Planned   *Plan           `json:"planned,omitempty"`  // of a dry run
	Output    string          `json:"output"`
	Format    Format          `json:"format"`
	FileSize  int64           `json:"file_size"` // bytes
	Allocated int64           `json:"allocated"` // bytes that the file takes of its file system
}
