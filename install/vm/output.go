package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/install"
	"installer/install/outfile"
	"installer/install/printable"
	"installer/install/verify"
	"installer/rootfs/bootloader"
)

// openOutput refuses an output that cannot be made or replaced, and makes the file that will get its name.
func openOutput(path string) (*outfile.File, error) {
	f, err := outfile.Create(path)
	if err == nil {
		return f, nil
	}
	if full := full(err, filepath.Dir(path)); full != err {
		return nil, full
	}
	return nil, &OutputRefusedError{Path: path, Err: err}
}

// OutputError is a disk that a machine made, that is not what an installation makes.
type OutputError struct {
	Path   string
	Faults []string // the first ones that were found
	Count  int      // of all
}

func (e *OutputError) Error() string {
	text := fmt.Sprintf("the disk that the virtual machine made for %s is not sound: %s", e.Path, strings.Join(e.Faults, "; "))
	if rest := e.Count - len(e.Faults); rest > 0 {
		text += fmt.Sprintf("; and %d more", rest)
	}
	return text
}

// checkOutput has the host look at the disk that the machine made: at all that shows without a mount. The report then
// has the host's findings in place of the guest's statements.
func (b *build) checkOutput(ctx context.Context) (string, error) {
	// Where files without a name cannot be, the output is locked for writing; verify needs a shared lock.
	if err := unix.Flock(int(b.output.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return "", fmt.Errorf("locking the output: %w", err)
	}
	const noMount = "the build mounts nothing on the host"
	// qemu-img opens it too, which has descriptors of its own.
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), b.output.Fd())
	found, err := verify.Run(ctx, verify.Options{Disk: path, TempDir: b.dir(), NoRoot: noMount})
	if refers := (*verify.ReferenceError)(nil); errors.As(err, &refers) {
		return "", &OutputError{Path: b.opts.Output, Faults: []string{fmt.Sprintf("it refers to the file %q", refers.Name)}, Count: 1}
	}
	if err != nil {
		return "", b.explainOutput(err)
	}
	b.report.Machine.Checks = found.Checks
	names := strings.NewReplacer(path, b.opts.Output)
	fault := &OutputError{Path: b.opts.Output}
	add := func(format string, args ...any) {
		if fault.Count++; fault.Count <= maxFaults {
			fault.Faults = append(fault.Faults, printable.Line(names.Replace(fmt.Sprintf(format, args...))))
		}
	}
	for _, f := range found.Findings {
		if f.Severity == verify.Error && !b.expected(f) {
			add("%s", f)
		}
	}
	for n, c := range found.Checks {
		found.Checks[n].Detail = printable.Line(names.Replace(c.Detail))
		if c.Status == verify.NotChecked && c.Detail != noMount {
			add("%s could not be checked: %s", c.Title, c.Detail)
		}
	}
	b.compareOutput(found.Disk, add)
	if fault.Count > 0 {
		return "", fault
	}
	return fmt.Sprintf("%d of its checks need no mount", len(found.Checks)-skipped(found.Checks)), nil
}

const maxFaults = 5

func skipped(checks []verify.Check) (n int) {
	for _, c := range checks {
		if c.Status == verify.NotChecked {
			n++
		}
	}
	return n
}

// expected reports whether a finding is what was asked for: a disk without a boot loader does not start.
func (b *build) expected(f verify.Finding) bool {
	return f.Check == "esp-boot-files" && b.report.Disk.Bootloader == bootloader.None
}

// compareOutput compares the disk with what was asked for, and makes it the report's.
func (b *build) compareOutput(d verify.DiskInfo, add func(string, ...any)) {
	r := &b.report.Disk
	if d.Size != b.opts.DiskSize {
		add("the disk has %s, and %s were asked for", install.FormatBytes(d.Size), install.FormatBytes(b.opts.DiskSize))
	}
	if asked := b.opts.Install.Filesystem; asked != "" && d.Filesystem != string(asked) {
		add("the root file system is %q, and %s was asked for", d.Filesystem, asked)
	}
	r.Size, r.SectorSize, r.Filesystem, r.RootUUID = d.Size, d.SectorSize, disk.Filesystem(d.Filesystem), d.RootUUID
	r.Partitions = nil
	for _, p := range d.Partitions {
		r.Partitions = append(r.Partitions, disk.Partition{Number: p.Number, Name: printable.Line(p.Name), Type: p.Type, UUID: p.UUID, Start: p.Start, Size: p.Size})
	}
}
