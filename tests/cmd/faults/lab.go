package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lab holds the state that all runs share.
type lab struct {
	ctx       context.Context
	opts      options
	dir       string
	images    map[string]string // references by name: small, grub, many, fat, archive, real
	baselines map[setup]baseline
	podman    *podman
}

// setup is one way to install.
type setup struct {
	fs, image string
	container bool
}

func newLab(ctx context.Context, o options) (*lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("this needs root, for loop devices and mounts")
	}
	if o.installer == "" {
		return nil, errors.New("-installer is missing; tests/faults sets it")
	}
	// Processes that a killed installer leaves fall to this process: it cannot hide.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("becoming the reaper of orphans: %w", err)
	}
	dir, err := os.MkdirTemp("", "installer-faults-")
	if err != nil {
		return nil, err
	}
	l := &lab{ctx: ctx, opts: o, dir: dir, baselines: map[setup]baseline{}}
	if l.images, err = makeImages(filepath.Join(dir, "images")); err == nil {
		l.podman, err = newPodman(filepath.Join(dir, "podman"))
	}
	if err != nil {
		l.close()
		return nil, err
	}
	if o.image != "" {
		l.images["real"] = o.image
	}
	return l, nil
}

func (l *lab) close() {
	if l.podman != nil {
		l.podman.close()
	}
	// Not across a file system: a mount that is left is a finding, not ours to empty.
	if out, err := exec.Command("rm", "-rf", "--one-file-system", l.dir).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "faults: removing %s: %v: %s\n", l.dir, err, out)
	}
}
