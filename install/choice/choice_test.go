package choice

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"installer/disk"
	"installer/install/choice/config"
	"installer/rootfs/bootloader"
	"installer/rootfs/deploy"
	"installer/rootfs/image"
)

func ptr[T any](v T) *T { return &v }

// imageWith are the facts of an image with this configuration.
func imageWith(c config.Config) Facts {
	return Facts{Arch: amd64.Arch, Config: &config.Loaded{Config: c}, Kargs: &config.Loaded{}}
}

var amd64 = Machine{Arch: "amd64", Firmware: bootloader.Firmware{UEFI: true}}

// newDisk is a disk on which everything is made.
var newDisk = Place{Path: "/dev/vda", RootUUID: "1-2"}

// The command line wins over the image's configuration, which wins over the defaults.
func TestMake(t *testing.T) {
	full := config.Config{RootFSType: ptr("ext4"), Bootloader: ptr("systemd"), Stateroot: ptr("image")}
	for name, c := range map[string]struct {
		options Options
		config  config.Config
		want    Choice
	}{
		"defaults":      {Options{}, config.Config{}, Choice{Filesystem: disk.XFS, Bootloader: bootloader.GRUB, Stateroot: "default"}},
		"configuration": {Options{}, full, Choice{Filesystem: disk.Ext4, Bootloader: bootloader.SystemdBoot, Stateroot: "image"}},
		"command line": {Options{Filesystem: disk.Btrfs, Bootloader: bootloader.None, Stateroot: "mine", BlockSetup: "direct"}, full,
			Choice{Filesystem: disk.Btrfs, Bootloader: bootloader.None, Stateroot: "mine"}},
	} {
		got, err := Make(c.options, imageWith(c.config), newDisk, amd64)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Filesystem != c.want.Filesystem || got.Bootloader != c.want.Bootloader || got.Stateroot != c.want.Stateroot {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, bad := range []config.Config{{Stateroot: ptr("../x")}, {Bootloader: ptr("lilo")}, {Kargs: []string{"a\nb"}}, {KargDeletes: []string{""}}, {Block: []string{}}} {
		if _, err := Make(Options{}, imageWith(bad), newDisk, amd64); err == nil || !strings.Contains(err.Error(), "install configuration: ") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// The initramfs is left to find the root only where the boot loader passes on its own partition.
func TestRootKargs(t *testing.T) {
	for name, c := range map[string]struct {
		options Options
		config  config.Config
		selinux bool
		want    string
		notes   int
	}{
		"plain, with SELinux":          {Options{}, config.Config{}, true, "root=UUID=1-2 rw systemd.gpt_auto=0", 0},
		"systemd-boot":                 {Options{Bootloader: bootloader.SystemdBoot}, config.Config{}, false, "root=UUID=1-2 rw systemd.gpt_auto=0", 0},
		"systemd-boot, discovered":     {Options{Bootloader: bootloader.SystemdBoot}, config.Config{Discoverable: ptr(true)}, false, "rw", 0},
		"grub, discovered":             {Options{}, config.Config{Discoverable: ptr(true)}, false, "root=UUID=1-2 rw systemd.gpt_auto=0", 1},
		"not to be discovered":         {Options{}, config.Config{Discoverable: ptr(false)}, false, "root=UUID=1-2 rw systemd.gpt_auto=0", 0},
		"no SELinux":                   {Options{DisableSELinux: true}, config.Config{}, true, "root=UUID=1-2 rw systemd.gpt_auto=0 selinux=0", 0},
		"SELinux that was never there": {Options{DisableSELinux: true}, config.Config{}, false, "root=UUID=1-2 rw systemd.gpt_auto=0", 1},
	} {
		f := imageWith(c.config)
		f.SELinux = c.selinux
		got, err := Make(c.options, f, newDisk, amd64)
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(got.Kargs, " "); text != c.want || len(got.Notes) != c.notes {
			t.Errorf("%s: %s, notes %q", name, text, got.Notes)
		}
	}
}

// Lists of a configuration that is kept must not be written to by those that append to them.
func TestMakeLeavesTheConfiguration(t *testing.T) {
	deletes := append(make([]string, 0, 4), "a")
	o := Options{KargDeletes: []string{"b"}, Kargs: []string{"a", "b", "c"}}
	got, err := Make(o, imageWith(config.Config{KargDeletes: deletes, Kargs: []string{"a", "d"}}), newDisk, amd64)
	if err != nil {
		t.Fatal(err)
	}
	if after := deletes[:2]; after[1] != "" {
		t.Errorf("the configuration was written to: %q", after)
	}
	if want := []string{"root=UUID=1-2", "rw", "systemd.gpt_auto=0", "d", "a", "b", "c"}; !slices.Equal(got.Kargs, want) {
		t.Errorf("%q, want %q", got.Kargs, want)
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
}

// The keys were made by ssh-keygen; a file without one is refused, whatever else it holds.
func TestCheckSSHKeys(t *testing.T) {
	const (
		ed25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMARgZZefO/Mw4W1s4vdODA5SEGBybNwzy97XJ1AusWu root@vm"
		ecdsa   = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBNomVnC1EyrRU3Umtp9ylbmj5q/y7IoAPiZvI5DCrzQ031AXosxE1ac5sAGMb1Yx950hpu4mUcpU2oKhIJ3G6ZQ= root@vm"
	)
	for text, want := range map[string]struct {
		refused bool
		noted   string
	}{
		ed25519:             {},
		ecdsa:               {},
		"# a\n\n" + ed25519: {},
		`from="10.0.0.1",command="echo a b" ` + ed25519: {},
		"no-pty " + ed25519 + "\n":                      {},
		"sk-ssh-ed25519@openssh.com AAAA me":            {noted: "1 line"},
		"ssh-ed25519 ABCDE example@demo":                {noted: "1 line"},
		"ssh-ed25519 ABCDE\n" + ed25519 + "\nssh-rsa x": {noted: "2 lines"},
		"ssh-rsa " + strings.Fields(ed25519)[1]:         {noted: "1 line"}, // the type is another
		"hello":                                         {refused: true},
		"":                                              {refused: true},
		"# none\n \n":                                   {refused: true},
		"# " + ed25519:                                  {refused: true},
		strings.Fields(ecdsa)[0]:                        {refused: true},
		"<html>\n<p>ssh keys</p>":                       {refused: true},
		"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n": {refused: true},
		ed25519 + "\n-----BEGIN RSA PRIVATE KEY-----":            {refused: true},
	} {
		if err := checkSSHKeys([]byte(text)); (err != nil) != want.refused {
			t.Errorf("%q: %v", text, err)
		}
		if note := noteKeys([]byte(text)); (note != "") != (want.noted != "") || !strings.Contains(note, want.noted) {
			t.Errorf("%q: note %q, want %q", text, note, want.noted)
		}
	}
	if checkSSHKeys(nil) == nil {
		t.Error("no content was taken for a key")
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

// In a container, the configuration of its root goes over the image's, file by file; kernel
// arguments of the image are the image's alone.
func TestReadFactsInAContainer(t *testing.T) {
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
	ref := image.Ref{Transport: image.TransportRootfs, Name: source}
	img, err := image.Open(t.Context(), ref, image.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	inv, err := img.Scan(t.Context(), image.ScanOptions{Files: FactFiles()})
	if err != nil {
		t.Fatal(err)
	}
	for want, over := range map[string][]fs.FS{"image image-etc": nil, "container image-etc container-run": {os.DirFS(container)}} {
		f, err := ReadFacts(ref, "amd64", inv, over...)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(f.Config.Kargs, " "); got != want || !slices.Equal(f.Kargs.Kargs, []string{"kargs-d"}) || !f.SELinux {
			t.Errorf("with %d roots over it: %s and %q", len(over), got, f.Kargs.Kargs)
		}
	}
}

// Where a link, or another file, is in the place of a directory that is written to, the image is
// refused before the first write.
func TestFilesThatCannotBeWritten(t *testing.T) {
	dir := func(children map[string]*image.Node) *image.Node {
		return &image.Node{Meta: image.Meta{Mode: 0o40755}, Children: children}
	}
	file, link, fifo := &image.Node{Meta: image.Meta{Mode: 0o100644}}, &image.Node{Meta: image.Meta{Mode: 0o120777}, Target: "/x"}, &image.Node{Meta: image.Meta{Mode: 0o10644}}
	type nodes = map[string]*image.Node
	for name, c := range map[string]struct {
		etc     *image.Node
		refused bool
	}{
		"nothing":                {dir(nil), false},
		"directories":            {dir(nodes{"tmpfiles.d": dir(nil), "fstab": file}), false},
		"links that are files":   {dir(nodes{"tmpfiles.d": dir(nodes{"bootc-root-ssh.conf": link}), "fstab": link}), false},
		"etc is a link":          {link, true},
		"tmpfiles.d is a link":   {dir(nodes{"tmpfiles.d": link}), true},
		"tmpfiles.d is a file":   {dir(nodes{"tmpfiles.d": file}), true},
		"the keys are a dir":     {dir(nodes{"tmpfiles.d": dir(nodes{"bootc-root-ssh.conf": dir(nil)})}), true},
		"fstab is a directory":   {dir(nodes{"fstab": dir(nil)}), true},
		"fstab is a fifo":        {dir(nodes{"fstab": fifo}), true},
		"fstab is too large":     {dir(nodes{"fstab": {Meta: image.Meta{Mode: 0o100644}, Size: MaxFstab + 1}}), true},
		"tmpfiles.d has another": {dir(nodes{"tmpfiles.d": dir(nodes{"x": link})}), false},
	} {
		f := imageWith(config.Config{})
		f.tree = &image.Tree{Root: dir(nodes{"usr": dir(nodes{"etc": c.etc})})}
		o := Options{Bootloader: bootloader.None, RootSSHKeys: []byte("ssh-x AAAABXNzaC14AAA=")}
		if _, err := Make(o, f, made(true), amd64); (err != nil) != c.refused || err != nil && !errors.As(err, new(*image.SourceError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// How the initramfs makes the root decides over the file system, and refuses files that no start
// would see.
func TestRootSettings(t *testing.T) {
	facts := func(change func(*deploy.RootSettings)) Facts {
		f := imageWith(config.Config{})
		change(&f.Root)
		return f
	}
	verity := facts(func(s *deploy.RootSettings) { s.Composefs, s.Verity = deploy.ComposefsYes, true })
	for name, c := range map[string]struct {
		options Options
		facts   Facts
		want    disk.Filesystem
		verity  bool
	}{
		"verity":    {Options{}, verity, disk.Ext4, true},
		"by choice": {Options{Filesystem: disk.Btrfs}, verity, disk.Btrfs, true},
		"off":       {Options{Filesystem: disk.XFS, Kargs: []string{"ostree.prepare-root.composefs=0"}}, verity, disk.XFS, false},
	} {
		got, err := Make(c.options, c.facts, newDisk, amd64)
		if err != nil || got.Filesystem != c.want || got.Root.Verity != c.verity {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	transient := facts(func(s *deploy.RootSettings) { s.TransientEtc = true })
	transient.RootLink = "var/roothome"
	if _, err := Make(Options{RootSSHKeys: []byte("ssh-ed25519 A\n")}, transient, newDisk, amd64); err == nil || !strings.Contains(err.Error(), "etc.transient") {
		t.Errorf("keys in an /etc that no start sees: %v", err)
	}
	var refused *deploy.PrepareRootError
	if _, err := Make(Options{}, facts(func(s *deploy.RootSettings) { s.TransientRoot = true }), newDisk, amd64); !errors.As(err, &refused) {
		t.Errorf("a transient root without composefs: %v", err)
	}
}
