package bootloader

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"installer/rootfs/bootloader/efi"
	"installer/rootfs/bootloader/payload"
	"installer/tests/kit"
)

// signedImage is an image with Debian's signed loaders and kernel.
func signedImage(t *testing.T) (fstest.MapFS, string) {
	t.Helper()
	from := os.DirFS(kit.SignedTree(t, "trixie"))
	tree, kernel := fstest.MapFS{}, ""
	for _, pattern := range []string{"usr/lib/shim/*", "usr/lib/grub/x86_64-efi-signed/grubx64*", "usr/lib/systemd/boot/efi/*", "boot/vmlinuz-*"} {
		names, err := fs.Glob(from, pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %q, %v", pattern, names, err)
		}
		for _, name := range names {
			data, err := fs.ReadFile(from, name)
			if err != nil {
				t.Fatal(err)
			}
			tree[name], kernel = &fstest.MapFile{Data: data}, name
		}
	}
	return tree, kernel
}

// TestChooseSigned is about images with and without faults, and each wish.
func TestChooseSigned(t *testing.T) {
	whole, kernel := signedImage(t)
	const grub = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
	change := func(tree fstest.MapFS, name string) {
		data := bytes.Clone(tree[name].Data)
		data[0x6000] ^= 1
		tree[name] = &fstest.MapFile{Data: data}
	}
	uefi, bios := Firmware{UEFI: true, BIOS: true}, Firmware{BIOS: true}
	var none *payload.NoneError
	var link *efi.LinkError
	var argument *ArgumentError
	for _, c := range []struct {
		name     string
		kind     Kind
		firmware Firmware
		args     []string
		change   func(fstest.MapFS)
		signed   bool // its loaders are taken if they are not required
		reason   any  // for which they are not, if they are required; nil if they are
	}{
		{"whole", GRUB, uefi, nil, func(fstest.MapFS) {}, true, nil},
		{"systemd-boot", SystemdBoot, Firmware{UEFI: true}, []string{`a="b c"`}, func(fstest.MapFS) {}, true, nil},
		{"no GRUB", GRUB, uefi, nil, func(f fstest.MapFS) { delete(f, grub) }, false, &none},
		{"GRUB changed", GRUB, uefi, nil, func(f fstest.MapFS) { change(f, grub) }, false, &link},
		{"kernel changed", GRUB, uefi, nil, func(f fstest.MapFS) { change(f, kernel) }, true, &link},
		{"an argument in quotes", GRUB, uefi, []string{`a="b c"`}, func(fstest.MapFS) {}, false, &argument},
		{"BIOS alone", GRUB, bios, nil, func(fstest.MapFS) {}, false, nil},
		{"no loader", None, uefi, nil, func(fstest.MapFS) {}, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := fstest.MapFS{}
			for name, file := range whole {
				tree[name] = file
			}
			c.change(tree)
			needs := Needs{Arch: "amd64", Firmware: c.firmware, Filesystem: "ext4"}
			auto, err := needs.ChooseSigned(c.kind, SecureBootAuto, payload.TreeOf(tree), kernel, c.args)
			if err != nil || (auto.Payload != nil) != c.signed || (auto.Note == "") != (c.reason == nil) {
				t.Errorf("auto: %v, note %q, %v", auto.Payload != nil, auto.Note, err)
			}
			required, err := needs.ChooseSigned(c.kind, SecureBootRequired, payload.TreeOf(tree), kernel, c.args)
			var refused *SecureBootError
			switch {
			case c.kind == None || !c.firmware.UEFI:
				if !errors.Is(err, ErrNoLoader) && !errors.Is(err, ErrBIOSAlone) {
					t.Errorf("required: %v", err)
				}
			case c.reason == nil && (err != nil || required.Payload == nil):
				t.Errorf("required: %v", err)
			case c.reason != nil && (!errors.As(err, &refused) || !errors.As(err, c.reason)):
				t.Errorf("required: %v, want %T", err, c.reason)
			}
			if off, err := needs.ChooseSigned(c.kind, SecureBootOff, payload.TreeOf(tree), kernel, c.args); err != nil || off != (Signed{}) {
				t.Errorf("off: %+v, %v", off, err)
			}
		})
	}
}
