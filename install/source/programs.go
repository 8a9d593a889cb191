package source

import (
	"bytes"
	"fmt"
	"io"

	"installer/rootfs/bootable"
	"installer/rootfs/bootloader/efi"
	"installer/rootfs/bootloader/payload"
	"installer/rootfs/image"
	"installer/rootfs/label"
)

// seen is the finding of a scan in a kernel or a program.
type seen struct {
	facts *bootable.Facts
	efi   efi.Program // of a kernel or a boot loader
}

// lookAt has the scan look at the kernel, at programs and boot loaders, and at the binary SELinux
// policy.
func lookAt(name string, mode uint32) func(io.Reader) (any, error) {
	if label.IsBinary(name) {
		return sumPolicy
	}
	look, kernel := bootable.Looker(name, mode), bootable.IsKernel(name)
	if !kernel && payload.IsProgram(name) {
		look = nil
	} else if look == nil {
		return nil
	}
	return func(content io.Reader) (_ any, err error) {
		var found seen
		if look != nil && !kernel {
			found.facts, err = look(content)
			return &found, err
		}
		var head bytes.Buffer // that look has read: the beginning of a kernel
		if kernel {
			if found.facts, err = look(io.TeeReader(content, &head)); err != nil {
				return nil, err
			}
		}
		found.efi, err = efi.Look(io.MultiReader(&head, content))
		return &found, err
	}
}

// Programs returns the tree of a scanned image, whose signed EFI programs the scan has looked at.
func (s *Source) Programs(inv *image.Inventory) payload.Tree {
	return payload.Tree{FS: inv.FS(), Program: func(name string) (efi.Program, error) {
		found, ok := inv.Seen(name).(*seen)
		if !ok {
			return efi.Program{}, fmt.Errorf("/%s of the image was not looked into", name)
		}
		return found.efi, nil
	}}
}
