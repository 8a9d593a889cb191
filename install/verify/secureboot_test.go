package verify

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"installer/tests/kit"
)

// TestChain is about the programs on an EFI system partition: a changed, missing or revoked one is a
// fault, and one that somebody else has signed, or nobody, is a note.
func TestChain(t *testing.T) {
	tree := kit.SignedTree(t, "bookworm")
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(tree, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	shim, grub := read("usr/lib/shim/shimx64.efi.signed"), read("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed")
	whole := map[string]string{
		"EFI/BOOT/BOOTX64.EFI": shim, "EFI/BOOT/grubx64.efi": grub, "EFI/BOOT/mmx64.efi": read("usr/lib/shim/mmx64.efi.signed"),
		"EFI/debian/shimx64.efi": shim, "EFI/debian/grubx64.efi": grub, "EFI/debian/grub.cfg": "# " + ownConfig + "\n",
	}
	changed := []byte(grub)
	changed[0x3000] ^= 1
	for _, c := range []struct {
		name   string
		change map[string]string // "" is no file
		status Status
		fault  string // part of its place and text
		note   string
	}{
		{"whole", nil, Passed, "", "whether the kernels start while Secure Boot is on is not known"}, // no root is mounted
		{"GRUB changed", map[string]string{"EFI/BOOT/grubx64.efi": string(changed)}, Failed, "ESP:/EFI/BOOT/grubx64.efi: the Secure Boot chain is broken at GRUB", ""},
		{"GRUB cut off", map[string]string{"EFI/debian/grubx64.efi": grub[:1<<20]}, Failed, "ESP:/EFI/debian/grubx64.efi: the Secure Boot chain is broken at GRUB", ""},
		{"no GRUB beside shim", map[string]string{"EFI/BOOT/grubx64.efi": ""}, Failed, "lacks EFI/BOOT/grubx64.efi", ""},
		{"MokManager not signed", map[string]string{"EFI/BOOT/mmx64.efi": read("usr/lib/shim/mmx64.efi")}, Passed, "", "ESP:/EFI/BOOT/mmx64.efi: the disk does not start while Secure Boot is on"},
		{"a loader of another vendor", map[string]string{"EFI/other/shimx64.efi": shim}, Passed, "", "two vendors"},
		{"two different shims", map[string]string{"EFI/debian/shimx64.efi": read("usr/lib/shim/mmx64.efi.signed")}, Passed, "", "two different shims"},
		{"no shim", map[string]string{"EFI/BOOT/grubx64.efi": "", "EFI/debian/shimx64.efi": "", "EFI/debian/grubx64.efi": ""}, NotApplicable, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := maps.Clone(whole)
			maps.Copy(files, c.change)
			f := &findings{found: map[Severity]int{}, result: Check{Name: "secure-boot", Status: Passed}}
			check := chainCheck{findings: f, layout: &layout{fat: fatOf(t, files), esp: &Partition{}, arch: "amd64"}, ctx: t.Context()}
			if err := check.check(); err != nil {
				t.Fatal(err)
			}
			found := func(s Severity, want string) bool {
				return slices.ContainsFunc(f.list, func(f Finding) bool { return f.Severity == s && strings.Contains(f.Where+": "+f.What, want) })
			}
			if f.result.Status != c.status || c.fault != "" && !found(Error, c.fault) || c.note != "" && !found(Note, c.note) || c.fault == "" && found(Error, "") {
				t.Errorf("%s, %v", f.result.Status, f.list)
			}
		})
	}
}
