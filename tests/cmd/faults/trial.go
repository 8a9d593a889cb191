package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// diskSize is that of the disks that are installed on, in bytes; they are sparse.
const diskSize = 1 << 30

// trial is one run with its fault and its result.
type trial struct {
	lab    *lab
	kind   kind
	number int
	random *rand.Rand
	setup
	base     baseline
	expected time.Duration // of a run without a fault

	place

	injected bool
	story    string   // the fault, in words
	broken   []string // promises that were not kept
	took     time.Duration
}

// place is the directory of a trial: a run can leave something behind here.
type place struct {
	dir   string
	tmp   string   // TMPDIR of the installer
	raw   string   // the disk
	known []string // names that may be in dir
}

// newTrial decides everything by seed, kind and number: the file systems take turns, every fifth
// run is in a container, every tenth installs the real image.
func (l *lab) newTrial(k kind, number int) *trial {
	h := fnv.New64a()
	fmt.Fprint(h, k.name)
	t := &trial{lab: l, kind: k, number: number,
		random: rand.New(rand.NewPCG(l.opts.seed, h.Sum64()+uint64(number)))}
	t.fs = [...]string{"xfs", "ext4", "btrfs"}[number%3]
	t.image = [...]string{"small", "small", "grub", "grub", "archive"}[t.random.IntN(5)]
	t.container = t.random.IntN(5) == 0
	if real := l.images["real"]; real != "" && t.random.IntN(10) == 0 {
		t.image = "real"
	}
	if k.image != "" {
		t.image = k.image
	}
	if k.onHost {
		t.container = false
	}
	return t
}

func (t *trial) describe() string {
	where := "on the host"
	if t.container {
		where = "in a container"
	}
	return fmt.Sprintf("%s, image %s, %s", t.fs, t.image, where)
}

func (t *trial) breach(format string, args ...any) {
	t.broken = append(t.broken, fmt.Sprintf(format, args...))
}

// tell sets the description of the trial.
func (t *trial) tell(format string, args ...any) { t.story = fmt.Sprintf(format, args...) }

// perform makes the place, lets the kind do its worst, and looks at every promise.
func (t *trial) perform() {
	began := time.Now()
	defer func() { t.took = time.Since(began) }()
	if err := t.prepare(); err != nil {
		t.breach("preparing: %v", err)
		return
	}
	before := t.bystanders()
	t.kind.do(t)
	if after := t.bystanders(); after != before {
		t.breach("files beside the target have changed")
	}
	if err := os.RemoveAll(t.dir); err != nil && len(t.broken) == 0 {
		t.breach("removing the trial's directory: %v", err)
	}
}

func (t *trial) prepare() error {
	t.dir = filepath.Join(t.lab.dir, fmt.Sprintf("%s-%d", t.kind.name, t.number))
	t.tmp = filepath.Join(t.dir, "tmp")
	t.known = []string{"tmp", "bystander", "disk", "report"}
	for _, name := range []string{"tmp", "bystander", "disk", "report"} {
		if err := os.MkdirAll(filepath.Join(t.dir, name), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(t.dir, "bystander/file"), []byte("nobody's business"), 0o600); err != nil {
		return err
	}
	var err error
	t.base, err = t.lab.baseline(t)
	t.expected = t.base.whole
	return err
}

// newRaw makes the disk of the trial, an empty sparse file.
func (t *trial) newRaw() error {
	t.raw = filepath.Join(t.dir, "disk", "disk.raw")
	return makeRaw(t.raw, diskSizeOf(t.image))
}

// diskSizeOf is the size of the disk for an image.
func diskSizeOf(image string) int64 {
	if image == "real" || image == "fat" {
		return 3 * diskSize
	}
	return diskSize
}

func makeRaw(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// args are the installer's arguments but for the disk.
func (t *trial) args(more ...string) []string {
	args := []string{"to-disk", "--via-loopback", "--wipe", "--generic-image", "--filesystem", t.fs,
		"--source-imgref", t.lab.images[t.image], "--bootloader", loaderOf(t.image)}
	return append(args, more...)
}

// loaderOf is the boot loader that an image has.
func loaderOf(image string) string {
	if image == "grub" || image == "real" {
		return "grub"
	}
	return "systemd"
}

// succeeds runs the installer without a fault, on the leftovers of the fault, and has the result
// verified.
func (t *trial) succeeds() {
	s := t.install(t.raw, t.args(), nil)
	if s.code != 0 {
		t.breach("the next run fails with exit status %d: %s", s.code, tail(s.stderr))
		return
	}
	t.nothingLeft()
	t.verified(t.raw)
}

// succeedsWith is succeeds with another image.
func (t *trial) succeedsWith(image string) {
	t.image = image
	t.succeeds()
}

// verified has the installer verify a disk.
func (t *trial) verified(raw string) bool {
	if out, err := t.lab.verify(raw, t.tmp); err != nil {
		t.breach("the disk does not verify: %v: %s", err, tail(out))
		return false
	}
	return true
}

func (l *lab) verify(raw, tmp string) (string, error) {
	cmd := exec.Command(l.opts.installer, "verify", raw)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a signal for the harness is not for its children
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// judge looks at the end of a run that a fault may have struck: success must be true, failure named
// and clean.
func (t *trial) judge(s *session, wantCode int) {
	switch {
	case s.code == 0 && !s.claims():
		t.breach("exit status 0 without a word of success")
	case s.code != 0 && s.claims():
		t.breach("exit status %d, and yet it says complete", s.code)
	case s.code != 0 && s.code != wantCode:
		t.breach("exit status %d, want %d: %s", s.code, wantCode, tail(s.stderr))
	}
	for _, u := range s.undone() {
		// A device that fails cannot be flushed either: that is reported, and only leftovers count.
		if strings.Contains(u, "failed: ") && !(t.kind.storage && strings.Contains(u, "failed: flushing ")) {
			t.breach("undo: %s", u)
		}
	}
}

// tail returns the end of a program's output.
func tail(s string) string {
	const limit = 1500
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-limit):]
}

// baseline is a run of a setup without a fault.
type baseline struct {
	whole     time.Duration
	landmarks []string
	blocks    int64 // that the disk takes in the end, bytes
}

// baseline installs once on a setup's first use. The very first run finds nothing cached and is no
// measure.
func (l *lab) baseline(t *trial) (baseline, error) {
	if b, ok := l.baselines[t.setup]; ok {
		return b, nil
	}
	raw := filepath.Join(t.dir, "disk", "baseline.raw")
	if err := makeRaw(raw, diskSizeOf(t.image)); err != nil {
		return baseline{}, err
	}
	defer os.Remove(raw)
	var b baseline
	t.expected = 30 * time.Second
	for range 2 {
		s := t.install(raw, t.args(), nil)
		if s.code != 0 {
			return b, fmt.Errorf("a run without a fault fails: %s", tail(s.stderr))
		}
		b.whole, b.landmarks = s.took, nil
		for _, e := range s.events {
			if e.landmark() {
				b.landmarks = append(b.landmarks, e.String())
			}
		}
	}
	b.blocks = allocated(raw)
	l.baselines[t.setup] = b
	return b, nil
}
