package verify

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/disk/fat"
	"installer/disk/fsinfo"
	"installer/finalize"
	"installer/rootfs/bootloader"
	"installer/tests/kit"
)

const goodEntry = `title Lab OS 1 (ostree:0)
version 1
options root=UUID=39b245bc-4c22-4479-82b5-53cf9751707b rw quiet="a b" ostree=/ostree/boot.1/default/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/0
linux /boot/ostree/default-0123/vmlinuz-6.1
initrd /ostree/default-0123/initramfs-6.1.img
`

func TestParseEntry(t *testing.T) {
	e, problems := parseEntry("ostree-1.conf", goodEntry)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if e.link.path() != "ostree/boot.1/default/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/0" {
		t.Errorf("link %s", e.link.path())
	}
	if !slices.Contains(e.options, `quiet="a b"`) || len(e.options) != 4 {
		t.Errorf("options %q", e.options)
	}
	for _, file := range e.files() {
		if !strings.HasPrefix(bootPath(file), "boot/ostree/default-0123/") {
			t.Errorf("%s is taken for %s", file, bootPath(file))
		}
	}
	for _, name := range []string{"ostree-1-default.conf", "ostree-1+3.conf", "ostree-1+2-1.conf"} {
		if _, problems := parseEntry(name, goodEntry); len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
	}
}

// TestEntryBits flips each of the lowest bits of an entry: what is not part of a free text is
// found.
func TestEntryBits(t *testing.T) {
	free := func(at int) bool { // title, the value of an argument, names of files: compared with the disk elsewhere
		line := goodEntry[strings.LastIndexByte(goodEntry[:at], '\n')+1:]
		key, _, _ := strings.Cut(line, " ")
		start := at - strings.LastIndexByte(goodEntry[:at], '\n') - 1
		return start > len(key) && key != "version"
	}
	for at := range goodEntry {
		damaged := []byte(goodEntry)
		damaged[at] ^= 1
		_, problems := parseEntry("ostree-1.conf", string(damaged))
		if len(problems) == 0 && !free(at) {
			t.Errorf("a bit flipped at %d is not found: %q", at, damaged)
		}
	}
}

func TestEntryProblems(t *testing.T) {
	for want, change := range map[string][2]string{
		"unknown key":       {"linux ", "linus "},
		"instead of one":    {"title Lab OS 1 (ostree:0)\n", ""},
		"its version is":    {"version 1", "version 2"},
		"no kernel argu":    {"ostree=", "astree="},
		"not of the form":   {"boot.1", "boot.2"},
		"neither rw nor ro": {" rw ", " "},
		"characters":        {"Lab", "L\x01b"},
		"does not end":      {".img\n", ".img"},
	} {
		text := strings.Replace(goodEntry, change[0], change[1], 1)
		if _, problems := parseEntry("ostree-1.conf", text); !strings.Contains(strings.Join(problems, "\n"), want) {
			t.Errorf("%s: %v", want, problems)
		}
	}
	if _, problems := parseEntry("other.conf", goodEntry); len(problems) == 0 {
		t.Error("a name that is none is not found")
	}
}

func TestImageReference(t *testing.T) {
	for origin, want := range map[string]string{
		"ostree-unverified-registry:quay.io/x/y:latest":            "docker://quay.io/x/y:latest",
		"ostree-unverified-image:oci:/path:tag":                    "oci:/path:tag",
		"ostree-unverified-image:docker://quay.io/x":               "docker://quay.io/x",
		"ostree-image-signed:docker://quay.io/x":                   "docker://quay.io/x",
		"ostree-remote-registry:fedora:quay.io/x":                  "docker://quay.io/x",
		"ostree-remote-image:fedora:docker://quay.io/x:1":          "docker://quay.io/x:1",
		"ostree-unverified-registri:quay.io/x/y:latest":            "",
		"ostree-unverified-registry:":                              "",
		"quay.io/x/y":                                              "",
		"ostree-remote-image:docker":                               "",
		"ostree-unverified-image:name-without-a-transport-in-it/x": "",
	} {
		got, ok := imageReference(origin)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %v", origin, got, ok)
		}
	}
}

func TestRemadeDisk(t *testing.T) {
	r := &remade{files: map[string]remadeFile{}}
	for at, text := range map[int64]string{1000: "hello", 1003: "LO!"} {
		if at == 1003 {
			continue // written second, below
		}
		if _, err := r.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.WriteAt([]byte("LO!"), 1003); err != nil {
		t.Fatal(err)
	}
	b := []byte("garbage garbage")
	if _, err := r.ReadAt(b, 998); err != nil || string(b) != "\x00\x00helLO!\x00\x00\x00\x00\x00\x00\x00" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := r.ReadAt(b[:4], 509); err != nil || string(b[:4]) != "\x00\x55\xaa\x00" {
		t.Errorf("%q, %v", b[:4], err)
	}
	if err := r.WriteFile("a/b", 3, strings.NewReader("four")); err == nil {
		t.Error("a file of another length than announced is accepted")
	}
}

// TestRunOnNoDisk has no table: all that follows is not checked, and nothing panics.
func TestRunOnNoDisk(t *testing.T) {
	for _, size := range []int64{0, 100, 4 << 20} {
		var seen []Check
		report, err := Run(context.Background(), Options{
			Disk: kit.Sparse(t, size), TempDir: t.TempDir(), NoRoot: "the test does not mount",
			Observe: func(c Check, _ []Finding) { seen = append(seen, c) },
		})
		if err != nil || report.Outcome != Damaged || !slices.Equal(seen, report.Checks) {
			t.Errorf("%d bytes: %v, %+v", size, err, report)
		}
		for _, c := range report.Checks[3:] {
			if c.Status != NotChecked || c.Detail == "" {
				t.Errorf("%d bytes: %+v", size, c)
			}
		}
	}
}

func TestFindingsAreBounded(t *testing.T) {
	i := &inspection{report: &Report{}, opts: Options{Disk: "disk"}}
	i.perform(context.Background(), check{name: "many", run: func(_ context.Context, _ *inspection, f *findings) error {
		for range 3 * maxFindings {
			f.fault("here", "wrong")
		}
		return errors.New("and more")
	}})
	if n := len(i.report.Findings); n != maxFindings+1 || !strings.Contains(i.report.Findings[n-1].What, "201 more") {
		t.Errorf("%d findings, the last %v", n, i.report.Findings[n-1])
	}
}

// TestInterrupted ends in the middle of a check: that one has found nothing, and none is made after
// it.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	report, err := Run(ctx, Options{Disk: kit.Sparse(t, 4<<20), TempDir: t.TempDir(), Observe: func(c Check, _ []Finding) {
		if c.Name == "image-file" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || report.Outcome != Incomplete || len(report.Findings) > 0 {
		t.Errorf("%v, %+v", err, report)
	}
	for _, c := range report.Checks[1:] {
		if c.Status != NotChecked || c.Detail != "interrupted" {
			t.Errorf("%+v", c)
		}
	}
}

// TestDiskInUse locks the disk as an installer does, and as a virtual machine does.
func TestDiskInUse(t *testing.T) {
	path := kit.Sparse(t, 4<<20)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	run := func() error {
		_, err := Run(context.Background(), Options{Disk: path, TempDir: t.TempDir()})
		return err
	}
	var inUse *disk.InUseError
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := run(); !errors.As(err, &inUse) {
		t.Errorf("locked: %v", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: 100, Len: 2}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	if err := run(); !errors.As(err, &inUse) {
		t.Errorf("open in a virtual machine: %v", err)
	}
	lock.Type = unix.F_UNLCK
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	if err := run(); err != nil {
		t.Errorf("released: %v", err)
	}
}

// TestDamagedQcow2 has a container whose own structure is damaged.
func TestDamagedQcow2(t *testing.T) {
	raw := kit.Sparse(t, 4<<20)
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	kit.Run(t, "sgdisk", "-n", "1:0:0", raw)
	kit.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path)
	verify := func() (*Report, error) {
		return Run(context.Background(), Options{Disk: path, TempDir: t.TempDir(), NoRoot: "the test does not mount"})
	}
	report, err := verify()
	if err != nil || report.Checks[0].Status != Passed || report.Disk.Size != 4<<20 || len(report.Disk.Partitions) != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	kit.Patch(t, path, 0x20000, []byte{0xff, 0xff}, func() { // the first reference counts
		report, err := verify()
		if err == nil && (len(report.Findings) == 0 || report.Findings[0].Check != "image-file") {
			t.Errorf("damaged reference counts: %+v", report.Findings)
		}
	})
	kit.Patch(t, path, 24, []byte{0x7f}, func() { // the size of the disk
		if _, err := verify(); err == nil || !strings.Contains(err.Error(), "claims a disk") {
			t.Errorf("an impossible size: %v", err)
		}
	})
}

// unable is a machine that cannot mount.
type unable struct{ err error }

func (u unable) OpenRoot(context.Context, Volume) (*Root, error) { return nil, u.err }

// That this machine cannot mount says nothing against the disk; that the disk cannot be mounted
// does.
func TestWhoseFaultAMountIs(t *testing.T) {
	for err, want := range map[error]Status{
		&UnavailableError{errors.New("no loop device")}: NotChecked,
		errors.New("structure needs cleaning"):          Failed,
	} {
		i := &inspection{report: &Report{}, opts: Options{Root: unable{err}}, source: &source{}}
		i.rootfs, i.super.Type = &Partition{}, fsinfo.XFS
		i.perform(t.Context(), alone("root-mount"))
		i.perform(t.Context(), check{name: "repository", missing: (*inspection).noRoot})
		if got := i.report.Checks; got[0].Status != want || got[1].Status != NotChecked || !strings.Contains(got[1].Detail, "mount") && want == Failed {
			t.Errorf("%v: %+v", err, got)
		}
	}
}

// A name that is damaged in any place is a fault, also where the right one stands in the text
// elsewhere.
func TestGRUBConfigNamesTheRoot(t *testing.T) {
	const id = "ad720d50-f42c-4f05-8316-a45e19bf497a"
	judged := func(text string) []Finding {
		i := &inspection{report: &Report{}}
		l := &layout{super: fsinfo.Superblock{UUID: id}}
		i.perform(t.Context(), check{name: "configuration", run: func(_ context.Context, _ *inspection, f *findings) error {
			judgeGRUBConfig(f, l, "grub.cfg", text)
			return nil
		}})
		return i.report.Findings
	}
	for _, text := range []string{
		`if search --no-floppy --fs-uuid --set=root --hint "$disk,gpt3" ` + id + "; then\n  linux /vmlinuz root=UUID=" + id + "\nfi\n",
		"  search --fs-uuid '" + id + "' --set prefix --no-floppy # the root\n# search --fs-uuid nothing\nroot=UUID=" + id + "\n",
	} {
		if found := judged(text); len(found) != 0 {
			t.Errorf("%q: %v", text, found)
		}
		at := strings.Index(text, id)
		for n := range len(id) {
			damaged := []byte(text)
			damaged[at+n] ^= 1
			if found := judged(string(damaged)); len(found) != 1 || !strings.Contains(found[0].What, "names the file system") {
				t.Errorf("%q: %v", damaged, found)
			}
		}
	}
	const unclear = "set root=hd0\nsearch --fs-uuid $id\n"
	if found := judged(grubHeader + unclear); len(found) != 1 || found[0].Severity != Error || !strings.Contains(found[0].What, "does not look for") {
		t.Errorf("%v", found)
	}
	if found := judged(unclear); len(found) != 1 || found[0].Severity != Note {
		t.Errorf("a configuration of others: %v", found)
	}
}

// grubHeader begins a configuration that an installation made.
const grubHeader = "# GRUB's configuration, written once by the installer. It reads\n"

// bootupdStub does on an EFI system partition what bootupd's configuration does there.
const bootupdStub = `if [ -f ${config_directory}/bootuuid.cfg ]; then
  source ${config_directory}/bootuuid.cfg
fi
if [ -n "${BOOT_UUID}" ]; then
  search --fs-uuid "${BOOT_UUID}" --set prefix --no-floppy
else
  search --label boot --set prefix --no-floppy
fi
configfile ($prefix)/grub2/grub.cfg
`

// A disk that bootupd made is judged by what it is: its configuration names the file system in a
// file beside it.
func TestDisksOfPeers(t *testing.T) {
	const id = "ad720d50-f42c-4f05-8316-a45e19bf497a"
	program := func(machine byte) string {
		b := make([]byte, 1024)
		copy(b, "MZ")
		b[0x3c] = 0x40
		copy(b[0x40:], "PE\x00\x00\x64\x86")
		b[0x45] = machine
		copy(b[0x44+16:], "\xf0\x00\x22\x00\x0b\x02")
		b[0x44+20+68] = 10
		b[0x44+20+108] = 16
		return string(b)
	}
	amd64 := program(0x86)
	disk := map[string]string{
		"EFI/BOOT/BOOTX64.EFI": amd64, "EFI/BOOT/fbx64.efi": amd64, "EFI/BOOT/mmx64.efi": amd64, "EFI/debian/BOOTX64.CSV": "x",
		"EFI/debian/shimx64.efi": amd64, "EFI/debian/grubx64.efi": amd64,
		"EFI/debian/grub.cfg": bootupdStub, "EFI/debian/bootuuid.cfg": "set BOOT_UUID=\"" + id + "\"\n",
	}
	for _, c := range []struct {
		name   string
		change map[string]string
		fault  string // "" is none
		note   string
	}{
		{"as it was made", nil, "", ""},
		{"another file system", map[string]string{"EFI/debian/bootuuid.cfg": "set BOOT_UUID=\"" + strings.Replace(id, "ad", "da", 1) + "\"\n"}, "names the file system", ""},
		{"no file that names it", map[string]string{"EFI/debian/bootuuid.cfg": ""}, "", "not known"},
		{"programs for other machines", map[string]string{"EFI/BOOT/BOOTAA64.EFI": program(0xaa)}, "", "machine type"},
		{"an entry of a unified kernel", map[string]string{"loader/entries/0123-6.1.conf": "title x\nefi /EFI/Linux/x.efi\n"}, "", "not a boot entry that ostree made"},
		{"another boot loader", map[string]string{"EFI/debian/grub.cfg": "", "EFI/debian/bootuuid.cfg": ""}, "", "is not known"},
		{"a first program that is damaged", map[string]string{"EFI/BOOT/BOOTX64.EFI": "MZ"}, "no EFI program", ""},
	} {
		files := maps.Clone(disk)
		maps.Copy(files, c.change)
		i := &inspection{report: &Report{}}
		i.layout = layout{super: fsinfo.Superblock{UUID: id}, arch: "amd64", esp: &Partition{Number: 2}, fat: fatOf(t, files)}
		i.perform(t.Context(), alone("esp-boot-files"))
		if kind := i.bootLoaderKind(tree{}); kind != bootloader.None {
			t.Errorf("%s: taken for %s of an installation", c.name, kind)
		}
		if none := (&layout{fat: fatOf(t, map[string]string{"EFI/x": "x"})}); !i.hasLoader() || none.hasLoader() {
			t.Errorf("%s: loader found %v, on an empty partition %v", c.name, i.hasLoader(), none.hasLoader())
		}
		faults, notes := "", ""
		for _, f := range i.report.Findings {
			if f.Severity == Error {
				faults += f.String()
			} else {
				notes += f.String()
			}
		}
		if (faults == "") != (c.fault == "") || !strings.Contains(faults, c.fault) || !strings.Contains(notes, c.note) {
			t.Errorf("%s: faults %q, want %q; notes %q, want %q", c.name, faults, c.fault, notes, c.note)
		}
	}
}

// fatOf makes an EFI system partition of the files that are not empty, by the programs that others
// wrote.
func fatOf(t *testing.T, files map[string]string) *fat.Volume {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "esp"), t.TempDir()
	for name, text := range files {
		if text == "" {
			continue
		}
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	const size = 40 << 20
	for _, argv := range [][]string{
		{"truncate", "-s", strconv.Itoa(size), image}, {"mkfs.vfat", "-F", "32", "-s", "1", image},
		{"sh", "-c", `mcopy -s -i "$1" "$2"/* ::`, "sh", image, dir},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	v, err := fat.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	v.Walk(func(where, what string) { t.Errorf("%s: %s", where, what) })
	return v
}

// A deployment is seen with its own directory as the root, whatever its links say.
func TestDeploymentFS(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"usr/lib/os-release": "ID=x\n", "usr/bin/sh": "program"} {
		at := filepath.Join(dir, "d", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"bin": "usr/bin", "absolute": "/usr/bin/sh", "out": "../../../../../etc/passwd"} {
		if err := os.Symlink(target, filepath.Join(dir, "d", link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "d/fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	on := tree{root: root, ledger: finalize.NewLedger()}
	err = on.inDeployment(&deployment{path: "d"}, func(f deploymentFS) error {
		for _, name := range []string{"bin/sh", "absolute", "usr/lib/os-release"} {
			if data, err := fs.ReadFile(f, name); err != nil || len(data) == 0 {
				t.Errorf("%s: %q, %v", name, data, err)
			}
		}
		for _, name := range []string{"out", "fifo", "bin", "../x"} {
			if _, err := fs.ReadFile(f, name); err == nil {
				t.Errorf("%s is read", name)
			}
		}
		if target, err := f.ReadLink("absolute"); err != nil || target != "/usr/bin/sh" {
			t.Errorf("a link to %q, %v", target, err)
		}
		if info, err := f.Lstat("bin"); err != nil || info.Mode().Type() != fs.ModeSymlink {
			t.Errorf("%v, %v", info, err)
		}
		entries, err := f.ReadDir("usr")
		if err != nil || len(entries) != 2 || !entries[0].IsDir() {
			t.Errorf("%v, %v", entries, err)
		}
		return nil
	})
	if open := on.ledger.Open(); err != nil || len(open) > 0 {
		t.Errorf("%v, left open: %v", err, open)
	}
}
