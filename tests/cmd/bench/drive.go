package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// drive is an empty raw disk file, which every run gets anew.
type drive struct {
	ctx  context.Context
	file string
	loop string // device of the file, where it has one
	root string // mount point, where it is mounted
}

// newDrive makes the file in the directory dir.
func newDrive(ctx context.Context, dir string, size int64) (*drive, error) {
	f, err := os.CreateTemp(dir, "disk-*.raw")
	if err != nil {
		return nil, err
	}
	d := &drive{ctx: ctx, file: f.Name()}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return nil, errors.Join(err, os.Remove(d.file))
	}
	return d, nil
}

// mount makes a file system with the defaults of its tool, and mounts it. The loop
// device passes reads and writes on directly, as the installer's does.
func (d *drive) mount(kind string) (err error) {
	if d.loop, err = output(d.ctx, "losetup", "--find", "--show", "--direct-io=on", d.file); err != nil {
		return err
	}
	if _, err := output(d.ctx, "mkfs."+kind, "-q", d.loop); err != nil {
		return err
	}
	at := d.file + ".mnt"
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(d.loop, at, kind, 0, ""); err != nil {
		return errors.Join(fmt.Errorf("mounting %s: %w", d.loop, err), os.Remove(at))
	}
	d.root = at
	return nil
}

// written returns the bytes that were written to a loop device since the machine started, without
// discards.
func written(loop string) (int64, error) {
	text, err := os.ReadFile(filepath.Join("/sys/block", loop, "stat"))
	if err != nil {
		return 0, err
	}
	const sectorsWritten, sector = 6, 512 // Documentation/block/stat.rst
	fields := strings.Fields(string(text))
	if len(fields) <= sectorsWritten {
		return 0, fmt.Errorf("/sys/block/%s/stat: %q", loop, text)
	}
	n, err := strconv.ParseInt(fields[sectorsWritten], 10, 64)
	return n * sector, err
}

// watch counts the bytes written to loop devices of the file, whoever makes them, until it is
// stopped. Writes between the last look and the end of a device, a few milliseconds later, are not
// counted.
func (d *drive) watch() (stop func() int64) {
	const pause = 20 * time.Millisecond
	before := map[string]int64{}
	for _, loop := range loops("") {
		before[loop], _ = written(loop)
	}
	last := map[string]int64{}
	done, counted := make(chan struct{}), make(chan int64)
	go func() {
		for ended := false; !ended; {
			select {
			case <-done:
				ended = true
			case <-time.After(pause):
			}
			for _, loop := range loops(d.file) {
				if n, err := written(loop); err == nil { // else it is gone
					last[loop] = n - before[loop]
				}
			}
		}
		var sum int64
		for _, n := range last {
			sum += n
		}
		counted <- sum
	}()
	return func() int64 { close(done); return <-counted }
}

// loops lists the loop devices, or those of one file.
func loops(file string) (names []string) {
	all, _ := filepath.Glob("/sys/block/loop*") // the pattern is good
	for _, dir := range all {
		backing, err := os.ReadFile(filepath.Join(dir, "loop/backing_file"))
		if file == "" || err == nil && strings.TrimSpace(string(backing)) == file {
			names = append(names, filepath.Base(dir))
		}
	}
	return names
}

// remove undoes all of it, also when the run was interrupted.
func (d *drive) remove() (err error) {
	if d.root != "" {
		err = errors.Join(unix.Unmount(d.root, 0), os.Remove(d.root))
	}
	if d.loop != "" {
		_, failed := output(context.WithoutCancel(d.ctx), "losetup", "--detach", d.loop)
		err = errors.Join(err, failed)
	}
	return errors.Join(err, os.Remove(d.file))
}

// syncfs writes out a file system.
func syncfs(root string) error {
	f, err := os.Open(root)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// warm reads a file, so that the next run finds it in memory.
func warm(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(onlyWriter{io.Discard}, f)
	return err
}

// onlyWriter hides the methods that would let io.Copy leave the bytes where they are.
type onlyWriter struct{ io.Writer }
