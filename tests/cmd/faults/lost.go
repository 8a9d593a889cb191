package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"installer/tests/faultdisk"
)

// withDisk gives do a disk whose storage can fail, and wants it back unused.
func (t *trial) withDisk(do func(*faultdisk.Disk)) {
	d, err := faultdisk.New(filepath.Join(t.dir, "disk"), diskSizeOf(t.image))
	if err != nil {
		t.breach("making a disk that fails: %v", err)
		return
	}
	t.raw = d.Path()
	do(d)
	d.SetFault(nil)
	t.raw = ""
	if err := d.Close(); err != nil {
		t.breach("giving the disk back: %v", err)
	}
}

// requests counts the requests of a run of this setup to its disk.
func (t *trial) requests() (counts [faultdisk.Flush + 1]int, ok bool) {
	dir := filepath.Join(t.dir, "disk", "count")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.breach("%v", err)
		return counts, false
	}
	d, err := faultdisk.New(dir, diskSizeOf(t.image))
	if err != nil {
		t.breach("making a disk: %v", err)
		return counts, false
	}
	s := t.install(d.Path(), t.args(), nil)
	counts, _ = d.Counts()
	if err := d.Close(); err != nil || s.code != 0 {
		t.breach("a run without a fault ends with %d: %v: %s", s.code, err, tail(s.stderr))
		return counts, false
	}
	if err := os.RemoveAll(dir); err != nil {
		t.breach("removing the counted disk: %v", err)
		return counts, false
	}
	return counts, true
}

// withFault installs under a fault and judges the run.
func (t *trial) withFault(fault faultdisk.Fault) {
	t.withDisk(func(d *faultdisk.Disk) {
		d.SetFault(fault)
		s := t.install(t.raw, t.args(), nil)
		d.SetFault(nil)
		_, failed := d.Counts()
		if failed == 0 && s.code != 0 {
			t.breach("no request failed, and yet the run did: %s", tail(s.stderr))
		}
		t.struck(s)
		t.nothingLeft()
		if s.code == 0 {
			t.injected = failed > 0
			t.verified(t.raw) // the failed request was repeated, or did not matter
		} else {
			t.succeeds()
		}
	})
}

// anyErrno chooses an error that a device or its driver reports.
func anyErrno(random *rand.Rand) unix.Errno {
	return [...]unix.Errno{unix.EIO, unix.EIO, unix.ENOSPC}[random.IntN(3)]
}

func lostWrites(t *trial) {
	counts, ok := t.requests()
	if !ok {
		return
	}
	from, errno := t.random.IntN(counts[faultdisk.Write]), anyErrno(t.random)
	t.tell("%v for each write from %d of %d on", errno, from, counts[faultdisk.Write])
	t.withFault(func(op faultdisk.Op) unix.Errno {
		if op.Kind == faultdisk.Write && op.N >= from {
			return errno
		}
		return 0
	})
}

func lostWrite(t *trial) {
	counts, ok := t.requests()
	if !ok {
		return
	}
	at, errno := t.random.IntN(counts[faultdisk.Write]), anyErrno(t.random)
	t.tell("%v for write %d of %d", errno, at, counts[faultdisk.Write])
	t.withFault(func(op faultdisk.Op) unix.Errno {
		if op.Kind == faultdisk.Write && op.N == at {
			return errno
		}
		return 0
	})
}

// lostFlush fails one flush, every other time one of the last three.
func lostFlush(t *trial) {
	counts, ok := t.requests()
	if !ok {
		return
	}
	total := counts[faultdisk.Flush]
	at := t.random.IntN(total)
	if t.number%2 == 0 {
		at = total - 1 - t.random.IntN(3)
	}
	t.tell("EIO for flush %d of %d", at, total)
	t.withDisk(func(d *faultdisk.Disk) {
		d.SetFault(func(op faultdisk.Op) unix.Errno {
			if op.Kind == faultdisk.Flush && op.N == at {
				return unix.EIO
			}
			return 0
		})
		s := t.install(t.raw, t.args(), nil)
		_, failed := d.Counts()
		t.injected = failed > 0
		t.struck(s)
		if failed > 0 && s.code == 0 {
			t.breach("a flush failed, and yet the run says complete")
		}
		t.nothingLeft()
		d.SetFault(nil)
		t.succeeds()
	})
}

// deviceGone lets everything fail from an event on, as when a disk is pulled out.
func deviceGone(t *trial) {
	m := t.anyMoment(0)
	t.tell("the device is gone since %q", m.name)
	t.withDisk(func(d *faultdisk.Disk) {
		s := t.install(t.raw, t.args(), func(_ *session, e event) {
			if m.come(e) {
				d.SetFault(func(faultdisk.Op) unix.Errno { return unix.EIO })
			}
		})
		_, failed := d.Counts()
		t.struck(s)
		if s.code == 0 && failed > 0 {
			t.breach("%d requests failed, and yet the run says complete", failed)
		}
		t.nothingLeft()
		d.SetFault(nil)
		t.succeeds()
	})
}

// loopShrunk installs on a block device whose medium goes away.
func loopShrunk(t *trial) {
	if err := t.newRaw(); err != nil {
		t.breach("%v", err)
		return
	}
	backing := t.raw
	out, err := exec.Command("losetup", "--find", "--show", backing).Output()
	if err != nil {
		t.breach("attaching a loop device: %v", err)
		return
	}
	device := strings.TrimSpace(string(out))
	m := t.momentAmong("format", "mount", "import", "deploy", "boot-loader", "finalize")
	args := t.args()
	args = append(args[:1], args[2:]...) // without --via-loopback
	t.raw = device
	s := t.install(device, args, func(_ *session, e event) {
		if m.come(e) && os.Truncate(backing, 0) == nil {
			_ = exec.Command("losetup", "--set-capacity", device).Run()
		}
	})
	t.tell("%s loses its medium at %q", device, m.name)
	t.struck(s)
	deadline := time.Now().Add(grace)
	for {
		out, err := exec.Command("losetup", "--detach", device).CombinedOutput()
		loops, lookErr := loopsOn(t.dir)
		if err == nil && lookErr == nil && len(loops) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.breach("the disk is not free: %v: %s: %v", errors.Join(err, lookErr), out, loops)
			break
		}
	}
	t.raw = backing
	t.nothingLeft()
	if err := os.Truncate(backing, diskSizeOf(t.image)); err != nil {
		t.breach("%v", err)
	}
	t.succeeds()
}

// cuts is how often the power goes in one recorded installation.
const cuts = 12

// powerCut records an installation and looks at the disks that power cuts would have left: one that
// a machine would start from must be whole.
func powerCut(t *trial) {
	t.withDisk(func(d *faultdisk.Disk) {
		log, err := d.Record()
		if err != nil {
			t.breach("%v", err)
			return
		}
		success := -1
		s := t.install(t.raw, t.args(), func(_ *session, e event) {
			if e.Report != nil && e.Report.Outcome == "complete" {
				success = log.Len()
			}
		})
		if s.code != 0 || success < 0 {
			t.breach("a run without a fault ends with %d: %s", s.code, tail(s.stderr))
			return
		}
		none := func() bool { return false }
		some := func() bool { return t.random.IntN(2) == 0 }
		last := log.Flushed(success)
		starts := t.cut(log, success, none, true)
		for i := range cuts {
			n := t.random.IntN(success)
			if i%3 == 0 { // most is decided near the end
				n = max(0, last-t.random.IntN(min(last, 40)))
			}
			survives := [...]func() bool{nil, none, some}[t.random.IntN(3)]
			if t.cut(log, n, survives, false) {
				starts = true
			}
		}
		t.injected = true
		t.tell("%d cuts in %d changes; a machine starts from the last: %v", cuts+1, success, starts)
	})
}

// cut looks at the disk after the first n changes. It returns whether a machine would try to start
// from it.
func (t *trial) cut(log *faultdisk.Log, n int, survives func() bool, whole bool) bool {
	name := filepath.Join(t.dir, "disk", "cut.raw")
	defer os.Remove(name)
	if err := log.Replay(name, n, survives); err != nil {
		t.breach("%v", err)
		return false
	}
	starts, err := startable(name)
	if err != nil {
		t.breach("%v", err)
		return false
	}
	if whole && !starts {
		t.breach("after success no machine would start from the disk")
	}
	if starts || whole {
		if out, err := t.lab.verify(name, t.tmp); err != nil {
			t.breach("cut after change %d, a machine starts from the disk, and it is not whole: %v: %s", n, err, tail(out))
		}
	}
	return starts
}

// startable reports whether firmware finds something to start: boot code in the first sector, or a
// FAT file system on the EFI system partition, at whose boot sector firmware looks first.
func startable(name string) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	mbr := make([]byte, 512)
	if _, err := f.ReadAt(mbr, 0); err != nil {
		return false, err
	}
	if !bytes.Equal(mbr[:440], make([]byte, 440)) {
		return true, nil
	}
	// The EFI system partition is the second, after a BIOS boot partition of 1 MiB at 1 MiB.
	const espStart = 2 << 20
	boot := make([]byte, 512)
	if _, err := f.ReadAt(boot, espStart); err != nil {
		return false, err
	}
	return boot[510] == 0x55 && boot[511] == 0xaa, nil
}
