package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// withTmpfs mounts a small tmpfs on a new directory of the trial for the time of do.
func (t *trial) withTmpfs(name string, size int64, do func(dir string)) {
	dir := filepath.Join(t.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.breach("%v", err)
		return
	}
	if err := unix.Mount("faults", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.breach("mounting a tmpfs: %v", err)
		return
	}
	do(dir)
	if err := unix.Unmount(dir, 0); err != nil {
		t.breach("the file system under the disk is still in use: %v", err)
	}
}

// blames wants a failed run to name the device, and the step in which it failed.
func (t *trial) blames(s *session) {
	e := s.failedStep()
	if e.Title == "" || !strings.Contains(s.stderr, e.Title) {
		t.breach("the step that failed is not named: %s", tail(s.stderr))
	}
	if !strings.Contains(s.stderr, t.raw) && !strings.Contains(s.stderr, "/dev/loop") &&
		!strings.Contains(s.stderr, workspaceDir) {
		t.breach("the device is not named: %s", tail(s.stderr))
	}
	if e.Stage == nil && e.Step == "finalize" && !s.namesStage() {
		t.breach("the stage that failed is not named: %s", tail(s.stderr))
	}
}

// struck judges a run whose storage failed: it must fail and say where, or have been spared.
func (t *trial) struck(s *session) {
	t.tell("%s: exit status %d in %q", t.story, s.code, s.failedStep().Step)
	t.judge(s, 1)
	if s.code == 0 {
		return
	}
	t.injected = true
	t.blames(s)
}

// backingFull has the disk file on a tmpfs with room for a part of the installation.
func backingFull(t *trial) {
	part := 3 + t.random.Int64N(95)
	t.tell("room for %d %% of the disk", part)
	t.withTmpfs("disk", t.base.blocks*part/100, func(dir string) {
		if err := t.newRaw(); err != nil {
			t.breach("%v", err)
			return
		}
		s := t.install(t.raw, t.args(), nil)
		t.struck(s)
		t.nothingLeft()
		if s.code == 0 {
			t.verified(t.raw)
			return
		}
		if err := unix.Mount("faults", dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", diskSizeOf(t.image))); err != nil {
			t.breach("making the tmpfs larger: %v", err)
		}
		t.succeeds()
	})
	t.raw = ""
}

// strangerFills has somebody use up the new root at a moment of the import or later, through the
// installer's own root directory: there is no other way to it.
func strangerFills(t *trial, what string, fill func(root string) error) {
	if err := t.newRaw(); err != nil {
		t.breach("%v", err)
		return
	}
	m := t.momentAmong("import", "deploy")
	var filled error
	var ended time.Time
	s := t.install(t.raw, t.args(), func(s *session, e event) {
		if m.come(e) {
			s.signal(syscall.SIGSTOP) // it does not get ahead of who fills
			filled = fill(filepath.Join("/proc", s.pid(), "root", workspaceDir, "root"))
			ended = time.Now()
			s.signal(syscall.SIGCONT)
		}
	})
	t.tell("%s at %q", what, m.name)
	if s.releasedBefore(ended) { // who fills it up holds it
		t.tell("%s: still at it when the disk was given back", t.story)
		t.nothingLeft()
		t.succeeds()
		return
	}
	t.judge(s, 1)
	t.nothingLeft()
	if s.code != 0 {
		t.injected = true
		t.tell("%s: exit status %d in %q", t.story, s.code, s.failedStep().Step)
		if !strings.Contains(s.stderr, "no space left on device") {
			t.breach("the lack of space is not named: %s", tail(s.stderr))
		}
		t.blames(s)
	} else if filled != nil {
		t.tell("%s (too late: %v)", t.story, filled)
	}
	t.succeeds()
}

// releasedBefore reports whether the run began to give the disk back before a time.
func (s *session) releasedBefore(when time.Time) bool {
	for _, e := range s.events {
		if (e.Event == "failed" || e.Event == "step" && e.Step == "finalize") && e.Time.Before(when) {
			return true
		}
	}
	return false
}

func rootFull(t *trial) {
	strangerFills(t, "the root filled", func(root string) error {
		f, err := os.Create(filepath.Join(root, "filler"))
		if err != nil {
			return err
		}
		defer f.Close()
		for size := int64(256 << 20); size >= 4096; {
			end, err := f.Seek(0, 2)
			if err != nil {
				return err
			}
			if unix.Fallocate(int(f.Fd()), 0, end, size) != nil {
				size /= 2
			}
		}
		_, _ = f.Write(make([]byte, 64<<10)) // the rest of it
		return nil
	})
}

// inodesGone leaves no inode. Where inodes are made as needed there is none left when there is no
// space.
func inodesGone(t *trial) {
	if t.fs != "ext4" {
		t.fs = "ext4"
		if base, err := t.lab.baseline(t); err == nil {
			t.base = base
		}
	}
	strangerFills(t, "the root's inodes used up", func(root string) error {
		dir := filepath.Join(root, "filler")
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		for i := 0; ; i++ {
			fd, err := unix.Open(filepath.Join(dir, itoa(i)), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
			if err == unix.ENOSPC {
				return nil
			}
			if err != nil {
				return err
			}
			unix.Close(fd)
		}
	})
}

// tightRoot asks for a root of about the size that the plan says is needed: it is refused before
// the first write, or it does.
func tightRoot(t *trial) {
	if t.image == "small" && t.random.IntN(4) == 0 {
		t.image = "many"
	}
	if err := t.newRaw(); err != nil {
		t.breach("%v", err)
		return
	}
	dry := t.install(t.raw, t.args("--dry-run"), nil)
	need := rootNeed(dry)
	if dry.code != 0 || need == 0 {
		t.breach("the dry run ends with %d and no need: %s", dry.code, tail(dry.stderr))
		return
	}
	mib := need>>20 + int64(t.random.IntN(12)) - 4
	s := t.install(t.raw, t.args("--root-size", fmt.Sprintf("%dM", mib)), nil)
	t.tell("a root of %d MiB where %d bytes are needed, image %s: exit status %d", mib, need, t.image, s.code)
	t.judge(s, 4)
	t.nothingLeft()
	switch {
	case s.code == 0:
		t.verified(t.raw)
	case allocated(t.raw) != 0:
		t.breach("refused, but %d bytes were written", allocated(t.raw))
	default:
		t.injected = true
		if !strings.Contains(s.stderr, "too small") && !strings.Contains(s.stderr, "needed") {
			t.breach("the missing space is not named: %s", tail(s.stderr))
		}
		t.succeeds()
	}
}

func rootNeed(s *session) int64 {
	for _, e := range s.events {
		if e.Report != nil && e.Report.Plan != nil {
			return e.Report.Plan.RootNeed
		}
	}
	return 0
}

// espFull installs boot files that the usual EFI system partition does not hold, on a disk that may
// be too small for a larger one: then it must stay as it was.
func espFull(t *trial) {
	t.image = "fat"
	t.raw = filepath.Join(t.dir, "disk", "disk.raw")
	size := int64(1100+t.random.IntN(160)*4) << 20
	if err := makeRaw(t.raw, size); err != nil {
		t.breach("%v", err)
		return
	}
	s := t.install(t.raw, t.args(), nil)
	t.tell("boot files of %d MiB on a disk of %d MiB: exit status %d in %q", fatInitramfs>>20, size>>20, s.code, s.failedStep().Step)
	t.injected = s.code != 0
	t.judge(s, 4)
	t.nothingLeft()
	if s.code == 0 {
		t.verified(t.raw)
		return
	}
	if allocated(t.raw) != 0 {
		t.breach("refused, and yet %d bytes were written", allocated(t.raw))
	}
	t.succeedsWith("small")
}

// tmpFull leaves a random bit of room for temporary files.
func tmpFull(t *trial) {
	if err := t.newRaw(); err != nil {
		t.breach("%v", err)
		return
	}
	room := int64(4096) << t.random.IntN(12)
	t.withTmpfs("tmp", room, func(string) {
		s := t.install(t.raw, t.args(), nil)
		t.tell("%d KiB for temporary files: exit status %d in %q", room>>10, s.code, s.failedStep().Step)
		t.injected = s.code != 0
		t.judge(s, 1)
		if s.code != 0 && !strings.Contains(s.stderr, "no space left on device") {
			t.breach("the lack of space is not named: %s", tail(s.stderr))
		}
		t.nothingLeft()
	})
	t.succeeds()
}

// reportFull takes the room of the report away: before the start, or at an event.
func reportFull(t *trial) {
	if err := t.newRaw(); err != nil {
		t.breach("%v", err)
		return
	}
	t.withTmpfs("report", 64<<10, func(dir string) {
		fill := func() {
			_ = os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 1<<20), 0o600) // fails when all is used
		}
		m := t.anyMoment(0)
		early := t.random.IntN(4) == 0
		if early {
			m.name = "the start"
			fill()
		}
		s := t.install(t.raw, t.args("--report", filepath.Join(dir, "report.json")), func(_ *session, e event) {
			if !early && m.come(e) {
				fill()
			}
		})
		t.tell("the report's file system is full since %q: exit status %d", m.name, s.code)
		t.injected = s.code != 0
		t.judge(s, 1)
		if s.code == 0 {
			t.verified(t.raw)
		} else if !strings.Contains(s.stderr, "report") || !strings.Contains(s.stderr, "no space left on device") {
			t.breach("the report is not named: %s", tail(s.stderr))
		}
		t.onlyReport("filler")
		t.nothingLeft()
	})
	t.succeeds()
}

// onlyReport wants no temporary file beside the report.
func (t *trial) onlyReport(known ...string) {
	entries, err := os.ReadDir(filepath.Join(t.dir, "report"))
	if err != nil {
		t.breach("%v", err)
	}
	for _, e := range entries {
		if e.Name() != "report.json" && !strings.Contains(strings.Join(known, " "), e.Name()) {
			t.breach("left behind beside the report: %s", e.Name())
		}
	}
}
