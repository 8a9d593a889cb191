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

// largestQcow2 is the largest virtual disk that is unpacked, in bytes: a damaged header must not ask for more than a
// file system has.
const largestQcow2 = 1 << 44

// measureQcow2 learns what can be known of a qcow2 without unpacking it. size is what its header says.
func (s *source) measureQcow2(ctx context.Context, size int64) error {
	if size <= 0 || size > largestQcow2 {
		return fmt.Errorf("reading %s: its header claims a disk of %d bytes", s.image, size)
	}
	s.size, s.sector = size, 512
	fd, err := unix.MemfdCreate("head", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("making a file in memory: %w", err)
	}
	head := os.NewFile(uintptr(fd), "head")
	defer head.Close()
	path, err := filepath.Abs(s.image)
	if err != nil {
		return fmt.Errorf("reading %s: %w", s.image, err)
	}
	if size < 8192 {
		return nil
	}
	// Descriptor 3 is the first extra file.
	err = runQemuImg(ctx, head, "dd", "-f", "qcow2", "-O", "raw", "bs=4096", "count=2", "if="+path, "of=/proc/self/fd/3")
	if ctx.Err() != nil || errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("reading %s: %w", s.image, err)
	}
	if err == nil { // else the image is damaged: its own check tells how
		s.sector = sectorSize(head, 8192)
	}
	return nil
}

// load makes a disk readable that is a qcow2: through open, or where that cannot be (no program, no FUSE in the kernel
// or the container) as a copy.
func (s *source) load(ctx context.Context, open ImageOpener) error {
	if s.image == "" || s.file != s.lock {
		return nil
	}
	if open == nil {
		return s.unpack(ctx)
	}
	file, release, err := open(ctx, s.lock)
	if ctx.Err() != nil {
		return fmt.Errorf("opening %s: %w", s.image, context.Cause(ctx))
	}
	if err != nil {
		return s.unpack(ctx)
	}
	s.file, s.release, s.sector = file, release, sectorSize(file, s.size)
	return nil
}

// unpack writes what a machine would see on a qcow2 to a sparse file.
func (s *source) unpack(ctx context.Context) error {
	raw, err := outfile.Scratch(s.tempDir)
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", s.image, err)
	}
	s.file = raw
	if err := raw.Truncate(s.size); err != nil {
		return fmt.Errorf("making room to unpack %s in %s: %w", s.image, s.tempDir, err)
	}
	source, err := filepath.Abs(s.image)
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", s.image, err)
	}
	// -n with an existing target: it has no name that qemu-img could create.
	err = runQemuImg(ctx, raw, "convert", "-n", "--target-is-zero", "-f", "qcow2", "-O", "raw", source, "/proc/self/fd/3")
	if err != nil {
		return fmt.Errorf("unpacking %s to %s: %w", s.image, s.tempDir, err)
	}
	s.sector = sectorSize(raw, s.size)
	return nil
}

// checkQcow2 has the image's own structure checked.
func checkQcow2(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	return runQemuImg(ctx, nil, "check", "-q", "-f", "qcow2", path)
}

func runQemuImg(ctx context.Context, target *os.File, args ...string) error {
	path, err := hostprog.Find(qemuImg)
	if err != nil {
		return fmt.Errorf("%w; to do: install the package qemu-utils (Debian) or qemu-img (Fedora)", err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	if target != nil {
		cmd.ExtraFiles = []*os.File{target}
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
