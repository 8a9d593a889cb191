package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"installer/disk/fsinfo"
)

// Filesystem is a file system for the root.
type Filesystem string

// The file systems a root can have.
const (
	XFS   Filesystem = "xfs"
	Ext4  Filesystem = "ext4"
	Btrfs Filesystem = "btrfs"
)

// ParseFilesystem returns the file system with a name that a user gave.
func ParseFilesystem(s string) (Filesystem, error) {
	switch f := Filesystem(s); f {
	case XFS, Ext4, Btrfs:
		return f, nil
	}
	return "", fmt.Errorf("unknown file system %q; xfs, ext4 and btrfs are supported", s)
}

// Runner runs a helper program, confined as its owner sees fit. The error of a program that failed
// has the program's error output; that of a missing program is [exec.ErrNotFound] or
// [fs.ErrNotExist].
type Runner func(ctx context.Context, argv []string) error

// MissingProgramError is a file system maker that was not found, with the package that has it.
type MissingProgramError struct {
	Program string
	Package string // its name in Debian and Fedora alike
	InImage bool   // it was searched in the image, not on this machine
	Err     error
}

func (e *MissingProgramError) Error() string {
	if e.InImage {
		return fmt.Sprintf("%s is missing in the image; to do: add the package %s to the image, or choose a file system that the image can make (--filesystem)",
			e.Program, e.Package)
	}
	return fmt.Sprintf("%s is missing on this machine; to do: install the package %s (its name in Debian and in Fedora)",
		e.Program, e.Package)
}

func (e *MissingProgramError) Unwrap() error { return e.Err }

// Program returns the name of the program that makes the file system.
func (f Filesystem) Program() string { return "mkfs." + string(f) }

// Package returns the package that has [Filesystem.Program]; it has the same name in Debian and
// Fedora.
func (f Filesystem) Package() string {
	switch f {
	case XFS:
		return "xfsprogs"
	case Btrfs:
		return "btrfs-progs"
	}
	return "e2fsprogs"
}

// Require checks, before anything is written, that this machine can make the file system. look
// finds a program of this machine.
func (f Filesystem) Require(look func(string) (string, error)) error {
	if _, err := look(f.Program()); err != nil {
		return &MissingProgramError{Program: f.Program(), Package: f.Package(), Err: err}
	}
	return nil
}

// RequireInImage is [Filesystem.Require] for an installation that runs in the image. look finds a
// program of the image.
func (f Filesystem) RequireInImage(look func(string) (string, error)) error {
	if _, err := look(f.Program()); err != nil {
		return &MissingProgramError{Program: f.Program(), Package: f.Package(), InImage: true, Err: err}
	}
	return nil
}

// MakeOptions are the options of [Filesystem.Make].
type MakeOptions struct {
	UUID  string // lower case
	Label string // may be empty; at most 12 bytes for xfs, 16 for ext4, 255 for btrfs
	// GRUB refuses a file system with features that GRUB 2.06 cannot read. They are switched off in
	// any case, as far as the program can do that.
	GRUB bool
}

// Make makes the file system on a device and reads its superblock back. The error for a missing
// program is a [*MissingProgramError].
func (f Filesystem) Make(ctx context.Context, run Runner, dev string, o MakeOptions) error {
	argv, err := f.command(ctx, run, dev, o)
	if err != nil {
		return err
	}
	if err := f.explain(run(ctx, argv)); err != nil {
		return fmt.Errorf("making %s on %s: %w", f, dev, err)
	}
	if err := f.check(dev, o); err != nil {
		return fmt.Errorf("reading back the %s made on %s: %w", f, dev, err)
	}
	return nil
}

// explain turns the error of a missing program into one that names the package.
func (f Filesystem) explain(err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return &MissingProgramError{Program: f.Program(), Package: f.Package(), Err: err}
	}
	return err
}

// command composes the command line.
func (f Filesystem) command(ctx context.Context, run Runner, dev string, o MakeOptions) ([]string, error) {
	argv := []string{f.Program()}
	switch f {
	case XFS:
		argv = append(argv, "-f", "-q", "-m", "uuid="+o.UUID)
		readable, err := f.readableXFS(ctx, run)
		if err != nil {
			return nil, err
		}
		argv = append(argv, readable...)
	case Ext4:
		// fs-verity needs blocks of a page's size on kernels before 6.3; small file systems default
		// to 1 KiB.
		argv = append(argv, "-F", "-q", "-b", "4096", "-O", ext4Features, "-U", o.UUID)
	case Btrfs:
		argv = append(argv, "-f", "-q", "-U", o.UUID)
	default:
		return nil, fmt.Errorf("no program is known that makes %q", string(f))
	}
	if o.Label != "" {
		argv = append(argv, "-L", o.Label)
	}
	return append(argv, dev), nil
}

// ext4Features asks for verity, and switches off the features that GRUB 2.06 refuses to read.
const ext4Features = "verity,^metadata_csum_seed"

// readableXFS returns the options that switch off features that GRUB 2.06 cannot read. Older
// versions of mkfs.xfs refuse unknown options; its usage text lists those that it knows.
func (f Filesystem) readableXFS(ctx context.Context, run Runner) ([]string, error) {
	err := f.explain(run(ctx, []string{f.Program()})) // without a device it prints its usage and fails
	if err == nil {
		return nil, errors.New("asking mkfs.xfs for its options: it made a file system although no device was named")
	}
	var missing *MissingProgramError
	if errors.As(err, &missing) || ctx.Err() != nil {
		return nil, err
	}
	usage := err.Error()
	var options []string
	for _, known := range [][2]string{{"-i", "nrext64=0"}, {"-i", "exchange=0"}, {"-n", "parent=0"}} {
		if strings.Contains(usage, known[1]+"|1") {
			options = append(options, known[0], known[1])
		}
	}
	return options, nil
}

// check compares the superblock with the options.
func (f Filesystem) check(dev string, o MakeOptions) error {
	file, err := os.Open(dev)
	if err != nil {
		return err
	}
	defer file.Close()
	sb, err := fsinfo.ReadRoot(file)
	if err != nil {
		return err
	}
	switch {
	case Filesystem(sb.Type) != f:
		return fmt.Errorf("it is %s", sb.Type)
	case sb.UUID != strings.ToLower(o.UUID):
		return fmt.Errorf("its UUID is %s, not %s", sb.UUID, o.UUID)
	case sb.Label != o.Label:
		return fmt.Errorf("its label is %q, not %q", sb.Label, o.Label)
	case o.GRUB && sb.Unreadable() != 0:
		return fmt.Errorf("it has features (%#x) that the boot loader, GRUB, cannot read; to do: --bootloader systemd, or another version of %s", sb.Unreadable(), f.Program())
	}
	return nil
}
