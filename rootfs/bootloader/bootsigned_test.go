package bootloader

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"installer/rootfs/beneath"
	"installer/rootfs/bootloader/efi"
	"installer/rootfs/bootloader/payload"
	"installer/tests/kit"
)

// installSignedOn puts the signed loaders of a suite of Debian on a disk.
func installSignedOn(suite string) func(*testing.T, string) {
	return func(t *testing.T, disk string) {
		t.Helper()
		esp := newDirESP(t)
		installOnPlace(t, suite, esp)
		writeFAT(t, disk, esp.dir)
	}
}

func installOnPlace(t *testing.T, suite string, esp Place) *payload.Payload {
	t.Helper()
	tree := os.DirFS(kit.SignedTree(t, suite))
	p, err := payload.Find(payload.TreeOf(tree), "amd64", payload.GRUB)
	if err != nil {
		t.Fatal(err)
	}
	target := Target{Arch: "amd64", Firmware: Firmware{UEFI: true}, Signed: p, Tree: tree, Filesystem: "xfs",
		BootUUID: rootUUID, BootPartition: 3, ESP: esp, ESPPartition: 2}
	if err := Install(t.Context(), GRUB, target); err != nil {
		t.Fatal(err)
	}
	return p
}

// listedPlace is a place with a list of the files in the order in which they were written.
type listedPlace struct {
	*dirESP
	names []string
}

func (l *listedPlace) WriteFile(name string, size int64, r io.Reader) error {
	l.names = append(l.names, name)
	return l.dirESP.WriteFile(name, size, r)
}

// TestInstallSigned is about the files on the partition: shim is the last, and all are the image's.
func TestInstallSigned(t *testing.T) {
	place := &listedPlace{dirESP: newDirESP(t)}
	p := installOnPlace(t, "trixie", place)
	if n := len(place.names); n != len(p.Files)+2 || place.names[n-1] != "EFI/BOOT/BOOTX64.EFI" || place.names[0] != "EFI/debian/grub.cfg" {
		t.Errorf("written: %q", place.names)
	}
	onDisk := payload.TreeOf(os.DirFS(place.dir))
	found, err := payload.Installed(onDisk, place.names, "amd64", payload.GRUB)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := found.Chain(onDisk, efi.Microsoft())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Verify(); err != nil {
		t.Error(err)
	}
	p.GRUB = &efi.GRUB{Prefix: p.GRUB.Prefix}
	var missing *ModuleError
	target := Target{Arch: "amd64", Firmware: Firmware{UEFI: true}, Signed: p, BootUUID: rootUUID, ESP: place}
	if err := Install(t.Context(), GRUB, target); !errors.As(err, &missing) {
		t.Errorf("a GRUB without modules: %v", err)
	}
}

// TestSignedBesideBIOS is about one disk for both firmwares: each GRUB has a configuration of its
// own, the one for BIOS in the directory boot.
func TestSignedBesideBIOS(t *testing.T) {
	target := hostTarget(t)
	signed := os.DirFS(kit.SignedTree(t, "bookworm"))
	p, err := payload.Find(payload.TreeOf(signed), "amd64", payload.GRUB)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	target.Signed, target.Tree = p, twoTrees{target.Tree, signed}
	target.ESPPartition, target.BootDir = 2, NewDirectory(beneath.Of(root, noLedger{}))
	if err := Install(t.Context(), GRUB, target); err != nil {
		t.Fatal(err)
	}
	if prefix := target.biosPrefix(); prefix != "(,gpt3)/boot/grub" {
		t.Errorf("GRUB for BIOS looks in %s", prefix)
	}
	bios, err := os.ReadFile(filepath.Join(dir, "grub/grub.cfg"))
	if err != nil || !strings.Contains(string(bios), "insmod") {
		t.Errorf("the configuration for BIOS loads modules: %v\n%s", err, bios)
	}
	uefi, err := fs.ReadFile(target.ESP.(fs.FS), "EFI/debian/grub.cfg")
	if err != nil || strings.Contains(string(uefi), "insmod") || !strings.Contains(string(uefi), rootUUID) {
		t.Errorf("the configuration for UEFI: %v\n%s", err, uefi)
	}
}

// TestSignedSystemdBoot is about systemd-boot behind shim, with the entry and the kernel on the
// partition.
func TestSignedSystemdBoot(t *testing.T) {
	target := hostTarget(t)
	signed := payload.TreeOf(os.DirFS(kit.SignedTree(t, "trixie")))
	p, err := payload.Find(signed, "amd64", payload.SystemdBoot)
	if err != nil {
		t.Fatal(err)
	}
	place := &listedPlace{dirESP: newDirESP(t)}
	target.Firmware.BIOS, target.Signed, target.Tree, target.ESP = false, p, signed, place
	if err := Install(t.Context(), SystemdBoot, target); err != nil {
		t.Fatal(err)
	}
	want := []string{"ostree/d-1/vmlinuz", "ostree/d-1/initramfs.img", "loader/entries/ostree-1.conf", "loader/loader.conf", "loader/entries.srel",
		"EFI/BOOT/grubx64.efi", "EFI/BOOT/mmx64.efi", "EFI/systemd/systemd-bootx64.efi", "EFI/BOOT/BOOTX64.EFI"}
	if !slices.Equal(place.names, want) {
		t.Errorf("written: %q, want %q", place.names, want)
	}
	onDisk := payload.TreeOf(os.DirFS(place.dir))
	found, err := payload.Installed(onDisk, place.names, "amd64", payload.SystemdBoot)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := found.Chain(onDisk, efi.Microsoft())
	if err == nil {
		_, err = chain.Verify()
	}
	if err != nil {
		t.Error(err)
	}
}

// twoTrees is a tree with the files of two, the first before the second.
type twoTrees [2]fs.FS

func (t twoTrees) Open(name string) (fs.File, error) {
	file, err := t[0].Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return t[1].Open(name)
	}
	return file, err
}

// bootUEFI starts the disk in a virtual machine with UEFI firmware and returns the output of the
// serial port.
func bootUEFI(t *testing.T, disk string) string {
	t.Helper()
	variables := filepath.Join(t.TempDir(), "vars")
	data, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(variables, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return boot(t, disk, "-drive", "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
		"-drive", "if=pflash,format=raw,unit=1,file="+variables)
}

// TestSignedBootHandsOver starts disks with shim and a signed GRUB, and compares what their kernels
// were handed. The firmware does not enforce signatures: the kernel has none.
func TestSignedBootHandsOver(t *testing.T) {
	const args = `root=UUID=1-2 rw a=* b=? d=(1,2) e=[f]~!%@^`
	if grub := signedGRUB(t, "bookworm"); CheckSignedArguments(grub, strings.Fields(args)) != nil {
		t.Fatal("an argument is refused")
	}
	const kernel = "4|BOOT_IMAGE=/boot/ostree/default-00/vmlinuz-6 "
	for _, c := range []struct {
		name, fs string
		entries  map[string]string
		want     string
	}{
		{"numbers and characters", "ext4", map[string]string{
			"ostree-2.conf":           entry("two", ""),
			"ostree-10-default.conf":  entry(args, "/boot"),
			"ostree-1+3-default.conf": entry("one", ""),
		}, kernel + args + ofFirst},
		{"an entry that cannot be read starts the deployment that no other entry does", "xfs", map[string]string{
			"ostree-2.conf": titled("Tom's OS", "root=UUID=1 two", 1),
			"ostree-1.conf": titled("Lab OS", "root=UUID=1 rw console=x", 0),
		}, kernel + "root=UUID=1 rw console=x ostree=/ostree/boot.1/default/00/1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			console := bootUEFI(t, makeDiskWith(t, writeTree(t, c.entries), c.fs, installSignedOn("bookworm")))
			got := handedOver(t, console)
			if strings.Contains(strings.ReplaceAll(console, "error: no suitable video mode", ""), "error:") {
				t.Errorf("GRUB reported an error, for which it waits ten seconds:\n%s", console)
			}
			if strings.Join(strings.Fields(got), " ") != c.want {
				t.Errorf("the kernel was handed\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
