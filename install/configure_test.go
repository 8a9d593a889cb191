package install

import (
	"slices"
	"strings"
	"testing"

	"installer/disk"
	"installer/install/config"
	"installer/rootfs/bootloader"
)

func ptr[T any](v T) *T { return &v }

// configured is a run of an image with this configuration.
func configured(o Options, c config.Config) *run {
	r := &run{opts: o, report: &Report{}, observer: func(Event) {}}
	r.source.facts.config = &config.Loaded{Config: c}
	r.source.facts.kargs = &config.Loaded{}
	r.target.rootUUID = "1-2"
	return r
}

// The command line wins over the image's configuration, which wins over the defaults.
func TestChoose(t *testing.T) {
	full := config.Config{RootFSType: ptr("ext4"), Bootloader: ptr("systemd"), Stateroot: ptr("image")}
	for name, c := range map[string]struct {
		options Options
		config  config.Config
		want    Options
	}{
		"defaults":      {Options{}, config.Config{}, Options{Filesystem: disk.XFS, Bootloader: bootloader.GRUB, Stateroot: "default", BlockSetup: "direct"}},
		"configuration": {Options{}, full, Options{Filesystem: disk.Ext4, Bootloader: bootloader.SystemdBoot, Stateroot: "image", BlockSetup: "direct"}},
		"command line": {Options{Filesystem: disk.Btrfs, Bootloader: bootloader.None, Stateroot: "mine", BlockSetup: "direct"}, full,
			Options{Filesystem: disk.Btrfs, Bootloader: bootloader.None, Stateroot: "mine", BlockSetup: "direct"}},
	} {
		r := configured(c.options, c.config)
		if err := r.choose(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		o := r.opts
		if o.Filesystem != c.want.Filesystem || o.Bootloader != c.want.Bootloader || o.Stateroot != c.want.Stateroot || o.BlockSetup != c.want.BlockSetup {
			t.Errorf("%s: %+v", name, o)
		}
		if r.report.Disk.Filesystem != o.Filesystem || r.report.Disk.Bootloader != o.Bootloader {
			t.Errorf("%s: the report has %+v", name, r.report.Disk)
		}
	}
	for _, bad := range []config.Config{{Stateroot: ptr("../x")}, {Bootloader: ptr("lilo")}, {Kargs: []string{"a\nb"}}, {KargDeletes: []string{""}}, {Block: []string{}}} {
		if err := configured(Options{}, bad).choose(); err == nil || !strings.Contains(err.Error(), "install configuration: ") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// The root is left to be discovered only where the boot loader says what it started from.
func TestRootKargs(t *testing.T) {
	for name, c := range map[string]struct {
		options Options
		config  config.Config
		selinux bool
		want    string
		notes   int
	}{
		"plain":                        {Options{}, config.Config{}, true, "root=UUID=1-2 rw systemd.gpt_auto=0", 0},
		"systemd-boot":                 {Options{Bootloader: bootloader.SystemdBoot}, config.Config{}, false, "root=UUID=1-2 rw systemd.gpt_auto=0", 0},
		"systemd-boot, discovered":     {Options{Bootloader: bootloader.SystemdBoot}, config.Config{Discoverable: ptr(true)}, false, "rw", 0},
		"grub, discovered":             {Options{}, config.Config{Discoverable: ptr(true)}, false, "root=UUID=1-2 rw systemd.gpt_auto=0", 1},
		"not to be discovered":         {Options{}, config.Config{Discoverable: ptr(false)}, false, "root=UUID=1-2 rw systemd.gpt_auto=0", 0},
		"no SELinux":                   {Options{DisableSELinux: true}, config.Config{}, true, "root=UUID=1-2 rw systemd.gpt_auto=0 selinux=0", 0},
		"SELinux that was never there": {Options{DisableSELinux: true}, config.Config{}, false, "root=UUID=1-2 rw systemd.gpt_auto=0", 1},
	} {
		r := configured(c.options, c.config)
		r.source.facts.selinux = c.selinux
		if err := r.choose(); err != nil {
			t.Fatal(err)
		}
		if err := r.planKargs(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.target.kargs, " "); got != c.want || len(r.report.Notes) != c.notes {
			t.Errorf("%s: %s, notes %q", name, got, r.report.Notes)
		}
	}
}

// Lists of a configuration that is kept must not be written to by those that append to them.
func TestPlanKargsLeavesTheConfiguration(t *testing.T) {
	deletes := append(make([]string, 0, 4), "a")
	r := configured(Options{KargDeletes: []string{"b"}, Kargs: []string{"a", "b", "c"}}, config.Config{KargDeletes: deletes, Kargs: []string{"a", "d"}})
	if err := r.choose(); err != nil {
		t.Fatal(err)
	}
	if err := r.planKargs(); err != nil {
		t.Fatal(err)
	}
	if got := deletes[:2]; got[1] != "" {
		t.Errorf("the configuration was written to: %q", got)
	}
	if want := []string{"root=UUID=1-2", "rw", "systemd.gpt_auto=0", "d", "a", "b", "c"}; !slices.Equal(r.target.kargs, want) {
		t.Errorf("%q, want %q", r.target.kargs, want)
	}
}

func TestSSHTmpfilesLine(t *testing.T) {
	keys := []byte("ssh-ed25519 ABCDE example@demo\n")
	const text = "c3NoLWVkMjU1MTkgQUJDREUgZXhhbXBsZUBkZW1vCg==\n"
	for link, home := range map[string]string{"": "/root", "var/roothome": "/var/roothome", "/var/roothome": "/var/roothome", "../x": "/x"} {
		if got, want := sshTmpfilesLine(link, keys), "f~ "+home+"/.ssh/authorized_keys 600 root root - "+text; got != want {
			t.Errorf("%q: %s", link, got)
		}
	}
	if checkSSHKeys(keys) != nil || checkSSHKeys([]byte("# none\n \n")) == nil || checkSSHKeys(nil) == nil {
		t.Error("a file's keys were not seen, or seen where none are")
	}
}
