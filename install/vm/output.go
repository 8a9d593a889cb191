package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/install/outfile"
	"installer/install/printable"
	"installer/install/verify"
	"installer/rootfs/bootloader"
)

// openOutput refuses an output that cannot be made or replaced, and makes the file that will get
// its name.
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

// OutputError is a disk that a machine made, and that has faults.
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

// checkOutput runs the checks of package verify that need no mount on the disk that the machine
// made. The report then has the findings of the host in place of the guest's statements.
func (b *build) checkOutput(ctx context.Context) (string, error) {
	// On a file system without nameless files the output has an exclusive lock; verify takes a
	// shared one.
	if err := unix.Flock(int(b.output.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return "", fmt.Errorf("locking the output: %w", err)
	}
	const noMount = "the build mounts nothing on the host"
	// Not /proc/self: qemu-img opens it, too.
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
	b.compareOutput(found.Disk, add)
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

// expected reports whether a finding follows from the options: a disk without a boot loader does
// not start.
func (b *build) expected(f verify.Finding) bool {
	return f.Check == "esp-boot-files" && b.report.Disk.Bootloader == bootloader.None
}

// compareOutput compares the disk with the plan that the host has made for it, and takes over its
// identifiers.
func (b *build) compareOutput(d verify.DiskInfo, add func(string, ...any)) {
	r := &b.report.Disk
	if d.Size != r.Size || d.SectorSize != r.SectorSize {
		add("it has %d bytes in sectors of %d, planned were %d in sectors of %d", d.Size, d.SectorSize, r.Size, r.SectorSize)
	}
	if d.Filesystem != string(r.Filesystem) {
		add("the root file system is %q, planned was %s", d.Filesystem, r.Filesystem)
	}
	for n := range max(len(d.Partitions), len(r.Partitions)) {
		if n >= len(d.Partitions) || n >= len(r.Partitions) || !asPlanned(d.Partitions[n], r.Partitions[n]) {
			add("its partition %d is not the one that was planned", n+1)
			continue
		}
		r.Partitions[n].UUID = d.Partitions[n].UUID
	}
	planned := r.RootUUID
	r.RootUUID = d.RootUUID
	p := b.report.Plan
	p.Partitions = r.Partitions
	for n, arg := range p.Kargs {
		p.Kargs[n] = strings.ReplaceAll(arg, planned, d.RootUUID)
	}
	args := b.report.Deployment.Kargs
	if last := len(args) - 1; last < 0 || !slices.Equal(args[:last], p.Kargs) || !strings.HasPrefix(args[last], "ostree=/ostree/boot.") {
		add("its kernel arguments are %q, planned were %q and ostree=", args, p.Kargs)
	}
}

func asPlanned(found verify.Partition, planned disk.Partition) bool {
	return found.Number == planned.Number && found.Name == planned.Name && found.Type == planned.Type &&
		found.Start == planned.Start && found.Size == planned.Size
}
