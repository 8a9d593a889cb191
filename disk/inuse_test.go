package disk

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// refused wants Open to refuse a path as in use, with a message that has some words, and not to have
// changed a byte of what is behind it.
func refused(t *testing.T, path, content string, words ...string) {
	t.Helper()
	before := checksum(t, content)
	d, err := Open(path)
	if err == nil {
		d.Close()
		t.Fatalf("%s was claimed", path)
	}
	var inUse *InUseError
	if !errors.As(err, &inUse) {
		t.Fatalf("%s: %v", path, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in the message: %v", w, err)
		}
	}
	if checksum(t, content) != before {
		t.Error("the refused disk was changed")
	}
}

// checksum hashes what a sparse file holds, with where it stands; holes are passed over.
func checksum(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	if path == "" {
		return [sha256.Size]byte{}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hash := sha256.New()
	for off := int64(0); ; {
		start, err := f.Seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return [sha256.Size]byte(hash.Sum(nil))
		}
		end, err2 := f.Seek(start, unix.SEEK_HOLE)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		fmt.Fprintf(hash, "%d+%d:", start, end-start)
		if _, err := io.Copy(hash, io.NewSectionReader(f, start, end-start)); err != nil {
			t.Fatal(err)
		}
		off = end
	}
}

// mountOn mounts a device until the end of the test.
func mountOn(t *testing.T, device, fstype string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(device, dir, fstype, unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestRefusesMounted(t *testing.T) {
	for _, fs := range []Filesystem{XFS, Ext4, Btrfs} {
		path := rawFile(t, 400*mib)
		output(t, fs.Program(), "-q", path)
		loop := losetup(t, path)
		dir := mountOn(t, loop, string(fs))
		refused(t, loop, path, loop, "mounted at "+dir, "umount")
	}
}

func TestRefusesMountedElsewhere(t *testing.T) {
	path := rawFile(t, 64*mib)
	output(t, "mkfs.ext4", "-q", path)
	loop := losetup(t, path)
	dir := t.TempDir()
	// The mount is visible in the child's namespace alone.
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c",
		`mount -o ro "$0" "$1" && echo mounted && read -r end`, loop, dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// At the end of its input it exits, and its namespace goes with the mount.
	defer cmd.Wait()
	defer stdin.Close()
	line := make([]byte, 8)
	if _, err := stdout.Read(line); err != nil {
		t.Fatal(err)
	}
	refused(t, loop, path, "mounted at "+dir, "mount namespace of process", "(sh)")
}

func TestRefusesMountedPartition(t *testing.T) {
	path := rawFile(t, 1<<30)
	loop := losetup(t, path, "-P")
	d := opened(t, loop)
	l := written(t, d, PlanOptions{})
	if err := d.Announce(l); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	output(t, "mkfs.ext4", "-q", loop+"p2")
	dir := mountOn(t, loop+"p2", "ext4")
	refused(t, loop, path, loop+"p2: mounted at "+dir)
	var never *RefusedError
	if _, err := Open(loop + "p2"); !errors.As(err, &never) || !strings.Contains(err.Error(), "give the whole disk") {
		t.Errorf("a partition: %v", err)
	}
}

func TestRefusesSwap(t *testing.T) {
	path := rawFile(t, 16*mib)
	loop := losetup(t, path)
	output(t, "mkswap", loop)
	output(t, "swapon", loop)
	defer output(t, "swapoff", loop)
	refused(t, loop, "", loop+": used as swap", "swapoff")
}

func TestRefusesReadOnly(t *testing.T) {
	path := rawFile(t, 16*mib)
	refused(t, losetup(t, path, "-r"), path, "read-only")
}

func TestRefusesLoopBacking(t *testing.T) {
	path := rawFile(t, 16*mib)
	loop := losetup(t, path)
	refused(t, path, path, "attached to "+loop, "losetup -d "+loop)
	onTop := losetup(t, loop)
	refused(t, loop, path, "attached to "+onTop)
	// Who has closed the device, and not the file, is known by the lock.
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	refused(t, path, path, "attached to "+loop+", and locked by process "+strconv.Itoa(os.Getpid()))
}

func TestRefusesExclusiveOpener(t *testing.T) {
	path := rawFile(t, 16*mib)
	loop := losetup(t, path)
	f, err := os.OpenFile(loop, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	refused(t, loop, path, "claimed exclusively", "fuser")
	if _, err := Open(loop); !errors.Is(err, unix.EBUSY) {
		t.Errorf("the cause is lost: %v", err)
	}
}

func TestRefusesLocked(t *testing.T) {
	path := rawFile(t, 16*mib)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	refused(t, path, path, "locked by process", "(disk.test)")
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	// As a virtual machine monitor locks its disk image.
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: 201, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	refused(t, path, path, "a range of it is locked", "virtual machine")
}

func TestSecondOpenIsRefused(t *testing.T) {
	path := rawFile(t, 16*mib)
	d := opened(t, path)
	refused(t, path, path, "locked by process")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	opened(t, path)
	loop := losetup(t, rawFile(t, 16*mib))
	opened(t, loop)
	refused(t, loop, "", "claimed exclusively")
}

func TestRefusesTheRunningSystem(t *testing.T) {
	var st unix.Stat_t
	if err := unix.Stat("/", &st); err != nil {
		t.Fatal(err)
	}
	n, err := liveHost().node(devnoOf(st.Dev))
	if err != nil {
		t.Fatal(err)
	}
	disk := n.path()
	if n.number != 0 {
		disk = "/dev/" + filepath.Base(filepath.Dir(n.dir))
	}
	link := filepath.Join(t.TempDir(), "by-id")
	if err := os.Symlink(disk, link); err != nil {
		t.Fatal(err)
	}
	refused(t, link, "", disk, "mounted at /")
}

func TestRefusesWhatIsNoDisk(t *testing.T) {
	var never *RefusedError
	for _, path := range []string{t.TempDir(), "/dev/null", rawFile(t, 0), rawFile(t, 1000)} {
		if _, err := Open(path); !errors.As(err, &never) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// cannedHost is a system with a disk that this machine cannot have: two partitions, one of them part of
// an LVM volume, the other of a btrfs of several devices.
func cannedHost(t *testing.T) host {
	t.Helper()
	dir := t.TempDir()
	h := host{sys: dir + "/sys", proc: dir + "/proc", dev: dir + "/dev"}
	sda := h.sys + "/devices/pci/block/sda"
	for path, text := range map[string]string{
		sda + "/dev": "8:0\n", sda + "/size": "8192\n", sda + "/ro": "0\n",
		sda + "/device/vendor": "ACME    \n", sda + "/device/model": "Disk 9000\n",
		sda + "/sda1/dev": "8:1\n", sda + "/sda1/partition": "1\n", sda + "/sda1/start": "2048\n", sda + "/sda1/size": "2048\n",
		sda + "/sda2/dev": "8:2\n", sda + "/sda2/partition": "2\n", sda + "/sda2/start": "4096\n", sda + "/sda2/size": "2048\n",
		sda + "/sda2/holders/dm-3/dev":                 "253:3\n",
		h.sys + "/block/dm-3/dm/name":                  "vg0-home\n",
		h.sys + "/fs/btrfs/1234-abcd/devices/sda1/dev": "8:1\n",
		h.proc + "/swaps":                              "Filename\tType\tSize\tUsed\tPriority\n",
		h.proc + "/self/mountinfo": "22 1 253:0 / / rw - ext4 /dev/mapper/root rw\n" +
			"30 22 8:2 / /mnt/a\\040b rw shared:1 - ext4 /dev/sda2 rw\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		h.sys + "/dev/block/8:0": sda, h.sys + "/dev/block/8:2": sda + "/sda2", h.proc + "/self/ns/mnt": "mnt:[1]",
	} {
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestSurveyOfStackedDevices(t *testing.T) {
	h := cannedHost(t)
	s, err := h.wholeDisk("/dev/sda", devno{8, 0})
	if err != nil {
		t.Fatal(err)
	}
	if s.nodes[0].model() != "ACME Disk 9000" || len(s.nodes) != 3 || s.nodes[2].start != 2*mib || s.nodes[2].size != mib {
		t.Errorf("nodes %+v", s.nodes)
	}
	uses, err := h.survey(s)
	if err != nil {
		t.Fatal(err)
	}
	text := (&InUseError{Path: "/dev/sda", Uses: uses}).Error()
	for _, want := range []string{"/dev/sda2: mounted at /mnt/a b", "/dev/sda2: part of /dev/dm-3 (vg0-home)",
		"/dev/sda1: member of the mounted btrfs file system 1234-abcd"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing: %s", want, text)
		}
	}
	if len(uses) != 3 {
		t.Errorf("%d uses: %s", len(uses), text)
	}
	if _, err := h.wholeDisk("/dev/sda2", devno{8, 2}); err == nil || !strings.Contains(err.Error(), "partition 2 of /dev/sda") {
		t.Errorf("a partition: %v", err)
	}
}

// What cannot be read must fail the survey, not pass for "not in use".
func TestSurveyThatCannotTellFails(t *testing.T) {
	h := cannedHost(t)
	s, err := h.wholeDisk("/dev/sda", devno{8, 0})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(h.proc + "/self/mountinfo"); err != nil {
		t.Fatal(err)
	}
	if uses, err := h.survey(s); err == nil {
		t.Errorf("the survey gave %v", uses)
	}
}

func TestUnescapeOctal(t *testing.T) {
	for in, want := range map[string]string{`/a\040b`: "/a b", `\134`: `\`, `/x\04`: `/x\04`, `plain`: "plain"} {
		if got := unescapeOctal(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
