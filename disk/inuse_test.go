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

	"installer/disk/block"
	"installer/disk/mounts"
	"installer/tests/kit"

	"golang.org/x/sys/unix"
)

// refused wants Open to refuse a path as in use, with a message that has some words, and not to
// have changed a byte of what is behind it.
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

// checksum hashes the data of a sparse file, with its offsets; holes are passed over.
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
		kit.Run(t, fs.Program(), "-q", path)
		loop := losetup(t, path)
		dir := mountOn(t, loop, string(fs))
		refused(t, loop, path, loop, "mounted at "+dir, "umount")
	}
}

func TestRefusesMountedElsewhere(t *testing.T) {
	path := rawFile(t, 64*mib)
	kit.Run(t, "mkfs.ext4", "-q", path)
	loop := losetup(t, path)
	dir := t.TempDir()
	// The mount is visible in the child's namespace alone.
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c",
		`mount -o ro "$0" "$1" && echo mounted && read -r end`, loop, dir)
	kit.Start(t, cmd).Await(t, "mounted") // its namespace goes with it, and the mount with that
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
	kit.Run(t, "mkfs.ext4", "-q", loop+"p2")
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
	kit.Run(t, "mkswap", loop)
	kit.Run(t, "swapon", loop)
	defer kit.Run(t, "swapoff", loop)
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
	n, err := liveHost().node(block.Split(st.Dev))
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
	refused(t, link, "", disk, "the disk that this machine runs from", "is mounted at /")
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

// fakeHost is a system with a disk sda of two partitions, and whatever files adds to it. A path
// that begins with "sys/" or "proc/" is a file; a value that begins with "-> " makes it a symbolic
// link.
func fakeHost(t *testing.T, files map[string]string) host {
	t.Helper()
	dir := t.TempDir()
	const sda = "sys/devices/pci/block/sda"
	all := map[string]string{
		sda + "/dev": "8:0\n", sda + "/size": "8192\n", sda + "/ro": "0\n",
		sda + "/device/vendor": "ACME    \n", sda + "/device/model": "Disk 9000\n",
		sda + "/sda1/dev": "8:1\n", sda + "/sda1/partition": "1\n", sda + "/sda1/start": "2048\n", sda + "/sda1/size": "2048\n",
		sda + "/sda2/dev": "8:2\n", sda + "/sda2/partition": "2\n", sda + "/sda2/start": "4096\n", sda + "/sda2/size": "2048\n",
		"sys/dev/block/8:0": "-> " + dir + "/" + sda, "sys/dev/block/8:2": "-> " + dir + "/" + sda + "/sda2",
		"proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n", "proc/self/task/5/ns/mnt": "-> mnt:[1]",
		"proc/self/mountinfo": "22 1 0:30 / / rw - overlay overlay rw\n",
	}
	for path, text := range files {
		all[strings.Replace(path, "sda/", sda+"/", 1)] = text
	}
	for path, text := range all {
		path = filepath.Join(dir, path)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if to, isLink := strings.CutPrefix(text, "-> "); isLink {
			err = errors.Join(err, os.Symlink(to, path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(text), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	h := block.Host{Sys: dir + "/sys", Proc: dir + "/proc", Dev: dir + "/dev"}
	return host{h, func() (*mounts.Snapshot, error) { return fakeMounts(h) }}
}

// fakeMounts returns the mounts of the fake processes, each of which is in a namespace of its own.
func fakeMounts(h block.Host) (*mounts.Snapshot, error) {
	snapshot := &mounts.Snapshot{}
	tables, err := filepath.Glob(h.Proc + "/*/mountinfo")
	if err != nil || len(tables) == 0 {
		return nil, errors.Join(errors.New("no process"), err)
	}
	for _, table := range tables {
		text, err := os.ReadFile(table)
		if err != nil {
			return nil, err
		}
		links, err := filepath.Glob(filepath.Dir(table) + "/task/*/ns/mnt")
		if err != nil || len(links) == 0 {
			return nil, errors.Join(errors.New("no namespace beside "+table), err)
		}
		link, err := os.Readlink(links[0])
		if err != nil {
			return nil, err
		}
		ns := mounts.Namespace{Own: filepath.Base(filepath.Dir(table)) == "self"}
		if _, err := fmt.Sscanf(link, "mnt:[%d]", &ns.Inode); err != nil {
			return nil, err
		}
		if ns.Mounts, err = mounts.Parse(strings.NewReader(string(text))); err != nil {
			return nil, err
		}
		snapshot.Namespaces = append(snapshot.Namespaces, ns)
	}
	return snapshot, nil
}

// onTop adds a device that is stacked on others, which it has as "sda/sda2" or by the name of
// another one.
func onTop(files map[string]string, name, number string, attributes map[string]string, below ...string) {
	files["sys/block/"+name+"/dev"] = number + "\n"
	files["sys/block/"+name+"/size"] = "2048\n"
	for a, text := range attributes {
		files["sys/block/"+name+"/"+a] = text + "\n"
	}
	for _, b := range below {
		up := "sys/block/" + b + "/holders/" + name
		to := "../../" + name
		if strings.HasPrefix(b, "sda") {
			up, to = b+"/holders/"+name, "../../../../../../block/"+name
		}
		if b == "sda" {
			to = "../../../../../block/" + name
		}
		files[up] = "-> " + to
	}
}

func surveyed(t *testing.T, h host) *InUseError {
	t.Helper()
	s, err := h.wholeDisk("/dev/sda", block.Number{Major: 8, Minor: 0})
	if err != nil {
		t.Fatal(err)
	}
	uses, err := h.survey(s)
	if err != nil {
		t.Fatal(err)
	}
	return &InUseError{Path: "/dev/sda", Uses: uses}
}

// TestSurveyNamesTheLayerAndItsRemedy has one stack of each kind.
func TestSurveyNamesTheLayerAndItsRemedy(t *testing.T) {
	lvm := func(name string) map[string]string {
		return map[string]string{"dm/name": name, "dm/uuid": "LVM-abcdefgh"}
	}
	mount := func(line string) string { return "22 1 0:30 / / rw - overlay overlay rw\n" + line + "\n" }
	for name, c := range map[string]struct {
		build func(files map[string]string)
		want  []string // all uses, in their order
		kinds []Kind
	}{
		"partition and btrfs member": {func(f map[string]string) {
			f["proc/self/mountinfo"] = mount(`30 22 8:2 / /mnt/a\040b rw shared:1 - ext4 /dev/sda2 rw`)
			f["sys/fs/btrfs/1234-abcd/devices/sda1/dev"] = "8:1\n"
		}, []string{"/dev/sda2: mounted at /mnt/a b (umount it)",
			"/dev/sda1: member of the mounted btrfs file system 1234-abcd (umount it)"}, []Kind{Mounted, BtrfsMember}},
		"LVM": {func(f map[string]string) {
			onTop(f, "dm-3", "253:3", lvm("my--vg-home"), "sda/sda2")
			onTop(f, "dm-4", "253:4", lvm("my--vg-a--b"), "sda/sda2")
			f["proc/self/mountinfo"] = mount("30 22 253:4 / /srv rw - xfs /dev/mapper/x rw")
		}, []string{"/dev/mapper/my--vg-a--b: mounted at /srv (umount it)",
			"/dev/sda2: physical volume of the active LVM volume group my-vg (volume a-b, dm-4) (vgchange -an my-vg)"}, []Kind{Mounted, LVM}},
		"encrypted LVM with the system": {func(f map[string]string) {
			onTop(f, "dm-0", "253:0", map[string]string{"dm/name": "luks-1", "dm/uuid": "CRYPT-LUKS2-1-luks-1"}, "sda/sda2")
			onTop(f, "dm-1", "253:1", lvm("vg-root"), "dm-0")
			f["proc/self/mountinfo"] = "22 1 253:1 / / rw - ext4 /dev/mapper/vg-root rw\n"
		}, []string{"/dev/mapper/vg-root: mounted at / (umount it)",
			"/dev/mapper/luks-1: physical volume of the active LVM volume group vg (volume root, dm-1) (vgchange -an vg)",
			"/dev/sda2: opened as the encrypted volume /dev/mapper/luks-1 (dm-0) (cryptsetup close luks-1)"}, []Kind{Mounted, LVM, Crypt}},
		"RAID with a partition in use": {func(f map[string]string) {
			onTop(f, "md127", "9:127", map[string]string{"md/level": "raid1"}, "sda")
			f["sys/block/md127/md127p1/dev"], f["sys/block/md127/md127p1/partition"] = "259:1\n", "1\n"
			f["proc/self/mountinfo"] = mount("30 22 259:1 / /data rw - xfs /dev/md127p1 rw")
		}, []string{"/dev/md127p1: mounted at /data (umount it)",
			"/dev/sda: member of the RAID /dev/md127 (raid1) (mdadm --stop /dev/md127)"}, []Kind{Mounted, MDRAID}},
		"bcache": {func(f map[string]string) {
			onTop(f, "bcache0", "252:0", nil, "sda/sda1")
			f["sda/sda2/bcache/set"] = "-> ../../../../../fs/bcache/55-66"
		}, []string{"/dev/sda1: part of the bcache device /dev/bcache0 (echo 1 > /sys/block/bcache0/bcache/stop)",
			"/dev/sda2: cache device of the bcache set 55-66 (echo 1 > /sys/fs/bcache/55-66/stop)"}, []Kind{Bcache, Bcache}},
		"multipath with a mapped partition": {func(f map[string]string) {
			onTop(f, "dm-0", "253:0", map[string]string{"dm/name": "mpatha", "dm/uuid": "mpath-3600"}, "sda")
			onTop(f, "dm-1", "253:1", map[string]string{"dm/name": "mpatha-part1", "dm/uuid": "part1-mpath-3600"}, "dm-0")
		}, []string{"/dev/mapper/mpatha: mapped as the partition /dev/mapper/mpatha-part1 (dm-1) (kpartx -d /dev/mapper/mpatha)",
			"/dev/sda: path of the multipath device /dev/mapper/mpatha (dm-0) (multipath -f mpatha; or install to /dev/mapper/mpatha)"},
			[]Kind{MappedPartition, Multipath}},
		"verity, integrity, others": {func(f map[string]string) {
			onTop(f, "dm-0", "253:0", map[string]string{"dm/name": "usr", "dm/uuid": "CRYPT-VERITY-1-usr"}, "sda/sda1")
			onTop(f, "dm-1", "253:1", map[string]string{"dm/name": "int", "dm/uuid": "CRYPT-INTEGRITY-1-int"}, "sda/sda1")
			onTop(f, "dm-2", "253:2", map[string]string{"dm/name": "lin", "dm/uuid": ""}, "sda/sda2")
			onTop(f, "dm-5", "253:5", map[string]string{"dm/name": "s", "dm/uuid": "stratis-1-private-x"}, "sda/sda2")
			onTop(f, "drbd0", "147:0", nil, "sda")
		}, []string{"/dev/sda: backing device of /dev/drbd0 (drbdadm down RESOURCE, as drbdadm status names it)",
			"/dev/sda1: part of the dm-verity device /dev/mapper/usr (dm-0) (veritysetup close usr)",
			"/dev/sda1: part of the dm-integrity device /dev/mapper/int (dm-1) (integritysetup close int)",
			"/dev/sda2: part of the device-mapper device /dev/mapper/lin (dm-2) (dmsetup remove lin)",
			"/dev/sda2: part of a Stratis pool (/dev/mapper/s (dm-5)) (stratis pool stop --name POOL, as stratis pool list names it)"},
			[]Kind{DRBD, Crypt, Crypt, DeviceMapper, Stratis}},
	} {
		files := map[string]string{}
		c.build(files)
		e := surveyed(t, fakeHost(t, files))
		if got := strings.Join(e.Details(), "\n"); got != strings.Join(c.want, "\n") {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, strings.Join(c.want, "\n"))
			continue
		}
		for i, u := range e.Uses {
			if u.Kind != c.kinds[i] {
				t.Errorf("%s: %s is of kind %s, not %s", name, u, u.Kind, c.kinds[i])
			}
		}
	}
}

// A list of uses is one short line; all of them are details.
func TestInUseIsShort(t *testing.T) {
	files := map[string]string{"proc/self/mountinfo": "22 1 0:30 / / rw - overlay overlay rw\n"}
	for i := range 200 {
		files["proc/self/mountinfo"] += fmt.Sprintf("%d 22 8:2 / /mnt/%d rw - ext4 /dev/sda2 rw\n", 30+i, i)
	}
	e := surveyed(t, fakeHost(t, files))
	if len(e.Error()) > 250 || !strings.Contains(e.Error(), "mounted at /mnt/0") || !strings.HasSuffix(e.Error(), "; and 197 more uses (-v lists them)") {
		t.Errorf("%s", e)
	}
	if len(e.Details()) != 200 || e.Uses[7].Mountpoint != "/mnt/7" || e.Uses[7].Kind != Mounted || e.Uses[7].Foreign {
		t.Errorf("%d details, %+v", len(e.Details()), e.Uses[7])
	}
	// Each layer has a remedy of its own; a copy of a mount has none.
	e.Uses = append(e.Uses, Use{Kind: Mounted, What: "/dev/sda2", Mountpoint: "/mnt/3", Foreign: true}, Use{Kind: LVM, Remedy: "vgchange -an a", layer: true},
		Use{Kind: Crypt, Remedy: "cryptsetup close b", layer: true})
	if got := e.Error(); !strings.HasSuffix(got, "(vgchange -an a); :  (cryptsetup close b); and 197 more uses (-v lists them)") {
		t.Errorf("%s", got)
	}
	const system = "/dev/sda is in use: it is the disk that this machine runs from (/dev/sda2 is mounted at /); to do: give another disk"
	files["proc/self/mountinfo"] += "9 1 8:2 / / rw - ext4 /dev/sda2 rw\n"
	if got := surveyed(t, fakeHost(t, files)).Error(); got != system {
		t.Errorf("%s", got)
	}
	// In a container, only the first process of the machine has the disk as its root.
	for pid, want := range map[string]bool{"1": true, "77": false} {
		e := surveyed(t, fakeHost(t, map[string]string{"proc/" + pid + "/task/" + pid + "/ns/mnt": "-> mnt:[2]", "proc/" + pid + "/comm": "x\n",
			"proc/" + pid + "/mountinfo": "22 1 8:2 / / rw - ext4 /dev/sda2 rw\n"}))
		if got := e.Error(); (got == system) != want || !e.Uses[0].Foreign {
			t.Errorf("process %s: %s", pid, got)
		}
	}
}

// A namespace that only a bind mount or a descriptor keeps has mounts too.
func TestSurveyNamesNamespacesWithoutAProcess(t *testing.T) {
	h := fakeHost(t, nil)
	h.list = func() (*mounts.Snapshot, error) {
		kept := mounts.Mount{Dev: block.Number{Major: 8, Minor: 2}, Point: "/srv"}
		return &mounts.Snapshot{Namespaces: []mounts.Namespace{{Inode: 1, Own: true}, {Inode: 7, Mounts: []mounts.Mount{kept}}}}, nil
	}
	e := surveyed(t, h)
	const want = "/dev/sda2: mounted at /srv in the mount namespace mnt:[7], which no process is in (umount it)"
	if got := strings.Join(e.Details(), "\n"); got != want || !e.Uses[0].Foreign || e.Uses[0].Orphan != "mnt:[7]" {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestWholeDisksOnly(t *testing.T) {
	h := fakeHost(t, nil)
	s, err := h.wholeDisk("/dev/sda", block.Number{Major: 8, Minor: 0})
	if err != nil {
		t.Fatal(err)
	}
	if s.nodes[0].model() != "ACME Disk 9000" || len(s.nodes) != 3 || s.nodes[2].start != 2*mib || s.nodes[2].size != mib {
		t.Errorf("nodes %+v", s.nodes)
	}
	if _, err := h.wholeDisk("/dev/sda2", block.Number{Major: 8, Minor: 2}); err == nil || !strings.Contains(err.Error(), "partition 2 of /dev/sda") {
		t.Errorf("a partition: %v", err)
	}
	files := map[string]string{"sys/dev/block/253:1": "-> ../../block/dm-1"}
	onTop(files, "dm-1", "253:1", map[string]string{"dm/name": "mpatha-part1", "dm/uuid": "part1-mpath-3600"})
	if _, err := fakeHost(t, files).wholeDisk("/dev/dm-1", block.Number{Major: 253, Minor: 1}); err == nil || !strings.Contains(err.Error(), "it is partition 1 of a disk") {
		t.Errorf("a mapped partition: %v", err)
	}
}

// A file that cannot be read must fail the survey, not pass for "not in use".
func TestSurveyThatCannotTellFails(t *testing.T) {
	h := fakeHost(t, nil)
	s, err := h.wholeDisk("/dev/sda", block.Number{Major: 8, Minor: 0})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(h.Proc + "/self/mountinfo"); err != nil {
		t.Fatal(err)
	}
	if uses, err := h.survey(s); err == nil {
		t.Errorf("the survey gave %v", uses)
	}
}
