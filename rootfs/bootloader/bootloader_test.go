package bootloader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"installer/rootfs/beneath"
)

func TestParseKind(t *testing.T) {
	for name, want := range map[string]Kind{
		"grub": GRUB, "grub2": GRUB, "systemd": SystemdBoot, "systemd-boot": SystemdBoot, "none": None,
	} {
		if got, err := ParseKind(name); err != nil || got != want {
			t.Errorf("ParseKind(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := ParseKind("lilo"); err == nil || !strings.Contains(err.Error(), "systemd") {
		t.Errorf("an unknown boot loader: %v", err)
	}
}

// tree makes a tree of empty files, but for lists of modules, which name the modules beside them.
func tree(names ...string) fs.FS {
	files := fstest.MapFS{}
	for _, name := range names {
		files[name] = &fstest.MapFile{}
	}
	for _, name := range names {
		if module, is := strings.CutSuffix(path.Base(name), ".mod"); is {
			list := files[path.Join(path.Dir(name), "moddep.lst")]
			list.Data = append(list.Data, module+": \n"...)
		}
	}
	return files
}

// grubFiles names the files of GRUB for a platform with the modules that it cannot do without.
func grubFiles(target string, names ...string) []string {
	var all []string
	for _, name := range append(names, "kernel.img", "moddep.lst", "linux.mod") {
		all = append(all, "usr/lib/grub/"+target+"/"+name)
	}
	for _, name := range requiredModules(target, "ext4") {
		all = append(all, "usr/lib/grub/"+target+"/"+name+".mod")
	}
	return all
}

func TestCheck(t *testing.T) {
	loader, err := os.ReadFile("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
	if err != nil {
		t.Fatal(err)
	}
	tool := "usr/bin/grub-mkimage"
	efi := grubFiles("x86_64-efi")
	bios := grubFiles("i386-pc", "boot.img", "diskboot.img", "lzma_decompress.img")
	sd := "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
	both := Firmware{UEFI: true, BIOS: true}
	cases := []struct {
		name    string
		tree    fs.FS
		kind    Kind
		fw      Firmware
		missing string // package that the error names; "" is no error
	}{
		{"all of GRUB", tree(slices.Concat([]string{tool}, efi, bios)...), GRUB, both, ""},
		{"Fedora's name", tree(slices.Concat([]string{"usr/bin/grub2-mkimage"}, efi)...), GRUB, Firmware{UEFI: true}, ""},
		{"no image maker", tree(slices.Concat(efi, bios)...), GRUB, both, "grub-common"},
		{"no UEFI modules", tree(slices.Concat([]string{tool}, bios)...), GRUB, both, "grub-efi-amd64-bin"},
		{"no BIOS modules", tree(slices.Concat([]string{tool}, efi)...), GRUB, both, "grub-pc-bin"},
		{"BIOS modules without boot.img", tree(slices.Concat([]string{tool}, efi, grubFiles("i386-pc"))...), GRUB, both, "grub-pc-bin"},
		{"systemd-boot", fstest.MapFS{sd: {Data: loader}}, SystemdBoot, Firmware{UEFI: true}, ""},
		{"no systemd-boot", tree(tool), SystemdBoot, Firmware{UEFI: true}, "systemd-boot-efi"},
		{"nothing wanted", tree(), None, both, ""},
	}
	for _, c := range cases {
		err := (Needs{Arch: "amd64", Firmware: c.fw}).Check(c.kind, c.tree)
		var missing *MissingError
		switch {
		case c.missing == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.missing != "" && (!errors.As(err, &missing) || !strings.Contains(err.Error(), c.missing)):
			t.Errorf("%s: error %v; want a MissingError that names %s", c.name, err, c.missing)
		}
	}
	text, broken := (*ProgramError)(nil), fstest.MapFS{sd: {Data: []byte("a text")}}
	if err := (Needs{Arch: "amd64", Firmware: Firmware{UEFI: true}}).Check(SystemdBoot, broken); !errors.As(err, &text) {
		t.Errorf("a systemd-boot that is no program: %v", err)
	}
	if err := (Needs{Arch: "amd64", Firmware: both}).Check(SystemdBoot, tree(sd)); err == nil {
		t.Error("systemd-boot was accepted for BIOS")
	}
	if err := (Needs{Arch: "s390x", Firmware: both}).Check(GRUB, tree()); err == nil {
		t.Error("an unknown architecture was accepted")
	}
	for _, c := range []struct {
		name string
		kind Kind
		fw   Firmware
		tree fs.FS
		ok   bool
	}{
		{"signed GRUB for UEFI needs no other file", GRUB, Firmware{UEFI: true}, tree(), true},
		{"GRUB for BIOS beside it is made", GRUB, both, tree(slices.Concat([]string{tool}, bios)...), true},
		{"no BIOS modules beside it", GRUB, both, tree(tool), false},
		{"signed systemd-boot needs no other file", SystemdBoot, Firmware{UEFI: true}, tree(), true},
		{"signed systemd-boot for BIOS", SystemdBoot, both, tree(), false},
	} {
		if err := (Needs{Arch: "amd64", Firmware: c.fw, Signed: true}).Check(c.kind, c.tree); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	whole, large := tree(slices.Concat([]string{tool}, efi, bios)...), (*SectorError)(nil)
	if err := (Needs{Arch: "amd64", Firmware: both, SectorSize: 4096}).Check(GRUB, whole); !errors.As(err, &large) {
		t.Errorf("sectors of 4096 bytes for BIOS: %v", err)
	}
	if err := (Needs{Arch: "amd64", Firmware: Firmware{UEFI: true}, SectorSize: 4096}).Check(GRUB, whole); err != nil {
		t.Errorf("sectors of 4096 bytes for UEFI: %v", err)
	}
}

// A version of GRUB may lack each module that the start of a system does not need, and no other.
func TestModules(t *testing.T) {
	const target = "x86_64-efi"
	missing := (*ModuleError)(nil)
	needs := Needs{Arch: "amd64", Firmware: Firmware{UEFI: true}, Filesystem: "xfs"}
	files := append(grubFiles(target), "usr/bin/grub-mkimage", "usr/lib/grub/"+target+"/xfs.mod")
	if err := needs.Check(GRUB, tree(files...)); err != nil {
		t.Errorf("without efi_uga, btrfs and other useful modules: %v", err)
	}
	for _, m := range append(requiredModules(target, "xfs"), linuxModule) {
		name := "usr/lib/grub/" + target + "/" + m + ".mod"
		less := slices.DeleteFunc(slices.Clone(files), func(file string) bool { return file == name })
		if m == linuxModule { // whose absence is that of a file
			continue
		}
		if err := needs.Check(GRUB, tree(less...)); !errors.As(err, &missing) || missing.Module != m {
			t.Errorf("without %s: %v", m, err)
		}
	}
	broken := tree(append(files, "usr/lib/grub/"+target+"/efi_uga.mod")...).(fstest.MapFS)
	list := broken["usr/lib/grub/"+target+"/moddep.lst"]
	list.Data = append(list.Data, "efi_gop: video_gone\nlinux: relocator\n"...)
	if err := needs.Check(GRUB, broken); !errors.As(err, &missing) || missing.Module != "relocator" {
		t.Errorf("a module that linux depends on is missing: %v", err)
	}
	chosen, err := chooseModules(broken, target, "xfs")
	if err == nil {
		t.Errorf("chose %v", chosen)
	}
	list.Data = append(list.Data, "relocator:\n"...)
	broken["usr/lib/grub/"+target+"/relocator.mod"] = &fstest.MapFile{}
	chosen, err = chooseModules(broken, target, "xfs")
	if err != nil || !slices.Contains(chosen.core, "efi_uga") || slices.Contains(chosen.core, "efi_gop") || !slices.Contains(chosen.core, "relocator") {
		t.Errorf("chose %v, %v; want efi_uga and relocator, without efi_gop, which lacks a dependency", chosen, err)
	}
	list.Data = bytes.Repeat([]byte("x"), maxModuleList+1)
	if err := needs.Check(GRUB, broken); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a list of modules without a bound: %v", err)
	}
}

// TestCheckHost checks the names above against the real packages.
func TestCheckHost(t *testing.T) {
	for kind, fw := range map[Kind]Firmware{GRUB: {UEFI: true, BIOS: true}, SystemdBoot: {UEFI: true}} {
		for _, filesystem := range []string{"ext4", "xfs", "btrfs"} {
			if err := (Needs{Arch: "amd64", Firmware: fw, Filesystem: filesystem}).Check(kind, os.DirFS("/")); err != nil {
				t.Errorf("the host's packages: %s for %s on %s: %v", kind, fw, filesystem, err)
			}
		}
	}
}

func TestVendor(t *testing.T) {
	for id, want := range map[string]string{
		"debian": "debian", "MyOS": "myos", "": "linux", "../x": "x", "a b/c": "a-b-c", "é": "linux", "x.": "x", "opensuse-leap": "opensuse-leap",
		strings.Repeat("y", 300): strings.Repeat("y", 64),
	} {
		if got := (Target{Vendor: id}).vendor(); got != want {
			t.Errorf("the directory of %q is %q, want %q", id, got, want)
		}
	}
}

func TestGRUBConfigIsAScript(t *testing.T) {
	config, err := grubConfig(Target{BootUUID: rootUUID, BootPartition: 3})
	if err != nil {
		t.Fatal(err)
	}
	if regexp.MustCompile(`@[A-Z]+@`).Match(config) {
		t.Error("a place in the configuration was not filled in")
	}
	check := exec.Command("grub-script-check")
	check.Stdin = bytes.NewReader(config)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("grub-script-check: %v\n%s", err, out)
	}
	for _, bad := range []Target{{BootUUID: `x" y`}, {BootUUID: ""}} {
		if _, err := grubConfig(bad); err == nil {
			t.Errorf("accepted UUID %q", bad.BootUUID)
		}
	}
}

func TestCheckEntry(t *testing.T) {
	good := []string{"quiet", `a="b c;d|e&f{g}"`, "x=*?[a-z]", "a#b", "i=1,2:3", "x=~!%@^()", ""}
	if err := CheckArguments(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"memmap=4G$8G", "a;b", "a&", "a|b", "a<b", "a>b", "a{b", "a}", `a\b`, "a'b'", `a="b`,
		`a="b$c"`, `a="it's"`, "a #b", "#a", "a\nb", `x="a\"b"`} {
		var refused *ArgumentError
		if err := CheckArguments([]string{"quiet", bad}); !errors.As(err, &refused) {
			t.Errorf("argument %q: error %v; want an ArgumentError", bad, err)
		}
	}
	var refused *ArgumentError
	err := CheckEntry(Entry{Text: "title Bob's OS\nlinux /a\n"})
	if !errors.As(err, &refused) || refused.Key != "title" || refused.Word != "Bob's" {
		t.Errorf("a title with a single quote: %v", err)
	}
}

// memDisk is a disk in memory; corrupt spoils what is written.
type memDisk struct {
	data    []byte
	corrupt bool
}

func (d *memDisk) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(d.data).ReadAt(p, off)
}

func (d *memDisk) WriteAt(p []byte, off int64) (int, error) {
	n := copy(d.data[off:], p)
	if d.corrupt {
		d.data[off] ^= 1
	}
	return n, nil
}

func hostTarget(t *testing.T) Target {
	return Target{
		Arch: "amd64", Firmware: Firmware{UEFI: true, BIOS: true}, Vendor: "debian",
		Tree: os.DirFS("/"), Run: runOnHost(t), BootUUID: rootUUID, BootPartition: 3,
		Entry: Entry{Name: "ostree-1.conf", Text: "title x\noptions quiet\nlinux /boot/ostree/d-1/vmlinuz\ninitrd /boot/ostree/d-1/initramfs.img\n"},
		Boot:  fstest.MapFS{"ostree/d-1/vmlinuz": {Data: []byte("kernel")}, "ostree/d-1/initramfs.img": {Data: []byte("initramfs")}},
		ESP:   newDirESP(t), ESPPartition: 2, SectorSize: 512, BIOSBoot: &Range{Start: mib, Size: mib}, Disk: signedDisk(),
	}
}

func signedDisk() *memDisk {
	disk := &memDisk{data: bytes.Repeat([]byte{0xa5}, 2*mib)}
	disk.data[510], disk.data[511] = 0x55, 0xaa
	return disk
}

func TestGRUBLayout(t *testing.T) {
	target := hostTarget(t)
	err := Install(t.Context(), GRUB, target)
	if err != nil {
		t.Fatal(err)
	}
	disk := target.Disk.(*memDisk).data
	if at := binary.LittleEndian.Uint64(disk[0x5c:]); at != 2048 {
		t.Errorf("the boot sector loads from sector %d, want 2048", at)
	}
	if !bytes.Equal(disk[0x1b8:0x1fe], bytes.Repeat([]byte{0xa5}, 0x1fe-0x1b8)) {
		t.Error("the boot sector's partition table was written to")
	}
	core := disk[mib:]
	sectors := int(binary.LittleEndian.Uint16(core[0x1fc:]))
	end := mib + (sectors+1)*512
	if !bytes.Equal(disk[end:end+4096], bytes.Repeat([]byte{0xa5}, 4096)) {
		t.Error("something was written behind the core image")
	}
}

// A disk that starts by BIOS needs no EFI system partition; one on another disk does not help it.
func TestGRUBConfigInBoot(t *testing.T) {
	for _, uefi := range []bool{false, true} {
		dir := t.TempDir()
		root, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		target := hostTarget(t)
		esp := target.ESP.(*dirESP)
		target.Firmware.UEFI, target.ESPPartition, target.BootDir = uefi, 0, NewDirectory(beneath.Of(root, noLedger{}))
		if !uefi {
			target.ESP = nil
		}
		if err := Install(t.Context(), GRUB, target); err != nil {
			t.Fatal(err)
		}
		config, err := os.ReadFile(filepath.Join(dir, "grub/grub.cfg"))
		if err != nil || !bytes.Contains(config, []byte(rootUUID)) {
			t.Errorf("the configuration in boot: %v, %d bytes", err, len(config))
		}
		if prefix := target.biosPrefix(); prefix != "(,gpt3)/boot/grub" {
			t.Errorf("GRUB for BIOS looks in %s", prefix)
		}
		_, err = os.Stat(filepath.Join(esp.dir, "EFI/debian/grub.cfg"))
		if (err == nil) != uefi {
			t.Errorf("with UEFI %v, the configuration on the EFI system partition: %v", uefi, err)
		}
	}
}

// noLedger accounts for nothing.
type noLedger struct{}

func (noLedger) Opened(string, string) func() { return func() {} }

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	d := NewDirectory(beneath.Of(root, noLedger{}))
	if err := d.MkdirAll("EFI/BOOT"); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a longer text", "short"} {
		if err := d.WriteFile("EFI/BOOT/x", int64(len(text)), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := fs.ReadFile(d, "EFI/BOOT/x"); err != nil || string(got) != text {
			t.Errorf("read %q, %v; want %q", got, err, text)
		}
	}
	if err := d.WriteFile("y", 3, strings.NewReader("ab")); err == nil {
		t.Error("a content that is too short was accepted")
	}
	if err := os.Symlink("/", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteFile("out/tmp/leaked", 0, strings.NewReader("")); err == nil {
		t.Error("a link led out of the directory")
	}
}

// TestGRUBIsDeterministic makes the images twice: the same input gives the same disk.
func TestGRUBIsDeterministic(t *testing.T) {
	var disks, loaders [][]byte
	for range 2 {
		target := hostTarget(t)
		if err := Install(t.Context(), GRUB, target); err != nil {
			t.Fatal(err)
		}
		efi, err := fs.ReadFile(target.ESP.(fs.FS), "EFI/BOOT/BOOTX64.EFI")
		if err != nil {
			t.Fatal(err)
		}
		disks, loaders = append(disks, target.Disk.(*memDisk).data), append(loaders, efi)
	}
	if !bytes.Equal(disks[0], disks[1]) || !bytes.Equal(loaders[0], loaders[1]) {
		t.Error("two installations differ")
	}
}

func TestGRUBRefuses(t *testing.T) {
	boom := errors.New("boom")
	answer := func(out []byte, err error) RunInTree {
		return func(context.Context, []string, map[string][]byte) ([]byte, error) { return out, err }
	}
	cases := []struct {
		name   string
		change func(*Target)
		says   string
	}{
		{"the program fails", func(x *Target) { x.Run = answer(nil, boom) }, "boom"},
		{"the program writes nothing", func(x *Target) { x.Run = answer(nil, nil) }, "wrote nothing"},
		{"no EFI program", func(x *Target) { x.Run = answer([]byte("MZ, but no more"), nil) }, "not an EFI program"},
		{"no core image", func(x *Target) {
			x.Firmware.UEFI = false
			x.Run = answer(make([]byte, 4096), nil)
		}, "diskboot.img"},
		{"partition too small", func(x *Target) { x.BIOSBoot.Size = 64 << 10 }, "make it larger"},
		{"4 KiB sectors", func(x *Target) { x.SectorSize = 4096 }, "UEFI only"},
		{"no BIOS boot partition", func(x *Target) { x.BIOSBoot = nil }, "BIOS boot partition"},
		{"no table yet", func(x *Target) { x.Disk.(*memDisk).data[511] = 0 }, "partition table must be written"},
		{"a disk that loses writes", func(x *Target) { x.Disk.(*memDisk).corrupt = true }, "not what was written"},
		{"no ESP", func(x *Target) { x.ESP, x.Firmware.BIOS = nil, false }, "EFI system partition"},
		{"no ESP and no boot", func(x *Target) { x.ESP = nil }, "directory boot"},
		{"a kernel argument", func(x *Target) { x.Entry.Text = "options a;b\n" }, "a;b"},
		{"an ESP that loses writes", func(x *Target) { x.ESP = lossyESP{x.ESP.(*dirESP)} }, "not the"},
	}
	for _, c := range cases {
		target := hostTarget(t)
		c.change(&target)
		err := Install(t.Context(), GRUB, target)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v; want one that says %q", c.name, err, c.says)
		}
	}
	target := hostTarget(t)
	target.Run = answer(nil, boom)
	if err := Install(t.Context(), GRUB, target); !errors.Is(err, boom) {
		t.Errorf("the cause is lost in %v", err)
	}
}

// lossyESP keeps another content than it is given.
type lossyESP struct{ *dirESP }

func (e lossyESP) WriteFile(name string, size int64, r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	return e.dirESP.WriteFile(name, size, bytes.NewReader(make([]byte, size)))
}

func TestSystemdBoot(t *testing.T) {
	target := hostTarget(t)
	target.Firmware.BIOS = false
	if err := Install(t.Context(), SystemdBoot, target); err != nil {
		t.Fatal(err)
	}
	esp := target.ESP.(*dirESP).dir
	loader, err := os.ReadFile("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"EFI/BOOT/BOOTX64.EFI":            string(loader),
		"EFI/systemd/systemd-bootx64.efi": string(loader),
		"loader/entries/ostree-1.conf":    "title x\noptions quiet\nlinux /ostree/d-1/vmlinuz\ninitrd /ostree/d-1/initramfs.img\n",
		"loader/entries.srel":             "type1\n",
		"loader/loader.conf":              "timeout 1\nconsole-mode keep\n",
		"ostree/d-1/vmlinuz":              "kernel",
		"ostree/d-1/initramfs.img":        "initramfs",
	} {
		got, err := os.ReadFile(filepath.Join(esp, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %v, %d bytes; want %d", name, err, len(got), len(want))
		}
	}
	target.Boot = fstest.MapFS{}
	if err := Install(t.Context(), SystemdBoot, target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a kernel that is not there: %v", err)
	}
	target.Entry.Text = "title x\n"
	if err := Install(t.Context(), SystemdBoot, target); err == nil {
		t.Error("an entry without a kernel was accepted")
	}
}
