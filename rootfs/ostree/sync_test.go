package ostree

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The next Sync returns a write-back error of the background, once.
func TestSyncTellsOfWhatWasLostAside(t *testing.T) {
	r := createRepo(t)
	begun := make(chan struct{}, 1)
	r.flusher.sync = func() error {
		begun <- struct{}{}
		return unix.EIO
	}
	zeros := io.LimitReader(zero{}, flushEvery)
	if _, err := r.WriteContent(context.Background(), FileHeader{Mode: 0o100644}, flushEvery, zeros); err != nil {
		t.Fatal(err)
	}
	<-begun // without being asked for
	r.flusher.wait()
	r.flusher.sync = func() error { return nil }
	if err := r.Sync(); !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "ostree/repo") {
		t.Errorf("Sync: %v", err)
	}
	if err := r.Sync(); err != nil {
		t.Errorf("the second Sync: %v", err)
	}
}

// Close returns write-back errors that no Sync has returned; Discard does not.
func TestCloseTellsOfWhatWasLostAside(t *testing.T) {
	losing := func() *testRepo {
		r := createRepo(t)
		r.flusher.sync = func() error { return unix.EIO }
		if err := r.StartSync(); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if err := losing().Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("Close: %v", err)
	}
	r := losing()
	if err := r.Discard(); err != nil {
		t.Errorf("Discard: %v", err)
	}
	if err := r.StartSync(); !errors.Is(err, ErrClosed) {
		t.Errorf("of a discarded repository: %v", err)
	}
}

// Close waits for running operations.
func TestCloseWaitsForSync(t *testing.T) {
	r := createRepo(t)
	ended := false
	begun, end := make(chan struct{}), make(chan struct{})
	r.flusher.sync = func() error {
		close(begun)
		<-end
		ended = true
		return nil
	}
	if err := r.StartSync(); err != nil {
		t.Fatal(err)
	}
	if err := r.StartSync(); err != nil { // and is not done twice
		t.Fatal(err)
	}
	<-begun
	closed := make(chan error, 1)
	go func() { closed <- r.Close() }()
	select {
	case err := <-closed:
		t.Fatalf("it closed early: %v", err)
	default:
	}
	close(end)
	if err := <-closed; err != nil || !ended {
		t.Errorf("%v, ended: %v", err, ended)
	}
	if err := r.StartSync(); !errors.Is(err, ErrClosed) {
		t.Errorf("of a closed repository: %v", err)
	}
}

type zero struct{}

func (zero) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Large content is the same whatever its length and its holes, written past the page cache and,
// where that cannot be, through it.
func TestLargeContentDirect(t *testing.T) {
	random := make([]byte, 4<<20)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(random)
	for _, size := range []int{smallContent + 1, 2 << 20, 2<<20 + 4096, 3<<20 + 100, 3<<20 + 4097} {
		for _, hole := range []span{{}, {0, 1 << 20}, {512 << 10, 1 << 20}} {
			data := bytes.Clone(random[:size])
			clear(data[hole.start:hole.end])
			f, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			s := newScratch().(*scratch)
			large := &largeFile{fd: int(f.Fd())}
			sum, err := large.stream(t.Context(), s, int64(size), bytes.NewReader(data))
			if err != nil || sum != Checksum(sha256.Sum256(data)) {
				t.Errorf("%d bytes: %v, %v", size, sum, err)
			}
			if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes with the hole %v: the file differs, %v", size, hole, err)
			}
			if want := size%directAlign == 0; large.direct && !want {
				t.Errorf("%d bytes: the last part was written directly", size)
			}
			var st unix.Stat_t
			if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > int64(size)-(hole.end-hole.start)+holeSize {
				t.Errorf("%d bytes with the hole %v take %d on the disk, %v", size, hole, st.Blocks*512, err)
			}
			f.Close()
		}
	}
}

// A device that wants more of addresses and lengths than is given to it is written to in the other
// way.
func TestDirectFallsBack(t *testing.T) {
	f, err := os.CreateTemp(mountImage(t, "xfs"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	large := &largeFile{fd: int(f.Fd())}
	if err := large.setDirect(true); err != nil {
		t.Fatalf("there is nothing to fall back from: %v", err)
	}
	s := newScratch().(*scratch)
	buf := s.growAligned(3 * directAlign)[1:]
	if err := large.pwriteAll(buf[:2*directAlign], 0); err != nil {
		t.Errorf("from an odd address: %v", err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != 2*directAlign {
		t.Errorf("%v, %v", info, err)
	}
}
