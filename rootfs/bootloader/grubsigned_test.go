package bootloader

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"installer/rootfs/bootloader/efi"
	"installer/tests/kit"
)

// signedGRUB returns the content of Debian's signed GRUB of a suite.
func signedGRUB(t *testing.T, suite string) *efi.GRUB {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(kit.SignedTree(t, suite), "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"))
	if err != nil {
		t.Fatal(err)
	}
	image, err := efi.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	grub, err := image.GRUB()
	if err != nil {
		t.Fatal(err)
	}
	return grub
}

// TestSignedConfig is about the configuration that fits the modules of a signed GRUB.
func TestSignedConfig(t *testing.T) {
	debian := signedGRUB(t, "trixie")
	with := func(more string) *efi.GRUB { return &efi.GRUB{Modules: append(slices.Clone(debian.Modules), more)} }
	for _, c := range []struct {
		name      string
		grub      *efi.GRUB
		has, lack string
	}{
		{"Debian's", debian, `add_number "$ten$one"`, "blscfg"},
		{"Fedora's", with("blscfg"), "\n  blscfg\n", "menuentry"},
		{"GRUB's own", with("blsuki"), "\n  blscfg --path \"$blsdir\"\n", "menuentry"},
	} {
		files, err := SignedConfig(c.grub, rootUUID, 3)
		if err != nil {
			t.Fatal(err)
		}
		text := string(files["grub.cfg"])
		if quiet := files["quiet.mo"] != nil; quiet != strings.Contains(text, "lang=quiet") {
			t.Errorf("%s: a translation of errors is there: %v", c.name, quiet)
		}
		if !strings.Contains(text, c.has) || strings.Contains(text, c.lack) || !strings.Contains(text, `--hint "$disk,gpt3" `+rootUUID+`;`) {
			t.Errorf("%s:\n%s", c.name, text)
		}
		// A signed GRUB loads no module, and has no eval.
		if found := regexp.MustCompile(`@[A-Z]+@|(?m)^\s*(insmod|eval) `).FindString(text); found != "" {
			t.Errorf("%s: the configuration has %q", c.name, found)
		}
		check := exec.Command("grub-script-check")
		check.Stdin = strings.NewReader(text)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: grub-script-check: %v\n%s", c.name, err, out)
		}
		if _, err := SignedConfig(c.grub, `x" y`, 0); err == nil {
			t.Errorf("%s: a UUID that is none is taken", c.name)
		}
	}
	if files, err := SignedConfig(debian, rootUUID, 0); err != nil || strings.Contains(string(files["grub.cfg"]), "--hint") {
		t.Errorf("a partition that is not known: %v\n%s", err, files["grub.cfg"])
	}
}

// TestCheckSignedGRUB holds the commands of the configurations against the list of modules.
func TestCheckSignedGRUB(t *testing.T) {
	for _, suite := range []string{"bookworm", "trixie"} {
		grub := signedGRUB(t, suite)
		for _, filesystem := range []string{"", "ext4", "xfs", "btrfs"} {
			if err := CheckSignedGRUB(grub, "amd64", filesystem); err != nil {
				t.Errorf("%s, %s: %v", suite, filesystem, err)
			}
		}
		for _, gone := range []string{"regexp", "xfs", "linux", "search_fs_uuid", "gettext"} {
			less := &efi.GRUB{Modules: slices.DeleteFunc(slices.Clone(grub.Modules), func(m string) bool { return m == gone })}
			var missing *ModuleError
			if err := CheckSignedGRUB(less, "amd64", "xfs"); !errors.As(err, &missing) || missing.Module != gone {
				t.Errorf("%s without %s: %v", suite, gone, err)
			}
		}
	}
}

func TestCheckSignedArguments(t *testing.T) {
	script, bls := &efi.GRUB{}, &efi.GRUB{Modules: []string{"blscfg"}}
	for arg, carried := range map[string]bool{"rw": true, "a=b,c": true, `a="b"`: false, `a="b c"`: false, "a=$x": false} {
		if err := CheckSignedArguments(script, []string{"quiet", arg}); (err == nil) != carried {
			t.Errorf("%s: %v", arg, err)
		}
		if err := CheckSignedArguments(bls, []string{arg}); err != nil {
			t.Errorf("%s with blscfg: %v", arg, err)
		}
	}
}
