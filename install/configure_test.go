package install

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"installer/disk"
	"installer/install/config"
	"installer/rootfs/bootloader"
	"installer/rootfs/image"
)

func ptr[T any](v T) *T { return &v }

// configured is a run of an image with this configuration.
func configured(o Options, c config.Config) *run {
	r := &run{opts: o, report: &Report{}, observer: func(Event) {}}
	r.source.facts.config = &config.Loaded{Config: c}
	r.source.facts.kargs = &config.Loaded{}
	r.target.rootSpec = "UUID=1-2"
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

// tree makes a directory of files.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// In a container, what its root has goes over what the image has, file by file;
// kernel arguments of the image are the image's alone.
func TestReadConfigInAContainer(t *testing.T) {
	source := tree(t, map[string]string{
		"usr/lib/bootc/install/00.toml": "[install]\nkargs = [\"image\"]\nstateroot = \"image\"",
		"etc/bootc/install/10.toml":     "[install]\nkargs = [\"image-etc\"]",
		"usr/lib/bootc/kargs.d/00.toml": "kargs = [\"kargs-d\"]",
		"etc/selinux/config":            "",
	})
	container := tree(t, map[string]string{
		"usr/lib/bootc/install/00.toml": "[install]\nkargs = [\"container\"]",
		"run/bootc/install/20.toml":     "[install]\nkargs = [\"container-run\"]",
		"usr/lib/bootc/kargs.d/00.toml": "kargs = [\"never\"]",
	})
	for root, want := range map[string]string{"": "image image-etc", container: "container image-etc container-run"} {
		r := configured(Options{Source: image.Ref{Transport: image.TransportRootfs, Name: source}, ConfigRoot: root}, config.Config{})
		img, err := image.Open(t.Context(), r.opts.Source, image.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		r.source.image = img
		inv, err := r.scan(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.readConfig(inv); err != nil {
			t.Fatal(err)
		}
		f := r.source.facts
		if got := strings.Join(f.config.Kargs, " "); got != want || !slices.Equal(f.kargs.Kargs, []string{"kargs-d"}) || !f.selinux {
			t.Errorf("with the root %q: %s and %q", root, got, f.kargs.Kargs)
		}
	}
}
