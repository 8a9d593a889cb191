package verify

import (
	"fmt"
	"time"
)

// ReportVersion is raised when a field of [Report] changes its meaning or goes away. New fields and
// new checks do not raise it.
const ReportVersion = 1

// Report is the result of a verification; `installer verify --json` prints it as one JSON object.
type Report struct {
	Version  int       `json:"version"` // ReportVersion
	Outcome  Outcome   `json:"outcome"`
	Started  time.Time `json:"started"` // RFC 3339
	Ended    time.Time `json:"ended"`
	Disk     DiskInfo  `json:"disk"`
	Checks   []Check   `json:"checks"`   // every check there is, in the order in which they were made
	Findings []Finding `json:"findings"` // in the order of the checks; never null
}

// Event is one line of a verification that is followed from elsewhere, a JSON object: each check as
// it ends, with its findings, and the report at the end.
type Event struct {
	Check    *Check    `json:"check,omitempty"`
	Findings []Finding `json:"findings,omitempty"`
	Report   *Report   `json:"report,omitempty"`
}

// DiskInfo describes the disk as far as it could be read.
type DiskInfo struct {
	Path       string      `json:"path"`        // as given
	Format     string      `json:"format"`      // Raw, QCOW2 or BlockDevice
	Size       int64       `json:"size"`        // of the disk that a machine sees, bytes
	SectorSize int         `json:"sector_size"` // bytes
	Partitions []Partition `json:"partitions,omitempty"`
	Filesystem string      `json:"filesystem,omitempty"` // of the root: "xfs", "ext4" or "btrfs"
	RootUUID   string      `json:"root_uuid,omitempty"`
}

// Formats of a disk.
const (
	Raw         = "raw"
	QCOW2       = "qcow2"
	BlockDevice = "block device"
)

// Partition is an entry of the partition table.
type Partition struct {
	Number int    `json:"number"` // from 1
	Name   string `json:"name"`
	Type   string `json:"type"`  // partition type GUID, lower case
	UUID   string `json:"uuid"`  // PARTUUID, lower case
	Start  int64  `json:"start"` // bytes from the start of the disk
	Size   int64  `json:"size"`  // bytes
}

func (p Partition) end() int64 { return p.Start + p.Size }

// String names the partition as findings do.
func (p Partition) String() string {
	if p.Name == "" {
		return fmt.Sprintf("partition %d", p.Number)
	}
	return fmt.Sprintf("partition %d (%s)", p.Number, p.Name)
}

// Outcome is the verdict on the disk as a whole.
type Outcome string

// The outcomes. A disk with a finding of severity error is Damaged, also when checks are missing.
const (
	Sound      Outcome = "sound"      // every check was made, none failed
	Damaged    Outcome = "damaged"    // there is at least one finding of severity error
	Incomplete Outcome = "incomplete" // no check failed, but not all could be made
)

// Check is one thing that was looked at, or could not be.
type Check struct {
	Name    string  `json:"name"`  // stable, such as "partition-table"
	Title   string  `json:"title"` // for people
	Status  Status  `json:"status"`
	Detail  string  `json:"detail,omitempty"` // the result in words, or why the check was not made
	Seconds float64 `json:"seconds"`
}

// Status is how a check ended.
type Status string

// The ways in which a check ends.
const (
	Passed        Status = "passed"
	Failed        Status = "failed"         // it has findings of severity error
	NotChecked    Status = "not-checked"    // it could not be made; Detail says why
	NotApplicable Status = "not-applicable" // the disk has nothing of that kind, and need not
)

// Finding is something that is not as it should be, or that is worth knowing.
type Finding struct {
	Check    string   `json:"check"` // name of the check
	Severity Severity `json:"severity"`
	// Where names the place: "/path" on the root file system, "ESP:/path" on the EFI system
	// partition, "partition 1 (BIOS-BOOT)", "primary partition table", "boot sector".
	Where  string `json:"where"`
	What   string `json:"what"`             // the fault or remark
	Remedy string `json:"remedy,omitempty"` // advice
}

// Severity distinguishes a fault from a remark.
type Severity string

// The severities. Only an Error makes a disk damaged.
const (
	Error Severity = "error"
	Note  Severity = "note"
)

func (f Finding) String() string {
	s := f.Where + ": " + f.What
	if f.Remedy != "" {
		s += " (" + f.Remedy + ")"
	}
	return s
}

// Errors counts the findings of severity error.
func (r *Report) Errors() int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == Error {
			n++
		}
	}
	return n
}

// conclude works the outcome out of checks and findings.
func (r *Report) conclude() {
	r.Ended = time.Now()
	r.Outcome = Sound
	for _, c := range r.Checks {
		if c.Status == NotChecked {
			r.Outcome = Incomplete
		}
	}
	if r.Errors() > 0 {
		r.Outcome = Damaged
	}
}
