package choice

import (
	"errors"
	"strings"
	"testing"

	"installer/disk"
	"installer/install/choice/config"
	"installer/rootfs/bootloader"
)

// made is a target whose root, and boot file system if wanted, are made already.
func made(boot bool) Place {
	p := Place{Path: "/mnt", Made: true, Filesystem: disk.XFS, RootUUID: "r", BootPoint: "/mnt/boot",
		NoUEFI: "for UEFI mount the EFI system partition on /mnt/boot/efi", NoBIOS: "for BIOS /mnt must be on a partition"}
	if boot {
		p.BootUUID = "b"
	}
	return p
}

// The flags win over the image's configuration, which wins over the UUIDs; an empty one is none.
func TestMountSpecs(t *testing.T) {
	for name, c := range map[string]struct {
		options Options
		config  config.Config
		boot    bool
		want    string
	}{
		"UUIDs":            {boot: true, want: "root=UUID=r rw systemd.gpt_auto=0 boot=UUID=b"},
		"no boot":          {want: "root=UUID=r rw systemd.gpt_auto=0"},
		"configuration":    {config: config.Config{RootMountSpec: ptr("LABEL=r"), BootMountSpec: ptr("LABEL=b")}, boot: true, want: "root=LABEL=r rw systemd.gpt_auto=0 boot=LABEL=b"},
		"flags":            {options: Options{RootMountSpec: ptr("/dev/vda3"), BootMountSpec: ptr("/dev/vda2")}, config: config.Config{RootMountSpec: ptr("LABEL=r")}, boot: true, want: "root=/dev/vda3 rw systemd.gpt_auto=0 boot=/dev/vda2"},
		"empty flags":      {options: Options{RootMountSpec: ptr(""), BootMountSpec: ptr("")}, config: config.Config{RootMountSpec: ptr("LABEL=r")}, boot: true, want: "rw"},
		"boot not mounted": {config: config.Config{BootMountSpec: ptr("LABEL=b")}, want: "root=UUID=r rw systemd.gpt_auto=0"},
		"discoverable":     {config: config.Config{Discoverable: ptr(true)}, want: "root=UUID=r rw systemd.gpt_auto=0"},
	} {
		c.options.Bootloader = bootloader.None
		got, err := Make(c.options, imageWith(c.config), made(c.boot), amd64)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text := strings.Join(got.Kargs, " "); text != c.want {
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
	}
	none := Options{Bootloader: bootloader.None, BootMountSpec: ptr("LABEL=b")}
	if _, err := Make(none, imageWith(config.Config{}), made(false), amd64); !errors.As(err, new(*disk.RefusedError)) {
		t.Errorf("a boot that is not mounted: %v", err)
	}
	if _, err := Make(Options{Bootloader: bootloader.None}, imageWith(config.Config{BootMountSpec: ptr("a b")}), made(true), amd64); err == nil {
		t.Error("a blank in the configuration's boot-mount-spec was accepted")
	}
	for _, bad := range []Options{{RootMountSpec: ptr("a b")}, {BootMountSpec: ptr("a\nb")}, {RootMountSpec: ptr("a;b")}} {
		if err := bad.Validate(); err == nil {
			t.Errorf("%+v accepted", bad)
		}
	}
}

// A boot loader goes wherever there is a place for it, and for this machine's firmware first.
func TestFirmware(t *testing.T) {
	uefi, bios, both := bootloader.Firmware{UEFI: true}, bootloader.Firmware{BIOS: true}, bootloader.Firmware{UEFI: true, BIOS: true}
	for name, c := range map[string]struct {
		place   bootloader.Firmware
		disk    bool // a whole disk, which has a place for everything
		kind    bootloader.Kind
		arch    string
		generic bool
		machine bootloader.Firmware
		want    bootloader.Firmware
		noted   bool
		says    string
	}{
		"both on UEFI":       {place: both, kind: bootloader.GRUB, machine: uefi, want: uefi},
		"both on BIOS":       {place: both, kind: bootloader.GRUB, machine: bios, want: bios},
		"both, generic":      {place: both, kind: bootloader.GRUB, generic: true, machine: bios, want: both},
		"ESP, generic":       {place: uefi, kind: bootloader.GRUB, generic: true, machine: bios, want: uefi},
		"ESP on BIOS":        {place: uefi, kind: bootloader.GRUB, machine: bios, want: uefi, noted: true},
		"BIOS boot on UEFI":  {place: bios, kind: bootloader.GRUB, machine: uefi, want: bios, noted: true},
		"systemd-boot":       {place: both, kind: bootloader.SystemdBoot, machine: bios, want: uefi, noted: true},
		"nothing, and none":  {kind: bootloader.None, machine: uefi},
		"nothing":            {kind: bootloader.GRUB, machine: uefi, says: "on /mnt/boot/efi; for BIOS /mnt must be on a partition; or leave the boot loader to yourself by --bootloader=none"},
		"systemd-boot alone": {place: bios, kind: bootloader.SystemdBoot, machine: uefi, says: "mount the EFI system partition on /mnt/boot/efi; or leave"},
		"foreign":            {place: both, kind: bootloader.GRUB, arch: "arm64", machine: bios, want: uefi},

		"a disk on UEFI":               {disk: true, kind: bootloader.GRUB, machine: uefi, want: uefi},
		"a disk on BIOS":               {disk: true, kind: bootloader.GRUB, machine: bios, want: bios},
		"a disk, generic":              {disk: true, kind: bootloader.GRUB, generic: true, machine: bios, want: both},
		"a disk, systemd-boot":         {disk: true, kind: bootloader.SystemdBoot, machine: bios, want: uefi},
		"a disk, systemd-boot generic": {disk: true, kind: bootloader.SystemdBoot, generic: true, machine: bios, want: uefi},
		"a disk, foreign":              {disk: true, kind: bootloader.SystemdBoot, arch: "arm64", machine: bios, want: uefi},
	} {
		p := made(false)
		if c.place.UEFI {
			p.NoUEFI = ""
		}
		if c.place.BIOS {
			p.NoBIOS = ""
		}
		if c.disk {
			p = newDisk
		}
		arch := c.arch
		if arch == "" {
			arch = "amd64"
		}
		got, note, err := p.chooseFirmware(c.kind, arch, c.generic, Machine{Arch: "amd64", Firmware: c.machine})
		if c.says != "" {
			if !errors.As(err, new(*disk.RefusedError)) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, want %s", name, err, c.says)
			}
			continue
		}
		if err != nil || got != c.want || (note != "") != c.noted {
			t.Errorf("%s: %s, %v, note %q; want %s", name, got, err, note, c.want)
		}
	}
}
