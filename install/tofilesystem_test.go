package install

import (
	"errors"
	"strings"
	"testing"

	"installer/disk"
	"installer/finalize/mounts"
	"installer/install/config"
	"installer/install/mounted"
	"installer/rootfs/bootloader"
)

func TestFstabWithBoot(t *testing.T) {
	for name, c := range map[string]struct{ old, want, replaced string }{
		"none":         {"", "UUID=1 /boot auto ro 0 0\n", ""},
		"others":       {"# /boot\nLABEL=x /home xfs defaults 0 0", "# /boot\nLABEL=x /home xfs defaults 0 0\nUUID=1 /boot auto ro 0 0\n", ""},
		"another boot": {"LABEL=b /boot/ ext4 rw 0 0\n\nx /bootx y\n", "\nx /bootx y\nUUID=1 /boot auto ro 0 0\n", "LABEL=b /boot/ ext4 rw 0 0"},
	} {
		if text, replaced := fstabWithBoot(c.old, "UUID=1"); text != c.want || replaced != c.replaced {
			t.Errorf("%s: %q and %q, want %q and %q", name, text, replaced, c.want, c.replaced)
		}
	}
}

// onMounted is a run onto an xfs root, with a boot file system of its own if wanted.
func onMounted(o MountedOptions, c config.Config, boot bool) *run {
	r := configured(Options{Bootloader: bootloader.GRUB}, c)
	o.Root = "/mnt"
	r.mounted = &mountedTarget{opts: o, noPlace: errors.New("no partition"), tree: &mounted.Tree{Root: mounted.Filesystem{
		Role: mounted.Root, Mount: mounts.Mount{Point: "/mnt", FSType: "xfs"}, Super: disk.Superblock{UUID: "r"}}}}
	if boot {
		r.mounted.tree.Boot = &mounted.Filesystem{Role: mounted.Boot, Mount: mounts.Mount{Point: "/mnt/boot"}, Super: disk.Superblock{UUID: "b"}}
	}
	return r
}

// The flags win over the image's configuration, which wins over the UUIDs; an empty one is none.
func TestMountSpecs(t *testing.T) {
	for name, c := range map[string]struct {
		options MountedOptions
		config  config.Config
		boot    bool
		want    string
	}{
		"UUIDs":            {boot: true, want: "root=UUID=r rw systemd.gpt_auto=0 boot=UUID=b"},
		"no boot":          {want: "root=UUID=r rw systemd.gpt_auto=0"},
		"configuration":    {config: config.Config{RootMountSpec: ptr("LABEL=r"), BootMountSpec: ptr("LABEL=b")}, boot: true, want: "root=LABEL=r rw systemd.gpt_auto=0 boot=LABEL=b"},
		"flags":            {options: MountedOptions{RootMountSpec: ptr("/dev/vda3"), BootMountSpec: ptr("/dev/vda2")}, config: config.Config{RootMountSpec: ptr("LABEL=r")}, boot: true, want: "root=/dev/vda3 rw systemd.gpt_auto=0 boot=/dev/vda2"},
		"empty flags":      {options: MountedOptions{RootMountSpec: ptr(""), BootMountSpec: ptr("")}, config: config.Config{RootMountSpec: ptr("LABEL=r")}, boot: true, want: "rw"},
		"boot not mounted": {config: config.Config{BootMountSpec: ptr("LABEL=b")}, want: "root=UUID=r rw systemd.gpt_auto=0"},
		"discoverable":     {config: config.Config{Discoverable: ptr(true)}, want: "root=UUID=r rw systemd.gpt_auto=0"},
	} {
		r := onMounted(c.options, c.config, c.boot)
		if err := r.settleSpecs(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Join(r.rootKargs(), " "); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	var refused *disk.RefusedError
	if err := onMounted(MountedOptions{BootMountSpec: ptr("LABEL=b")}, config.Config{}, false).settleSpecs(); !errors.As(err, &refused) {
		t.Errorf("a boot that is not mounted: %v", err)
	}
	if err := onMounted(MountedOptions{}, config.Config{BootMountSpec: ptr("a b")}, true).settleSpecs(); err == nil {
		t.Error("a blank in the configuration's boot-mount-spec was accepted")
	}
	for _, bad := range []MountedOptions{{RootMountSpec: ptr("a b")}, {BootMountSpec: ptr("a\nb")}, {RootMountSpec: ptr("a;b")}} {
		if err := bad.Validate(); err == nil {
			t.Errorf("%q, %q accepted", deref(bad.RootMountSpec), deref(bad.BootMountSpec))
		}
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// A boot loader goes wherever there is a place for it, and for this machine's
// firmware first.
func TestMountedFirmware(t *testing.T) {
	uefi, bios := bootloader.Firmware{UEFI: true}, bootloader.Firmware{BIOS: true}
	this := bios
	if startedByUEFI() {
		this = uefi
	}
	for name, c := range map[string]struct {
		esp, bios bool
		kind      bootloader.Kind
		generic   bool
		want      bootloader.Firmware
		notes     int
		says      string
	}{
		"both":               {esp: true, bios: true, kind: bootloader.GRUB, want: this},
		"both, generic":      {esp: true, bios: true, kind: bootloader.GRUB, generic: true, want: bootloader.Firmware{UEFI: true, BIOS: true}},
		"ESP, generic":       {esp: true, kind: bootloader.GRUB, generic: true, want: uefi},
		"ESP":                {esp: true, kind: bootloader.GRUB, want: uefi, notes: noteIf(this != uefi)},
		"BIOS boot":          {bios: true, kind: bootloader.GRUB, want: bios, notes: noteIf(this != bios)},
		"systemd-boot":       {esp: true, bios: true, kind: bootloader.SystemdBoot, want: uefi, notes: noteIf(this != uefi)},
		"nothing, and none":  {kind: bootloader.None},
		"nothing":            {kind: bootloader.GRUB, says: "mount the EFI system partition on /mnt/boot/efi; for BIOS /mnt must be on a partition.*(no partition); or leave the boot loader to yourself by --bootloader=none"},
		"systemd-boot alone": {bios: true, kind: bootloader.SystemdBoot, says: "mount the EFI system partition on /mnt/boot/efi; or leave"},
	} {
		r := onMounted(MountedOptions{}, config.Config{}, false)
		r.opts.Bootloader, r.opts.GenericImage = c.kind, c.generic
		if c.esp {
			r.mounted.tree.ESP = &mounted.Filesystem{Role: mounted.ESP}
		}
		if c.bios {
			r.mounted.place, r.mounted.noPlace = &mounted.Place{Disk: "/dev/vda", BIOSBoot: &disk.Partition{}}, nil
		}
		got, err := r.mountedFirmware()
		if c.says != "" {
			for _, part := range strings.Split(c.says, ".*") {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("%s: %v, want %s", name, err, part)
				}
			}
			continue
		}
		if err != nil || got != c.want || len(r.report.Notes) != c.notes {
			t.Errorf("%s: %s, %v, notes %q; want %s", name, got, err, r.report.Notes, c.want)
		}
	}
	r := onMounted(MountedOptions{}, config.Config{}, false)
	r.mounted.place, r.mounted.noPlace = &mounted.Place{Disk: "/dev/vda"}, nil
	if _, err := r.mountedFirmware(); err == nil || !strings.Contains(err.Error(), "/dev/vda needs a BIOS boot partition") {
		t.Errorf("a disk without BIOS boot partition: %v", err)
	}
}

func noteIf(noted bool) int {
	if noted {
		return 1
	}
	return 0
}
