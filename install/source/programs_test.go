package source

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"installer/rootfs/bootable"
	"installer/rootfs/bootloader"
	"installer/rootfs/bootloader/efi"
	"installer/rootfs/bootloader/payload"
	"installer/rootfs/image"
	"installer/tests/kit"
)

// TestPrograms scans an image with Debian's signed boot loaders and kernel, none of which a scan
// keeps, and judges their chain. A program that is not signed is known as such.
func TestPrograms(t *testing.T) {
	dir, tree := t.TempDir(), kit.SignedTree(t, "bookworm")
	kernels, err := filepath.Glob(tree + "/boot/vmlinuz-*")
	if err != nil || len(kernels) != 1 {
		t.Fatalf("%q, %v", kernels, err)
	}
	modules := filepath.Join(dir, "usr/lib/modules/6")
	if err := os.MkdirAll(modules, 0o755); err != nil {
		t.Fatal(err)
	}
	kit.Run(t, "cp", "-r", tree+"/usr/lib/shim", tree+"/usr/lib/grub", filepath.Join(dir, "usr/lib"))
	kit.Run(t, "cp", kernels[0], modules+"/vmlinuz")
	img, err := image.Open(t.Context(), image.Ref{Transport: image.TransportRootfs, Name: dir}, image.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	s := &Source{Image: img, log: noLog{}}
	inv, err := s.Scan(t.Context(), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	const kernel = bootable.Modules + "/6/vmlinuz"
	needs := bootloader.Needs{Arch: "amd64", Firmware: bootloader.Firmware{UEFI: true}}
	chosen, err := needs.ChooseSigned(bootloader.GRUB, bootloader.SecureBootRequired, s.Programs(inv), kernel, nil)
	if err != nil || chosen.Payload.Source != payload.Packages {
		t.Errorf("%+v, %v", chosen, err)
	}
	if found, ok := inv.Seen(kernel).(*seen); !ok || found.facts == nil || found.facts.Kernel != "amd64" {
		t.Errorf("the kernel is not known as one: %+v", found)
	}
	p, err := s.Programs(inv).Program("usr/lib/shim/shimx64.efi")
	if err != nil || !errors.Is(p.Err, efi.ErrUnsigned) {
		t.Errorf("a shim without signatures: %v, %v", p.Err, err)
	}
	if _, err := s.Programs(inv).Program("usr/lib/shim/BOOTX64.CSV"); err == nil {
		t.Error("a file that no scan looks at is taken for a program")
	}
}

// TestLookAtFails is about a reader that fails within a program: that is no fault of the program.
func TestLookAtFails(t *testing.T) {
	broken := io.MultiReader(strings.NewReader("MZ"), iotest.ErrReader(io.ErrClosedPipe))
	for _, name := range []string{"usr/lib/modules/6/vmlinuz", "usr/lib/shim/shimx64.efi.signed"} {
		if _, err := lookAt(name, 0o644)(broken); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
