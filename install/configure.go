package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"installer/disk"
	"installer/install/config"
	"installer/rootfs/bootloader"
	"installer/rootfs/bound"
	"installer/rootfs/deploy"
	"installer/rootfs/image"
)

// readConfig reads what the image says of its own installation.
func (r *run) readConfig(inv *image.Inventory) (err error) {
	f := &r.source.facts
	fsys := inv.FS()
	roots := []fs.FS{fsys}
	if r.opts.ConfigRoot != "" {
		roots = append(roots, os.DirFS(r.opts.ConfigRoot))
	}
	if f.config, err = config.Load(r.arch(), roots...); err != nil {
		return r.configFault(err)
	}
	if f.kargs, err = config.LoadKargs(r.arch(), fsys); err != nil {
		return r.configFault(err)
	}
	for _, note := range append(f.config.Notes, f.kargs.Notes...) {
		r.note("%s", note)
	}
	if n := inv.Tree.Lookup("root"); n != nil && n.IsSymlink() {
		f.rootLink = n.Target
	}
	f.selinux = inv.Tree.Lookup(selinuxConfig) != nil
	f.bootFiles = bootBytes(inv.Tree)
	if n := inv.Tree.Lookup(bound.Dir); n != nil {
		f.binds = n.Names()
	}
	return nil
}

// configFault says which file of the configuration is at fault.
func (r *run) configFault(err error) error {
	fault := &image.SourceError{Ref: r.opts.Source.String(), Err: err}
	if file := (*config.FileError)(nil); errors.As(err, &file) {
		fault.Entry, fault.Err = file.Path, file.Err
	}
	return fault
}

// choose settles what the options leave open: by the image's configuration,
// else by default. It refuses what is configured but cannot be done.
func (r *run) choose() error {
	if err := r.chooseValues(); err != nil {
		return r.sourceFault(fmt.Errorf("install configuration: %w", err))
	}
	if err := r.settleFirmware(); err != nil {
		return err
	}
	r.noteUnused()
	r.report.Disk.Filesystem, r.report.Disk.Bootloader = r.opts.Filesystem, r.opts.Bootloader
	return nil
}

// settleFirmware says for which firmware a boot loader is installed.
func (r *run) settleFirmware() (err error) {
	if r.mounted == nil {
		r.target.firmware = r.diskFirmware()
		return nil
	}
	r.target.firmware, err = r.mountedFirmware()
	return err
}

// firmware is what was settled.
func (r *run) firmware() bootloader.Firmware { return r.target.firmware }

func (r *run) chooseValues() (err error) {
	o, c := &r.opts, r.source.facts.config
	if o.BlockSetup, err = c.BlockSetup(o.BlockSetup); err != nil {
		return err
	}
	if o.BlockSetup != config.BlockDirect {
		return errNoLUKS
	}
	if o.Filesystem == "" {
		o.Filesystem = DefaultFilesystem
		if kind := c.RootType(); kind != "" {
			if o.Filesystem, err = disk.ParseFilesystem(kind); err != nil {
				return err
			}
		}
	}
	if o.Bootloader == "" {
		o.Bootloader = DefaultBootloader
		if c.Bootloader != nil {
			if o.Bootloader, err = bootloader.ParseKind(*c.Bootloader); err != nil {
				return err
			}
		}
	}
	if o.Stateroot == "" {
		o.Stateroot = deploy.DefaultStateroot
		if c.Stateroot != nil {
			o.Stateroot = *c.Stateroot
		}
	}
	if err := deploy.CheckStateroot(o.Stateroot); err != nil {
		return err
	}
	return checkKargs(append(append(c.Kargs[:len(c.Kargs):len(c.Kargs)], c.KargDeletes...), r.source.facts.kargs.Kargs...))
}

// noteUnused tells of settings that are valid, and have no effect here.
func (r *run) noteUnused() {
	c := r.source.facts.config
	if r.mounted == nil && c.RootMountSpec != nil {
		r.note("install configuration: root-mount-spec is for to-filesystem; the root that to-disk makes is found by its UUID")
	}
	if r.mounted == nil && c.BootMountSpec != nil {
		r.note("install configuration: boot-mount-spec is for to-filesystem; to-disk makes no separate /boot")
	}
	if c.Bootupd != nil && c.Bootupd.SkipBootUUID != nil {
		r.note("install configuration: bootupd.skip-boot-uuid has no effect, bootupd is not used")
	}
	if c.Ostree != nil && c.Ostree.BLSAppendExceptDefault != nil {
		r.note("install configuration: ostree.bls-append-except-default is not supported yet")
	}
	switch {
	case c.Discoverable == nil || !*c.Discoverable || r.discoverable():
	case r.mounted != nil:
		r.note("install configuration: discoverable-partitions is for to-disk; here an empty --root-mount-spec leaves the root to be found by its partition type")
	default:
		r.note("install configuration: discoverable-partitions needs the Boot Loader Interface, which of the boot loaders here %s alone has: the root is found by its UUID",
			bootloader.SystemdBoot)
	}
	if r.opts.DisableSELinux && !r.source.facts.selinux {
		r.note("the image has no SELinux policy: there is nothing to disable")
	}
}

// discoverable tells whether the initramfs is left to find the root by its
// partition type. For that, a boot loader has to say what it was started from
// (systemd's Boot Loader Interface).
func (r *run) discoverable() bool {
	wanted := r.source.facts.config.Discoverable
	return wanted != nil && *wanted && r.mounted == nil && r.opts.Bootloader == bootloader.SystemdBoot
}

// rootKargs are the kernel arguments that the file systems need. The GPT
// generator is kept from mounting the EFI system partition in places where
// ostree binds its own, unless it is what finds the root.
func (r *run) rootKargs() []string {
	kargs := []string{"rw"}
	if r.target.rootSpec != "" && !r.discoverable() {
		kargs = []string{"root=" + r.target.rootSpec, "rw", "systemd.gpt_auto=0"}
	}
	if r.target.bootSpec != "" {
		kargs = append(kargs, "boot="+r.target.bootSpec)
	}
	if r.opts.DisableSELinux && r.source.facts.selinux {
		kargs = append(kargs, "selinux=0")
	}
	return kargs
}

// assembleKargs makes the kernel's command line of all that adds to it.
func (r *run) assembleKargs() []string {
	c := r.source.facts.config
	return kargSources{
		root:    r.rootKargs(),
		config:  c.Kargs,
		image:   r.source.facts.kargs.Kargs,
		deletes: append(c.KargDeletes[:len(c.KargDeletes):len(c.KargDeletes)], r.opts.KargDeletes...),
		flags:   r.opts.Kargs,
	}.assemble()
}

// planKargs settles the kernel's command line, once the root has a name.
func (r *run) planKargs() error {
	r.target.kargs = r.assembleKargs()
	if r.opts.Bootloader == bootloader.GRUB {
		return bootloader.CheckArguments(r.target.kargs)
	}
	return nil
}
