package choice

import (
	"fmt"
	"slices"

	"installer/disk"
	"installer/install/choice/config"
	"installer/rootfs/bootloader"
	"installer/rootfs/deploy"
)

// Choice holds the decisions of an installation. It is made once, and not changed.
type Choice struct {
	Arch         string // of the system, by its Go name
	Filesystem   disk.Filesystem
	Bootloader   bootloader.Kind
	Firmware     bootloader.Firmware // that the boot loader is installed for
	SecureBoot   bootloader.SecureBoot
	Stateroot    string
	RootUUID     string
	RootSpec     string // value of root=, see kernel-command-line(7); "" leaves the root to be found by its partition type
	BootSpec     string // device of a separate /boot, as in fstab(5); "" is none
	Kargs        []string
	Target       string // image reference that updates come from, "" is none
	SignedOnly   bool   // the image, and its updates, must pass a policy that demands a signature
	RootKeys     string // line of tmpfiles.d(5) that makes root's SSH keys, "" is none
	SELinuxOff   bool   // by a kernel argument
	Labelled     bool   // files have SELinux labels: of the image's policy, or of an ostree commit
	Discoverable bool   // the initramfs finds the root by its partition type
	Root         deploy.RootSettings
	Notes        []string
}

// Make chooses: the options come first, then the image's configuration, then the defaults. It
// refuses a configuration that cannot be carried out.
func Make(o Options, f Facts, p Place, m Machine) (*Choice, error) {
	c := &Choice{
		Arch: f.Arch, RootUUID: p.RootUUID, Target: o.Target, SecureBoot: first(o.SecureBoot, bootloader.SecureBoots()[0]),
		SignedOnly: o.SignedOnly || f.Config.EnforceSigPolicy != nil && *f.Config.EnforceSigPolicy,
		SELinuxOff: o.DisableSELinux && f.SELinux, Labelled: f.Labelled,
		Notes: slices.Concat(f.Config.Notes, f.Kargs.Notes),
	}
	if err := c.chooseValues(o, f, p); err != nil {
		return nil, f.fault(fmt.Errorf("install configuration: %w", err))
	}
	firmware, note, err := p.chooseFirmware(c.Bootloader, c.Arch, o.GenericImage, m)
	if err != nil {
		return nil, err
	}
	c.Firmware = firmware
	c.note(note)
	c.Discoverable = f.Config.Discoverable != nil && *f.Config.Discoverable && !p.Made && c.Bootloader.HasInterface()
	if err := c.chooseSpecs(o, f, p); err != nil {
		return nil, err
	}
	c.noteUnused(o, f, p)
	c.Notes = append(c.Notes, noteReserved(slices.Concat(f.Config.Kargs, f.Kargs.Kargs))...)
	if why := unreachable(o.Target, f.Ref); why != "" {
		c.note(fmt.Sprintf("updates come from %s, and %s: name the image that the host follows by --target-imgref", o.Target, why))
	}
	c.note(noteKeys(o.RootSSHKeys))
	if c.RootKeys, err = rootKeys(f.RootLink, o.RootSSHKeys); err != nil {
		return nil, f.fault(err)
	}
	c.Kargs = c.assembleKargs(o, f)
	if c.Root, err = f.Root.With(c.Kargs); err != nil {
		return nil, err
	}
	if err := c.check(f); err != nil {
		return nil, f.fault(err)
	}
	if err := c.Bootloader.CheckArguments(o.Kargs); err != nil {
		return nil, err
	}
	if err := c.Bootloader.CheckArguments(c.Kargs); err != nil {
		return nil, f.fault(err)
	}
	return c, nil
}

// check refuses a choice that the image has no room for.
func (c *Choice) check(f Facts) error {
	if err := checkLength(c.Kargs, c.Stateroot); err != nil {
		return err
	}
	if c.RootKeys != "" {
		if err := f.checkFile(RootKeysPath); err != nil {
			return fmt.Errorf("root's SSH keys: %w", err)
		}
		if c.Root.TransientEtc {
			return fmt.Errorf("root's SSH keys would be written to /%s, which no start would see: prepare-root.conf has etc.transient=true; to do: put the keys into the image", RootKeysPath)
		}
	}
	if c.BootSpec != "" {
		if err := f.checkFile(FstabPath); err != nil {
			return fmt.Errorf("the mount of /boot: %w", err)
		}
		if c.Root.TransientEtc {
			c.note("the line for /boot in /" + FstabPath + " has no effect: prepare-root.conf has etc.transient=true, and the image must mount /boot by itself")
		}
	}
	return nil
}

// note adds a note that is not empty.
func (c *Choice) note(text string) {
	if text != "" {
		c.Notes = append(c.Notes, text)
	}
}

func (c *Choice) chooseValues(o Options, f Facts, p Place) (err error) {
	conf := f.Config
	if !p.Made { // else the caller has set it up
		setup, err := conf.BlockSetup(o.BlockSetup)
		if err != nil {
			return err
		}
		if setup != config.BlockDirect {
			return errNoLUKS
		}
	}
	c.Filesystem = first(p.Filesystem, o.Filesystem)
	if kind := conf.RootType(); c.Filesystem == "" && kind != "" {
		if c.Filesystem, err = disk.ParseFilesystem(kind); err != nil {
			return err
		}
	}
	if f.Root.Verity { // which XFS has not
		c.Filesystem = first(c.Filesystem, disk.Ext4)
	}
	c.Filesystem = first(c.Filesystem, DefaultFilesystem)
	c.Bootloader = o.Bootloader
	if c.Bootloader == "" && conf.Bootloader != nil {
		if c.Bootloader, err = bootloader.ParseKind(*conf.Bootloader); err != nil {
			return err
		}
	}
	c.Bootloader = first(c.Bootloader, DefaultBootloader)
	c.Stateroot = o.Stateroot
	if c.Stateroot == "" && conf.Stateroot != nil {
		c.Stateroot = *conf.Stateroot
	} else if c.Stateroot == "" {
		c.Stateroot = deploy.DefaultStateroot
	}
	if err := deploy.CheckStateroot(c.Stateroot); err != nil {
		return err
	}
	return checkKargs(slices.Concat(conf.Kargs, conf.KargDeletes, f.Kargs.Kargs))
}

// first returns the first value that is not empty.
func first[T ~string](values ...T) (v T) {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return v
}

// chooseSpecs chooses how the installed system finds its file systems: as the options say, or the
// image's configuration, or else by their UUIDs.
func (c *Choice) chooseSpecs(o Options, f Facts, p Place) error {
	c.RootSpec = "UUID=" + p.RootUUID
	if !p.Made {
		return nil
	}
	for _, spec := range []*string{f.Config.RootMountSpec, f.Config.BootMountSpec} {
		if err := checkSpec(spec); err != nil {
			return f.fault(fmt.Errorf("install configuration: %w", err))
		}
	}
	if spec := firstSet(o.RootMountSpec, f.Config.RootMountSpec); spec != nil {
		c.RootSpec = *spec
	}
	if p.BootUUID == "" {
		if spec := o.BootMountSpec; spec != nil && *spec != "" {
			return &disk.RefusedError{Path: p.Path, Reason: fmt.Sprintf(
				"--boot-mount-spec says that the system has its /boot on %s, but nothing is mounted on %s", *spec, p.BootPoint)}
		}
		return nil
	}
	c.BootSpec = "UUID=" + p.BootUUID
	if spec := firstSet(o.BootMountSpec, f.Config.BootMountSpec); spec != nil {
		c.BootSpec = *spec
	}
	return nil
}

func firstSet(specs ...*string) *string {
	for _, spec := range specs {
		if spec != nil {
			return spec
		}
	}
	return nil
}

// noteUnused notes settings that are valid, and have no effect here.
func (c *Choice) noteUnused(o Options, f Facts, p Place) {
	conf := f.Config
	if !p.Made && conf.RootMountSpec != nil {
		c.note("install configuration: root-mount-spec is for to-filesystem; the root that to-disk makes is found by its UUID")
	}
	if !p.Made && conf.BootMountSpec != nil {
		c.note("install configuration: boot-mount-spec is for to-filesystem; to-disk makes no separate /boot")
	}
	if conf.Bootupd != nil && conf.Bootupd.SkipBootUUID != nil {
		c.note("install configuration: bootupd.skip-boot-uuid has no effect, bootupd is not used")
	}
	if conf.Ostree != nil && conf.Ostree.BLSAppendExceptDefault != nil {
		c.note("install configuration: ostree.bls-append-except-default is not supported yet")
	}
	switch {
	case conf.Discoverable == nil || !*conf.Discoverable || c.Discoverable:
	case p.Made:
		c.note("install configuration: discoverable-partitions is for to-disk; here an empty --root-mount-spec leaves the root to be found by its partition type")
	default:
		c.note(fmt.Sprintf("install configuration: discoverable-partitions needs the Boot Loader Interface, which of the boot loaders here %s alone has: the root is found by its UUID",
			bootloader.SystemdBoot))
	}
	if o.DisableSELinux && !f.SELinux {
		c.note("the image has no SELinux policy: there is nothing to disable")
	}
}

// rootKargs returns the kernel arguments that the file systems need. The GPT generator must not
// mount the EFI system partition in places where ostree binds its own, unless the generator finds
// the root.
func (c *Choice) rootKargs() []string {
	kargs := []string{"rw"}
	if c.RootSpec != "" && !c.Discoverable {
		kargs = []string{"root=" + c.RootSpec, "rw", "systemd.gpt_auto=0"}
	}
	if c.BootSpec != "" {
		kargs = append(kargs, "boot="+c.BootSpec)
	}
	if c.SELinuxOff {
		kargs = append(kargs, "selinux=0")
	}
	return kargs
}

// assembleKargs makes the kernel's command line of all that adds to it.
func (c *Choice) assembleKargs(o Options, f Facts) []string {
	return kargSources{
		root:    c.rootKargs(),
		config:  f.Config.Kargs,
		image:   f.Kargs.Kargs,
		deletes: slices.Concat(f.Config.KargDeletes, o.KargDeletes),
		flags:   o.Kargs,
	}.assemble()
}
