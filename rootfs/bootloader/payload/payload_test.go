package payload

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"installer/rootfs/bootloader/efi"
	"installer/tests/kit"
)

// Debian's signed programs.
const (
	shimFile     = "usr/lib/shim/shimx64.efi.signed"
	managerFile  = "usr/lib/shim/mmx64.efi.signed"
	fallbackFile = "usr/lib/shim/fbx64.efi.signed"
	csvFile      = "usr/lib/shim/BOOTX64.CSV"
	grubFile     = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
	systemdFile  = "usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed"
)

// debianTree is a tree with the files of Debian's packages.
func debianTree(t testing.TB) fstest.MapFS {
	t.Helper()
	tree := fstest.MapFS{}
	for _, name := range []string{shimFile, managerFile, fallbackFile, csvFile, grubFile, systemdFile, "usr/lib/shim/shimx64.efi"} {
		tree[name] = &fstest.MapFile{Data: content(t, name)}
	}
	return tree
}

func content(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(kit.SignedTree(t, "trixie"), name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// bootupdFiles are the files that the real bootupd has left on an EFI system partition, without
// configurations, and the program of Debian that each is.
var bootupdFiles = map[string]string{
	"EFI/BOOT/BOOTX64.EFI":   shimFile,
	"EFI/BOOT/fbx64.efi":     fallbackFile,
	"EFI/BOOT/mmx64.efi":     managerFile,
	"EFI/debian/BOOTX64.CSV": csvFile,
	"EFI/debian/fbx64.efi":   fallbackFile,
	"EFI/debian/grubx64.efi": grubFile,
	"EFI/debian/mmx64.efi":   managerFile,
	"EFI/debian/shimx64.efi": shimFile,
}

// bootupdTree is a tree with bootupd's files: in one directory, or by component.
func bootupdTree(t testing.TB, place func(name string) string) fstest.MapFS {
	t.Helper()
	tree := fstest.MapFS{}
	for name, from := range bootupdFiles {
		tree[place(name)] = &fstest.MapFile{Data: content(t, from)}
	}
	return tree
}

func inUpdates(name string) string { return "usr/lib/bootupd/updates/" + name }
func inOSTree(name string) string  { return "usr/lib/ostree-boot/efi/" + name }
func inComponents(name string) string {
	if strings.Contains(name, "grub") {
		return "usr/lib/efi/grub2/1+2.14+4/" + name
	}
	return "usr/lib/efi/shim/1.51+16.1-2/" + name
}

func places(p *Payload) []string {
	var names []string
	for _, f := range p.Files {
		names = append(names, f.To)
	}
	return names
}

// TestSources is about the source that is taken, its files and versions. Each chain starts.
func TestSources(t *testing.T) {
	all := slices.SortedFunc(maps.Keys(bootupdFiles), func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	// Without the fallback in BOOT, with the loader there.
	debianPlaces := slices.Clone(all)
	debianPlaces[slices.Index(all, "EFI/BOOT/fbx64.efi")] = "EFI/BOOT/grubx64.efi"
	for _, c := range []struct {
		name   string
		tree   fstest.MapFS
		loader Loader
		source Source
		places []string
	}{
		{"components", bootupdTree(t, inComponents), GRUB, Components, all},
		{"updates", bootupdTree(t, inUpdates), GRUB, Updates, all},
		{"ostree", bootupdTree(t, inOSTree), GRUB, OSTreeBoot, all},
		{"packages", debianTree(t), GRUB, Packages, debianPlaces},
		{"systemd-boot", debianTree(t), SystemdBoot, Packages,
			[]string{"EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi", "EFI/BOOT/mmx64.efi", "EFI/systemd/systemd-bootx64.efi"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Find(TreeOf(c.tree), "amd64", c.loader)
			if err != nil {
				t.Fatal(err)
			}
			if p.Source != c.source || !slices.Equal(places(p), c.places) {
				t.Errorf("%s with %q; want %s with %q", p.Source, places(p), c.source, c.places)
			}
			if c.loader == GRUB && (p.Vendor != "debian" || !p.GRUB.Has("linux")) {
				t.Errorf("vendor %q, GRUB %v", p.Vendor, p.GRUB)
			}
			for _, f := range p.Files {
				if want, ok := bootupdFiles[f.To]; ok && c.loader == GRUB && !bytes.Equal(c.tree[f.From].Data, content(t, want)) {
					t.Errorf("%s is not %s", f.To, want)
				}
			}
			chain, err := p.Chain(TreeOf(c.tree), efi.Microsoft())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := chain.Verify(); err != nil || len(chain.Loaders) < 2 {
				t.Errorf("%d loaders: %v", len(chain.Loaders), err)
			}
			checkInstalled(t, c.tree, p)
		})
	}
}

// TestOrder has everything in one image.
func TestOrder(t *testing.T) {
	tree := debianTree(t)
	for _, place := range []func(string) string{inOSTree, inUpdates, inComponents} {
		for name, file := range bootupdTree(t, place) {
			tree[name] = file
		}
	}
	var got []Source
	for _, gone := range []string{"", "usr/lib/efi/", "usr/lib/bootupd/", "usr/lib/shim/"} {
		for name := range tree {
			if gone != "" && strings.HasPrefix(name, gone) {
				delete(tree, name)
			}
		}
		p, err := Find(TreeOf(tree), "amd64", GRUB)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p.Source)
	}
	if want := []Source{Components, Updates, Packages, OSTreeBoot}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestIncomplete is about images that lack a file: the reason names it and the package with it.
func TestIncomplete(t *testing.T) {
	ubuntu := debianTree(t)
	ubuntu[shimFile+".latest"] = ubuntu[shimFile]
	delete(ubuntu, shimFile)
	if p, err := Find(TreeOf(ubuntu), "amd64", GRUB); err != nil || p.Source != Packages {
		t.Errorf("shim under another name: %v", err)
	}
	for _, c := range []struct {
		name, gone string
		tree       fstest.MapFS
		loader     Loader
		want       []string
	}{
		{"nothing", "", fstest.MapFS{}, GRUB, []string{"no signed GRUB", "shim-signed", "shim-helpers-amd64-signed", "grub-efi-amd64-signed (Debian)", "shim-x64, grub2-efi-x64 (Fedora, CentOS)"}},
		{"not signed", "", fstest.MapFS{"usr/lib/shim/shimx64.efi": {}}, GRUB, []string{"no signed GRUB with a shim: add"}},
		{"no shim", shimFile, debianTree(t), GRUB, []string{"/" + shimFile, "shim-signed (Debian)"}},
		{"no GRUB", grubFile, debianTree(t), GRUB, []string{"/" + grubFile, "grub-efi-amd64-signed (Debian)"}},
		{"no MokManager", managerFile, debianTree(t), GRUB, []string{"/" + managerFile, "shim-helpers-amd64-signed (Debian)"}},
		{"no systemd-boot", systemdFile, debianTree(t), SystemdBoot, []string{"/" + systemdFile, "systemd-boot-efi-amd64-signed (Debian)"}},
		{"systemd-boot of bootupd", "", bootupdTree(t, inUpdates), SystemdBoot, []string{"no signed systemd-boot"}},
		{"bootupd without GRUB", inUpdates("EFI/debian/grubx64.efi"), bootupdTree(t, inUpdates), GRUB, []string{"EFI/debian/grubx64.efi", "grub2-efi-x64 (Fedora, CentOS)"}},
		{"bootupd without BOOT", inComponents("EFI/BOOT/BOOTX64.EFI"), bootupdTree(t, inComponents), GRUB, []string{"EFI/BOOT/BOOTX64.EFI", "shim-x64"}},
		{"bootupd without CSV", inUpdates("EFI/debian/BOOTX64.CSV"), bootupdTree(t, inUpdates), GRUB, []string{"EFI/debian/BOOTX64.CSV"}},
		{"neither fallback nor loader", inUpdates("EFI/BOOT/fbx64.efi"), bootupdTree(t, inUpdates), GRUB, []string{"EFI/BOOT/grubx64.efi"}},
		{"bootupd without shim", inUpdates("EFI/debian/shimx64.efi"), bootupdTree(t, inUpdates), GRUB, []string{"EFI/VENDOR/shimx64.efi"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			delete(c.tree, c.gone)
			_, err := Find(TreeOf(c.tree), "amd64", c.loader)
			var none *NoneError
			if !errors.As(err, &none) {
				t.Fatalf("error %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not have %q", err, want)
				}
			}
		})
	}
	if _, err := Find(TreeOf(debianTree(t)), "arm64", GRUB); !strings.Contains(err.Error(), "grub-efi-arm64-signed (Debian)") {
		t.Errorf("for another machine: %v", err)
	}
}

// TestContradictions is about files of which no one system can be made.
func TestContradictions(t *testing.T) {
	link := &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("grubx64.efi")}
	for _, c := range []struct {
		name, add string
		file      *fstest.MapFile
		want      string
	}{
		{"two vendors", inComponents("EFI/other/shimx64.efi"), &fstest.MapFile{}, "two vendors"},
		{"two versions", "usr/lib/efi/shim/2/EFI/BOOT/x", &fstest.MapFile{}, "two versions, 1.51+16.1-2 and 2"},
		{"a link", inComponents("EFI/debian/link"), link, "not a regular file"},
		{"two cases", inUpdates("EFI/debian/GRUBX64.EFI"), &fstest.MapFile{}, "one file on the EFI system partition"},
	} {
		t.Run(c.name, func(t *testing.T) {
			place := inComponents
			if strings.HasPrefix(c.add, "usr/lib/bootupd") {
				place = inUpdates
			}
			tree := bootupdTree(t, place)
			tree[c.add] = c.file
			_, err := Find(TreeOf(tree), "amd64", GRUB)
			var none *NoneError
			if !errors.As(err, &none) {
				t.Fatalf("error %v", err)
			}
			var layout *LayoutError
			found := slices.ContainsFunc(none.Passed, func(p Passed) bool {
				return errors.As(p.Reason, &layout) && strings.Contains(layout.Reason, c.want)
			})
			if !found {
				t.Errorf("error %v", err)
			}
		})
	}
	// A GRUB that reads its configuration in another directory than shim's.
	tree := fstest.MapFS{}
	for name, file := range bootupdTree(t, inUpdates) {
		tree[strings.ReplaceAll(name, "EFI/debian", "EFI/derived")] = file
	}
	if _, err := Find(TreeOf(tree), "amd64", GRUB); err == nil || !strings.Contains(err.Error(), "/EFI/debian") {
		t.Errorf("a GRUB of another directory: %v", err)
	}
	tree = bootupdTree(t, inUpdates)
	tree[inUpdates("EFI/debian/shimx64.efi")] = tree[inUpdates("EFI/debian/mmx64.efi")]
	p, err := Find(TreeOf(tree), "amd64", GRUB)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Chain(TreeOf(tree), efi.Microsoft()); err == nil || !strings.Contains(err.Error(), "two different shims") {
		t.Errorf("two shims: %v", err)
	}
}

// checkInstalled puts a payload on a partition, and finds it there. A changed byte breaks the chain.
func checkInstalled(t *testing.T, tree fstest.MapFS, p *Payload) {
	t.Helper()
	esp := fstest.MapFS{path.Join("EFI", p.Vendor, "grub.cfg"): {Data: []byte("x")}}
	for _, f := range p.Files {
		esp[f.To] = &fstest.MapFile{Data: bytes.Clone(tree[f.From].Data)}
	}
	verify := func() error {
		found, err := Installed(TreeOf(esp), slices.Collect(maps.Keys(esp)), "amd64", p.Loader)
		if err != nil {
			return err
		}
		if found.Vendor != p.Vendor {
			t.Errorf("vendor %q on the partition, want %q", found.Vendor, p.Vendor)
		}
		chain, err := found.Chain(TreeOf(esp), efi.Microsoft())
		if err == nil {
			_, err = chain.Verify()
		}
		return err
	}
	if err := verify(); err != nil {
		t.Errorf("on the partition: %v", err)
	}
	loader := "EFI/BOOT/grubx64.efi"
	if esp[loader] == nil {
		loader = "EFI/debian/grubx64.efi"
	}
	esp[loader].Data[0x3000] ^= 1
	var link *efi.LinkError
	if err := verify(); !errors.Is(err, efi.ErrChanged) || !errors.As(err, &link) || link.Program.Path != "/"+loader {
		t.Errorf("%s with a changed byte: %v", loader, err)
	}
	delete(esp, loader)
	var missing *MissingError
	if err := verify(); !errors.As(err, &missing) || missing.Path != loader {
		t.Errorf("without %s: %v", loader, err)
	}
}

// TestIsProgram looks for programs that a scan would not look at.
func TestIsProgram(t *testing.T) {
	for _, tree := range []fstest.MapFS{debianTree(t), bootupdTree(t, inComponents), bootupdTree(t, inUpdates), bootupdTree(t, inOSTree)} {
		looked := TreeOf(tree)
		looked.Program = func(name string) (efi.Program, error) {
			if !IsProgram(name) {
				t.Errorf("/%s is not known as a program", name)
			}
			return TreeOf(tree).Program(name)
		}
		p, err := Find(looked, "amd64", GRUB)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Chain(looked, efi.Microsoft()); err != nil {
			t.Error(err)
		}
	}
	for name, want := range map[string]bool{"usr/lib/shim/shimx64.efi.signed.latest": true, "EFI/BOOT/BOOTX64.EFI": true, "usr/lib/shim/BOOTX64.CSV": false} {
		if IsProgram(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
