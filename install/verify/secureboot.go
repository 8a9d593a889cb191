package verify

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"installer/install/size"
	"installer/rootfs/bootloader"
	"installer/rootfs/bootloader/efi"
	"installer/rootfs/bootloader/payload"
)

// shimmed reports whether a shim starts the boot loader for UEFI: a program that the firmware starts
// itself has no second one beside it.
func (l *layout) shimmed() bool {
	return l.fat != nil && slices.ContainsFunc(l.fat.Names, func(name string) bool {
		dir, base := path.Split(strings.ToLower(name))
		return strings.HasPrefix(dir, "efi/") && strings.HasSuffix(base, ".efi") &&
			(strings.HasPrefix(base, "shim") || dir == "efi/boot/" && strings.HasPrefix(base, "grub"))
	})
}

// espTree returns the EFI system partition as package payload reads it.
func (l *layout) espTree() payload.Tree {
	return payload.Tree{Program: func(name string) (efi.Program, error) {
		f, ok := l.fat.Find(name)
		if !ok {
			return efi.Program{}, os.ErrNotExist
		}
		return efi.Look(l.fat.Reader(f))
	}}
}

// ownConfigured reports whether GRUB's configuration on the EFI system partition is one that an
// installation makes.
func (l *layout) ownConfigured() bool {
	return slices.ContainsFunc(l.fat.Names, func(name string) bool {
		lower := strings.ToLower(name)
		if !strings.HasPrefix(lower, "efi/") || path.Base(lower) != "grub.cfg" {
			return false
		}
		f, ok := l.fat.Find(name)
		if !ok {
			return false
		}
		text, err := l.fat.ReadFile(f, configLimit)
		return err == nil && strings.Contains(string(text), ownConfig)
	})
}

// signedLoader returns the loader that shim starts.
func signedLoader(kind bootloader.Kind) payload.Loader {
	if kind == bootloader.SystemdBoot {
		return payload.SystemdBoot
	}
	return payload.GRUB
}

// chainCheck checks the programs that start each other under Secure Boot, as the firmware and shim
// do.
type chainCheck struct {
	*findings
	*layout
	ctx         context.Context
	tree        tree
	mounted     bool // tree is the root
	deployments []*deployment
}

// check judges the chain from the firmware to the kernels.
func (c *chainCheck) check() error {
	if !c.shimmed() {
		c.notApplicable("no shim starts the boot loader: the disk does not start while Secure Boot is on")
		return nil
	}
	kind := bootloader.GRUB
	if c.hasSystemdBoot() {
		kind = bootloader.SystemdBoot
	}
	esp := c.espTree()
	p, err := payload.Installed(esp, c.fat.Names, c.architecture(), signedLoader(kind))
	if err != nil {
		c.judge(err)
		return nil
	}
	chain, err := p.Chain(esp, efi.Microsoft())
	if err != nil {
		c.judge(err)
		return nil
	}
	verified, err := chain.Verify()
	if err != nil {
		c.judge(err)
		return nil
	}
	kernels, err := c.kernels(kind)
	for _, kernel := range kernels {
		one := efi.Chain{Firmware: chain.Firmware, Machine: chain.Machine, Shim: chain.Shim, Kernels: []efi.Program{kernel}}
		if _, err := one.Verify(); err != nil {
			c.judge(err)
		}
	}
	var authorities []string
	for _, a := range verified.Authorities {
		authorities = append(authorities, a.Subject.CommonName)
	}
	c.say("shim, %s and %s of the Secure Boot chain, from %s", size.Count(len(chain.Loaders), "loader"), size.Count(len(kernels), "kernel"), strings.Join(authorities, " and "))
	return err
}

// hasSystemdBoot reports whether systemd-boot is on the EFI system partition.
func (l *layout) hasSystemdBoot() bool {
	return slices.ContainsFunc(l.fat.Names, func(name string) bool {
		base := path.Base(strings.ToLower(name))
		return strings.HasPrefix(base, "systemd-boot") && strings.HasSuffix(base, ".efi")
	})
}

// judge reports why a disk does not start while Secure Boot is on. That a program has no signature,
// or one of somebody else, can be meant: the owner of the machine then switches Secure Boot off, or
// enrols a certificate.
func (c *chainCheck) judge(err error) {
	where, link := c.esp.String(), (*efi.LinkError)(nil)
	layoutError, untrusted := (*payload.LayoutError)(nil), (*efi.UntrustedError)(nil)
	if errors.As(err, &link) {
		where = link.Program.Path
		if link.Program.Name != kernelLink {
			where = espPath(where)
		}
	}
	if errors.Is(err, efi.ErrUnsigned) || errors.As(err, &untrusted) || errors.As(err, &layoutError) {
		c.note(where, "the disk does not start while Secure Boot is on: %v", err)
		return
	}
	c.faultWith("the disk does not start while Secure Boot is on; install the package of the file anew, or the image", where, "%v", err)
}

// kernelLink names the last link of a chain.
const kernelLink = "the kernel"

// kernels returns the kernels that the loader starts.
func (c *chainCheck) kernels(kind bootloader.Kind) (found []efi.Program, err error) {
	if kind.KernelOnESP() {
		return c.kernelsOnESP()
	}
	if !c.mounted {
		c.note(c.esp.String(), "whether the kernels start while Secure Boot is on is not known: the root is not mounted")
		return nil, nil
	}
	for _, d := range c.deployments {
		if d.entry == nil {
			continue
		}
		name := bootPath(d.entry.linux)
		err := c.tree.regular(name, func(f *os.File, _ int64) error {
			program, err := efi.Look(contextReader{c.ctx, f})
			program.Name, program.Path = kernelLink, "/"+name
			found = append(found, program)
			return err
		})
		if err != nil {
			c.fault("/"+name, "it cannot be read: %v", err)
		}
	}
	return found, c.ctx.Err()
}

// kernelsOnESP returns the kernels of the boot entries on the EFI system partition.
func (c *chainCheck) kernelsOnESP() (found []efi.Program, err error) {
	for _, name := range c.fat.Names {
		lower := strings.ToLower(name)
		if !strings.HasPrefix(lower, "loader/entries/") || !strings.HasSuffix(lower, ".conf") {
			continue
		}
		f, ok := c.fat.Find(name)
		if !ok {
			continue
		}
		text, err := c.fat.ReadFile(f, configLimit)
		if err != nil {
			return found, err
		}
		entry, _ := parseEntry(path.Base(name), string(text))
		if _, ok := c.fat.Find(entry.linux); !ok {
			continue // the boot files' check has reported it
		}
		program, err := c.espTree().Program(entry.linux)
		if err != nil {
			return found, err
		}
		program.Name, program.Path = kernelLink, espPath(entry.linux)
		found = append(found, program)
	}
	return found, nil
}
