package faultdisk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

const size = 8 << 20

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newDisk(t *testing.T) (*Disk, *os.File) {
	t.Helper()
	d, err := New(t.TempDir(), size)
	must(t, err)
	f, err := d.Open()
	must(t, err)
	t.Cleanup(func() {
		f.Close()
		must(t, d.Close())
	})
	return d, f
}

func TestContent(t *testing.T) {
	d, f := newDisk(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 3<<20/16)
	_, err := f.WriteAt(want, 5)
	must(t, err)
	must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 8192))
	clear(want[4096-5 : 4096+8192-5])
	got := make([]byte, len(want))
	must(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	_, err = f.ReadAt(got, 5)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("what is read is not what was written")
	}
	if info, err := f.Stat(); err != nil || info.Size() != size {
		t.Errorf("size %v, %v", info, err)
	}
	if counts, failed := d.Counts(); counts[Write] < 3 || counts[Zero] != 1 || counts[Read] == 0 || failed != 0 {
		t.Errorf("counts %v, %d failed", counts, failed)
	}
}

func TestFaults(t *testing.T) {
	d, f := newDisk(t)
	d.SetFault(func(op Op) unix.Errno {
		switch {
		case op.Kind == Write && op.Off == 4096:
			return unix.ENOSPC
		case op.Kind == Flush:
			return unix.EIO
		}
		return 0
	})
	if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Error(err)
	}
	if _, err := f.WriteAt(make([]byte, 4096), 4096); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("write: %v, want ENOSPC", err)
	}
	if err := f.Sync(); !errors.Is(err, unix.EIO) {
		t.Errorf("sync: %v, want EIO", err)
	}
	d.SetFault(nil)
	must(t, f.Sync())
	if _, failed := d.Counts(); failed != 2 {
		t.Errorf("%d failed, want 2", failed)
	}
}

// Flushed writes survive every power cut; others may go.
func TestReplay(t *testing.T) {
	d, f := newDisk(t)
	log, err := d.Record()
	must(t, err)
	write := func(b byte, at int64) {
		_, err := f.WriteAt(bytes.Repeat([]byte{b}, 4096), at)
		must(t, err)
	}
	write('a', 0)
	write('b', 4096)
	must(t, f.Sync())
	write('c', 0)
	must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 4096))
	if log.Len() != 5 || log.Flushed(5) != 3 || log.Flushed(2) != 0 {
		t.Fatalf("%d entries, flushed %d and %d", log.Len(), log.Flushed(5), log.Flushed(2))
	}
	none := func() bool { return false }
	for i, c := range []struct {
		n        int
		survives func() bool
		want     string
	}{{0, nil, "\x00\x00"}, {2, nil, "ab"}, {2, none, "\x00\x00"}, {3, none, "ab"}, {5, none, "ab"}, {4, nil, "cb"}, {5, nil, "c\x00"}} {
		name := filepath.Join(t.TempDir(), "replayed")
		must(t, log.Replay(name, c.n, c.survives))
		b, err := os.ReadFile(name)
		must(t, err)
		if got := string([]byte{b[0], b[4096]}); got != c.want || len(b) != size {
			t.Errorf("case %d: %q in %d bytes, want %q", i, got, len(b), c.want)
		}
	}
}
