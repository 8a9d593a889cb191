package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"installer/install/hostprog"
	"installer/install/outfile"
)

// qemuImg is the program that knows qcow2.
const qemuImg = "qemu-img"

// largestQcow2 is the largest virtual disk that is unpacked, in bytes: a damaged header must not
// ask for more than a file system has.
const largestQcow2 = 1 << 44

// openQcow2 reads the header, and learns the sector size without unpacking the content. An image of
// several files is unpacked at once: its readers are given one open file.
func (s *source) openQcow2(ctx context.Context) error {
	h, err := readQcow2Header(s.file)
	if err != nil {
		return fmt.Errorf("reading %s: %w", s.image, err)
	}
	if h.size <= 0 || h.size > largestQcow2 {
		return fmt.Errorf("reading %s: its header claims a disk of %d bytes", s.image, h.size)
	}
	s.size, s.sector = h.size, 512
	if err := checkReferences(s.image, h, s.backing); err != nil {
		return err
	}
	if len(h.references()) > 0 {
		path, err := filepath.Abs(s.image)
		if err != nil {
			return fmt.Errorf("reading %s: %w", s.image, err)
		}
		return s.unpack(ctx, path)
	}
	return s.measureSectors(ctx)
}

// measureSectors learns the sector size from the beginning of the disk.
func (s *source) measureSectors(ctx context.Context) error {
	const beginning = 8192
	if s.size < beginning {
		return nil
	}
	fd, err := unix.MemfdCreate("head", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("making a file in memory: %w", err)
	}
	head := os.NewFile(uintptr(fd), "head")
	defer head.Close()
	err = s.runQemuImg(ctx, head, "dd", "-f", "qcow2", "-O", "raw", "bs=4096", "count=2", "if="+sourceFD, "of="+targetFD)
	if ctx.Err() != nil || errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("reading %s: %w", s.image, err)
	}
	if err == nil { // else the image is damaged: the check of the image reports it
		s.sector = sectorSize(head, beginning)
	}
	return nil
}

// Names of the disk and of a file to write to, for qemu-img: the first two extra files.
const (
	sourceFD = "/proc/self/fd/3"
	targetFD = "/proc/self/fd/4"
)

// load makes a disk readable that is a qcow2: through open, or where that cannot be (no program, no
// FUSE in the kernel or the container) as a copy.
func (s *source) load(ctx context.Context, open ImageOpener) error {
	if s.image == "" || s.file != s.lock {
		return nil
	}
	if open == nil {
		return s.unpack(ctx, sourceFD)
	}
	file, release, err := open(ctx, s.lock)
	if ctx.Err() != nil {
		return fmt.Errorf("opening %s: %w", s.image, context.Cause(ctx))
	}
	if err != nil {
		return s.unpack(ctx, sourceFD)
	}
	s.file, s.release, s.sector = file, release, sectorSize(file, s.size)
	return nil
}

// unpack writes the content of a qcow2, which qemu-img opens as from, to a sparse file.
func (s *source) unpack(ctx context.Context, from string) error {
	raw, err := outfile.Scratch(s.tempDir)
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", s.image, err)
	}
	s.file = raw
	if err := raw.Truncate(s.size); err != nil {
		return fmt.Errorf("making room to unpack %s in %s: %w", s.image, s.tempDir, err)
	}
	// -n with an existing target: it has no name that qemu-img could create.
	err = s.runQemuImg(ctx, raw, "convert", "-n", "--target-is-zero", "-f", "qcow2", "-O", "raw", from, targetFD)
	if err != nil {
		return fmt.Errorf("unpacking %s to %s: %w", s.image, s.tempDir, err)
	}
	s.sector = sectorSize(raw, s.size)
	return nil
}

// checkQcow2 has the image's own structure checked.
func (s *source) checkQcow2(ctx context.Context) error {
	from := sourceFD
	if len(s.backing) > 0 { // names in the image are relative to its directory
		var err error
		if from, err = filepath.Abs(s.image); err != nil {
			return err
		}
	}
	return s.runQemuImg(ctx, nil, "check", "-q", "-f", "qcow2", from)
}

// runQemuImg runs qemu-img with the image as sourceFD and target, which may be nil, as targetFD.
func (s *source) runQemuImg(ctx context.Context, target *os.File, args ...string) error {
	path, err := hostprog.Find(qemuImg)
	if err != nil {
		return fmt.Errorf("%w; to do: install the package qemu-utils (Debian) or qemu-img (Fedora)", err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.ExtraFiles = []*os.File{s.lock}
	if target != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, target)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C reaches it through ctx
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%s %s: %w: %s", qemuImg, args[0], err, strings.TrimSpace(output.String()))
	}
	return nil
}
