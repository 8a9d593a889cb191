package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"installer/tests/kit"

	"golang.org/x/sys/unix"
)

// root writes a table and attaches its root partition.
func root(t *testing.T, d *Disk) *Device {
	t.Helper()
	v, err := d.Attach(part(t, written(t, d, PlanOptions{}), NameRoot))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDetachGivesBack(t *testing.T) {
	path := rawFile(t, 1<<30)
	d := opened(t, path)
	v := root(t, d)
	if _, err := v.File().WriteAt([]byte("payload"), 4096); err != nil {
		t.Fatal(err)
	}
	if got := loopsOver(t, path); len(got) != 1 || got[0] != v.Path() {
		t.Errorf("losetup lists %v, want %s", got, v.Path())
	}
	for range 2 {
		if err := v.Detach(); err != nil {
			t.Fatal(err)
		}
	}
	if got := loopsOver(t, path); len(got) != 0 {
		t.Errorf("losetup lists %v", got)
	}
	b := make([]byte, 7)
	if _, err := d.ReadAt(b, v.Partition().Start+4096); err != nil || string(b) != "payload" {
		t.Errorf("the disk has %q at the partition (%v)", b, err)
	}
}

// On a real block device the loop device lies over the device, and the kernel's own partition must
// show the file system that was made through it.
func TestAttachOnBlockDevice(t *testing.T) {
	const id = "0f1e2d3c-4b5a-4697-8877-665544332211"
	for _, sector := range []string{"512", "4096"} {
		disk := losetup(t, rawFile(t, 1200*mib), "-P", "--sector-size", sector)
		d := opened(t, disk)
		l := written(t, d, PlanOptions{BIOSBoot: true})
		v, err := d.Attach(part(t, l, NameRoot))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(kit.Run(t, "blockdev", "--getss", v.Path())); got != sector {
			t.Errorf("the sector size of %s is %s, not %s", v.Path(), got, sector)
		}
		if err := XFS.Make(context.Background(), runner, v.Path(), MakeOptions{UUID: id}); err != nil {
			t.Fatal(err)
		}
		if err := v.Detach(); err != nil {
			t.Fatal(err)
		}
		if err := d.Announce(l); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if out := kit.Run(t, "blkid", "-p", "-o", "export", disk+"p3"); !strings.Contains(out, "\nUUID="+id) || !strings.Contains(out, "PART_ENTRY_NAME=root") {
			t.Errorf("blkid says of the partition: %s", out)
		}
		kit.Run(t, "xfs_repair", "-n", disk+"p3")
	}
}

// Not every file system that a disk file may lie on takes direct I/O or holes.
func TestAttachOnTmpfs(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1300m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); err != nil {
			t.Error(err)
		}
	}()
	path := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1200*mib); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	v := root(t, d)
	if err := Btrfs.Make(context.Background(), runner, v.Path(), MakeOptions{UUID: "0f1e2d3c-4b5a-4697-8877-665544332211"}); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// A device that somebody else holds must be reported with that somebody, not passed over.
func TestDetachNamesHolder(t *testing.T) {
	path := rawFile(t, 1<<30)
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	v := root(t, d)
	held, err := os.Open(v.Path())
	if err != nil {
		t.Fatal(err)
	}
	var still *StillAttachedError
	if err := v.Detach(); !errors.As(err, &still) || !strings.Contains(err.Error(), fmt.Sprintf("process %d (", os.Getpid())) {
		t.Errorf("detaching a held device: %v", err)
	}
	held.Close()
	if got := loopsOver(t, path); len(got) != 0 {
		t.Errorf("losetup lists %v after the holder went", got)
	}
	if err := d.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
}

func TestCloseDetaches(t *testing.T) {
	path := rawFile(t, 1<<30)
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	root(t, d)
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := loopsOver(t, path); len(got) != 0 {
		t.Errorf("losetup lists %v", got)
	}
}

// Several programs that allocate at once must not get in each other's way: they race for the same
// free devices, and open each other's for a moment.
func TestAttachConcurrently(t *testing.T) {
	var wg sync.WaitGroup
	for range 3 {
		d := opened(t, rawFile(t, 64*mib))
		for i := range 4 {
			wg.Go(func() {
				for range 10 {
					attachWriteDetach(t, d, Partition{Name: fmt.Sprint(i), Start: int64(i+1) * mib, Size: mib})
				}
			})
		}
	}
	wg.Wait()
}

func attachWriteDetach(t *testing.T, d *Disk, p Partition) {
	v, err := d.Attach(p)
	if err != nil {
		t.Error(err)
		return
	}
	sum := sha256.Sum256([]byte(v.Name() + d.Path() + p.Name))
	if _, err := v.File().WriteAt(sum[:], 0); err != nil {
		t.Error(err)
	}
	if err := v.Detach(); err != nil {
		t.Error(err)
	}
	var got [sha256.Size]byte
	if _, err := d.ReadAt(got[:], p.Start); err != nil || got != sum {
		t.Errorf("%s: wrong content (%v)", p.Name, err)
	}
}

// In a container /dev may have no node for the loop device: one is made, and removed.
func TestNodeDir(t *testing.T) {
	path, nodes := rawFile(t, 1<<30), t.TempDir()
	bare := liveHost()
	bare.Dev = t.TempDir()
	d, err := open(bare, path)
	if err != nil {
		t.Fatal(err)
	}
	p := Partition{Name: "root", Start: mib, Size: 600 * mib}
	if _, err := d.Attach(p); err == nil {
		t.Error("attached with no node and no directory for one")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = open(bare, path, NodeDir(nodes)); err != nil {
		t.Fatal(err)
	}
	v, err := d.Attach(p)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(v.Path()) != nodes {
		t.Errorf("the node is %s", v.Path())
	}
	if err := Ext4.Make(context.Background(), runner, v.Path(), MakeOptions{UUID: "0f1e2d3c-4b5a-4697-8877-665544332211"}); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(nodes); err != nil || len(left) != 0 {
		t.Errorf("left in the node directory: %v (%v)", left, err)
	}
}

// killedEnv makes this test binary the program that is to be killed.
const killedEnv = "DISK_TEST_ATTACH_AND_WAIT"

// A program killed while it holds a loop device leaves none.
func TestKilledLeavesNothing(t *testing.T) {
	if path := os.Getenv(killedEnv); path != "" {
		attachAndWait(path)
	}
	path := rawFile(t, 1<<30)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledLeavesNothing$")
	cmd.Env = append(os.Environ(), killedEnv+"="+path)
	child := kit.Start(t, cmd)
	child.Await(t, "attached")
	if got := loopsOver(t, path); len(got) != 1 {
		t.Fatalf("losetup lists %v", got)
	}
	child.Stop()
	if got := loopsOver(t, path); len(got) != 0 {
		t.Errorf("losetup lists %v after the kill", got)
	}
	if d, err := Open(path); err != nil {
		t.Errorf("the disk cannot be claimed again: %v", err)
	} else if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func attachAndWait(path string) {
	d, err := Open(path)
	if err == nil {
		_, err = d.Attach(Partition{Name: "root", Start: mib, Size: mib})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("attached")
	time.Sleep(time.Hour) // with nothing to wait for, the runtime would end it as a deadlock
	runtime.KeepAlive(d)
}

// A read-only device serves a disk that others hold, keeps writes away, and goes without a trace.
// It needs no node in /dev.
func TestAttachReadOnly(t *testing.T) {
	path, nodes := rawFile(t, 8*mib), t.TempDir()
	if err := os.WriteFile(path, bytes.Repeat([]byte("content!"), 8*mib/8), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// The partition ends behind the disk, which was cut short.
	v, err := AttachReadOnly(file, 512, Partition{Name: "root", Start: mib, Size: 100 * mib}, nodes)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(kit.Run(t, "losetup", "-n", "-O", "RO,OFFSET,AUTOCLEAR,BACK-FILE", v.Path())); !slices.Equal(got, []string{"1", fmt.Sprint(mib), "1", path}) {
		t.Errorf("losetup says %v of the device", got)
	}
	if f, err := os.OpenFile(v.Path(), os.O_WRONLY, 0); err == nil {
		if n, _ := unix.Write(int(f.Fd()), make([]byte, 4096)); n > 0 {
			t.Error("the device takes a write")
		}
		f.Close()
	}
	b := make([]byte, 8)
	if _, err := v.File().ReadAt(b, 4096); err != nil || string(b) != "content!" {
		t.Errorf("the device has %q (%v)", b, err)
	}
	if err := v.Detach(); err != nil {
		t.Error(err)
	}
}
