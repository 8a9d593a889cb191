package efi

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"installer/tests/kit"
)

const amd64 = 0x8664

// Paths of Debian's signed programs.
const (
	shimPath    = "usr/lib/shim/shimx64.efi.signed"
	managerPath = "usr/lib/shim/mmx64.efi.signed"
	grubPath    = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
	systemdPath = "usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed"
)

func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	return must(os.ReadFile(path))(t)
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func kernelPath(t testing.TB, tree string) string {
	t.Helper()
	found, err := filepath.Glob(tree + "/boot/vmlinuz-*")
	if err != nil || len(found) != 1 {
		t.Fatalf("kernels of %s: %v, %v", tree, found, err)
	}
	return found[0]
}

// link is a program as a scan meets it.
func link(t testing.TB, name, path string, data []byte) Program {
	t.Helper()
	p := must(Look(bytes.NewReader(data)))(t)
	p.Name, p.Path = name, path
	return p
}

// debian is the chain of a suite, as its packages have it.
func debian(t testing.TB, suite string) Chain {
	t.Helper()
	tree := kit.SignedTree(t, suite)
	program := func(name, path string) Program { return link(t, name, path, read(t, filepath.Join(tree, path))) }
	kernel := kernelPath(t, tree)
	return Chain{
		Firmware: Microsoft(),
		Machine:  amd64,
		Shim:     program("shim", shimPath),
		Loaders:  []Program{program("GRUB", grubPath), program("MokManager", managerPath)},
		Kernels:  []Program{link(t, "the kernel", kernel, read(t, kernel))},
	}
}

// TestDebian is about the chains that Debian ships.
func TestDebian(t *testing.T) {
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			chain := debian(t, suite)
			verified := must(chain.Verify())(t)
			var names []string
			for _, c := range slices.Concat(verified.Authorities, verified.Vendor) {
				names = append(names, c.Subject.CommonName)
			}
			want := []string{"Microsoft Corporation UEFI CA 2011", "Microsoft UEFI CA 2023", "Debian Secure Boot CA"}
			if !slices.Equal(names, want) {
				t.Errorf("the chain leads to %q, want %q", names, want)
			}
			// The certificate in shim is that of Debian's package.
			der := read(t, filepath.Join(kit.SignedTree(t, suite), "usr/share/shim/debian-uefi-ca.der"))
			if !bytes.Equal(verified.Vendor[0].Raw, der) {
				t.Error("shim's certificate is not the one beside it in its package")
			}
		})
	}
	tree := kit.SignedTree(t, "trixie")
	chain := debian(t, "trixie")
	chain.Loaders = []Program{link(t, "systemd-boot", systemdPath, read(t, filepath.Join(tree, systemdPath)))}
	must(chain.Verify())(t)
}

// TestDigest compares with pesign, which computes the digest by itself. Of an unsigned program whose
// size is no multiple of 8, pesign 116 hashes the bytes to which signing would lengthen it, where
// pesign 0.112 and firmware hash the file as it is: there is none here.
func TestDigest(t *testing.T) {
	tree := kit.SignedTree(t, "trixie")
	for _, path := range []string{
		shimPath, managerPath, grubPath, systemdPath, "usr/lib/shim/fbx64.efi", "usr/lib/shim/fbx64.efi.signed",
		strings.TrimPrefix(kernelPath(t, tree), tree+"/"),
	} {
		file := filepath.Join(tree, path)
		digest := must(parse(read(t, file)))(t).digest(crypto.SHA256)
		if want := run(t, "pesign", "--hash", "--in", file); !strings.Contains(want, hex.EncodeToString(digest)) {
			t.Errorf("%s: digest %x, and pesign says %s", path, digest, want)
		}
	}
}

// TestBroken is about chains that do not start: the first link that is at fault is named.
func TestBroken(t *testing.T) {
	whole, tree := debian(t, "trixie"), kit.SignedTree(t, "trixie")
	content := func(p Program) []byte { return read(t, filepath.Join(tree, strings.TrimPrefix(p.Path, tree))) }
	again := func(p Program, data []byte) Program { return link(t, p.Name, p.Path, data) }
	flip := func(p Program, at int) Program {
		data := content(p)
		data[at] ^= 1
		return again(p, data)
	}
	unsigned := func(p Program) Program {
		dir := t.TempDir()
		must(0, os.WriteFile(dir+"/in", content(p), 0o600))(t)
		for run(t, "sbattach", "--remove", dir+"/in"); signed(t, dir+"/in"); {
			run(t, "sbattach", "--remove", dir+"/in")
		}
		return again(p, read(t, dir+"/in"))
	}
	cut := func(p Program) Program { return again(p, content(p)[:0x8000]) }
	longer := func(p Program) Program { return again(p, append(content(p), 0)) }
	none := func(p Program) Program { return Program{Name: p.Name, Path: p.Path} }
	var untrusted *UntrustedError
	var machine *MachineError
	for _, c := range []struct {
		name, link string
		change     func(*Chain)
		is         error
		as         any
	}{
		{"no shim", "shim", func(c *Chain) { c.Shim = none(c.Shim) }, ErrMissing, nil},
		{"no GRUB", "GRUB", func(c *Chain) { c.Loaders[0] = none(c.Loaders[0]) }, ErrMissing, nil},
		{"no kernel", "the kernel", func(c *Chain) { c.Kernels[0] = none(c.Kernels[0]) }, ErrMissing, nil},
		{"shim changed", "shim", func(c *Chain) { c.Shim = flip(c.Shim, 0x21000) }, ErrChanged, nil},
		{"GRUB changed", "GRUB", func(c *Chain) { c.Loaders[0] = flip(c.Loaders[0], 0x2000) }, ErrChanged, nil},
		{"MokManager changed", "MokManager", func(c *Chain) { c.Loaders[1] = flip(c.Loaders[1], 0x20000) }, ErrChanged, nil},
		{"kernel changed at its end", "the kernel", func(c *Chain) { c.Kernels[0] = flip(c.Kernels[0], 0xb00000) }, ErrChanged, nil},
		{"shim unsigned", "shim", func(c *Chain) { c.Shim = unsigned(c.Shim) }, ErrUnsigned, nil},
		{"GRUB unsigned", "GRUB", func(c *Chain) { c.Loaders[0] = unsigned(c.Loaders[0]) }, ErrUnsigned, nil},
		{"kernel unsigned", "the kernel", func(c *Chain) { c.Kernels[0] = unsigned(c.Kernels[0]) }, ErrUnsigned, nil},
		{"GRUB cut off", "GRUB", func(c *Chain) { c.Loaders[0] = cut(c.Loaders[0]) }, nil, new(error)},
		{"GRUB with a byte more", "GRUB", func(c *Chain) { c.Loaders[0] = longer(c.Loaders[0]) }, nil, new(error)},
		{"no program", "GRUB", func(c *Chain) { c.Loaders[0] = again(c.Loaders[0], []byte("MZ")) }, nil, new(error)},
		{"shim by Debian", "shim", func(c *Chain) { c.Shim.Image = c.Loaders[1].Image }, nil, &untrusted},
		{"GRUB for shim", "shim", func(c *Chain) { c.Firmware = debianTrust(t); c.Shim.Image = c.Loaders[0].Image }, ErrNotShim, nil},
		{"firmware without Microsoft", "shim", func(c *Chain) { c.Firmware = debianTrust(t) }, nil, &untrusted},
		{"kernel for GRUB", "GRUB", func(c *Chain) { c.Loaders[0].Image = c.Kernels[0].Image }, ErrNoSBAT, nil},
		{"another machine", "shim", func(c *Chain) { c.Machine = 0xaa64 }, nil, &machine},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain := whole
			chain.Loaders, chain.Kernels = slices.Clone(whole.Loaders), slices.Clone(whole.Kernels)
			c.change(&chain)
			_, err := chain.Verify()
			var link *LinkError
			if !errors.As(err, &link) || link.Program.Name != c.link {
				t.Fatalf("error %v, want one of %s", err, c.link)
			}
			if c.is != nil && !errors.Is(err, c.is) || c.as != nil && !errors.As(err, c.as) {
				t.Errorf("error %v, want %v %T", err, c.is, c.as)
			}
		})
	}
}

func signed(t testing.TB, file string) bool {
	t.Helper()
	return must(parse(read(t, file)))(t).table.Size != 0
}

func debianTrust(t testing.TB) Trust {
	t.Helper()
	der := read(t, filepath.Join(kit.SignedTree(t, "trixie"), "usr/share/shim/debian-uefi-ca.der"))
	return Trust{Certificates: []*x509.Certificate{must(x509.ParseCertificate(der))(t)}}
}

// authority makes a key with a certificate, and signs by sbsign.
func authority(t testing.TB) (Trust, func([]byte) []byte) {
	t.Helper()
	dir := t.TempDir()
	run(t, "openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=Made up", "-days", "1",
		"-keyout", dir+"/key", "-out", dir+"/cert")
	block, _ := pem.Decode(read(t, dir+"/cert"))
	certificate := must(x509.ParseCertificate(block.Bytes))(t)
	return Trust{Certificates: []*x509.Certificate{certificate}}, func(data []byte) []byte {
		must(0, os.WriteFile(dir+"/in", data, 0o600))(t)
		run(t, "sbsign", "--key", dir+"/key", "--cert", dir+"/cert", "--output", dir+"/out", dir+"/in")
		run(t, "sbverify", "--cert", dir+"/cert", dir+"/out")
		return read(t, dir+"/out")
	}
}

// TestSigned is about programs that sbsign signs.
func TestSigned(t *testing.T) {
	trust, sign := authority(t)
	other, _ := authority(t)
	unsigned := read(t, filepath.Join(kit.SignedTree(t, "trixie"), "usr/lib/shim/fbx64.efi"))
	image := must(Parse(sign(unsigned)))(t)
	if chains := must(image.Verify(trust))(t); len(chains) != 1 || !chains[0][0].Equal(trust.Certificates[0]) {
		t.Errorf("signed by %v", chains)
	}
	// The same name, another key.
	var untrusted *UntrustedError
	if _, err := image.Verify(other); !errors.As(err, &untrusted) {
		t.Errorf("another's certificate was taken: %v", err)
	}
	twice := must(Parse(sign(read(t, filepath.Join(kit.SignedTree(t, "trixie"), shimPath)))))(t)
	if chains := must(twice.Verify(Trust{trust.Certificates, Microsoft().Pins}))(t); len(chains) != 3 {
		t.Errorf("%d of 3 signatures", len(chains))
	}
}

// TestDamagedSignature changes the signature itself, which the digest leaves out.
func TestDamagedSignature(t *testing.T) {
	data := read(t, filepath.Join(kit.SignedTree(t, "trixie"), grubPath))
	table := must(parse(data))(t).table
	trust := debianTrust(t)
	for at := int(table.VirtualAddress) + 8; at < len(data)-8; at += 61 {
		data[at] ^= 0x55
		image, err := Parse(data)
		if err == nil {
			_, err = image.Verify(trust)
		}
		if err == nil {
			t.Errorf("a change at %d of the %d bytes of the signature is not seen", at-int(table.VirtualAddress), table.Size)
		}
		data[at] ^= 0x55
	}
}

// TestGenerations compares with objcopy, and checks levels.
func TestGenerations(t *testing.T) {
	chain := debian(t, "trixie")
	image := chain.Loaders[0].Image
	generations, dir := image.sbat, t.TempDir()
	run(t, "objcopy", "--dump-section", ".sbat="+dir+"/sbat", filepath.Join(kit.SignedTree(t, "trixie"), grubPath), dir+"/copy")
	want := must(parseGenerations(read(t, dir+"/sbat")))(t)
	if len(want) < 4 || len(generations) != len(want) || generations["grub"] != want["grub"] || generations["grub"] < 5 {
		t.Errorf("SBAT metadata %v, want %v", generations, want)
	}
	shim := must(chain.Shim.Image.Shim())(t)
	if len(shim.Level) < 3 || shim.Level["grub"] < 5 || len(shim.denied.digests) < 10 {
		t.Errorf("shim's level %v, %d revoked digests", shim.Level, len(shim.denied.digests))
	}
	for _, c := range []struct {
		level Generations
		want  string
	}{
		{Generations{"sbat": 1, "grub": generations["grub"]}, ""},
		{Generations{"grub": generations["grub"] + 1, "grub.debian": 99}, "grub"},
		{Generations{"grub.debian": 99}, "grub.debian"},
		{Generations{"grub.proxmox": 99}, ""},
		{nil, ""},
	} {
		err := generations.check(c.level)
		var revoked *RevokedError
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &revoked) || revoked.Component != c.want) {
			t.Errorf("level %v: %v, want %q", c.level, err, c.want)
		}
	}
	// A shim with a higher level refuses today's GRUB, though it is signed.
	shim.Level["grub"] = 99
	var revoked *RevokedError
	if err := shim.allows(image, nil, true); !errors.As(err, &revoked) || revoked.Want != 99 {
		t.Errorf("a revoked GRUB: %v", err)
	}
	for _, bad := range []string{"", "\n\n", "grub,x\n"} {
		if got, err := parseGenerations([]byte(bad)); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}

// TestDenied is about revocations by digest and by certificate.
func TestDenied(t *testing.T) {
	chain := debian(t, "trixie")
	image := chain.Loaders[0].Image
	chains := must(image.Verify(debianTrust(t)))(t)
	list := func(kind []byte, entry []byte) []byte {
		out := slices.Clone(kind)
		for _, n := range []int{28 + 16 + len(entry), 0, 16 + len(entry)} {
			out = binary.LittleEndian.AppendUint32(out, uint32(n))
		}
		return slices.Concat(out, make([]byte, 16), entry)
	}
	guid := func(s string) []byte { return must(hex.DecodeString(s))(t) }
	sha256List, x509List := guid("2616c4c14c509240aca941f936934328"), guid("a159c0a5e494a74a87b5ab155c2bf072")
	other := bytes.Clone(image.digest)
	other[0] ^= 1
	for _, c := range []struct {
		name    string
		lists   []byte
		revoked bool
	}{
		{"none", nil, false},
		{"another digest", list(sha256List, other), false},
		{"its digest", slices.Concat(list(sha256List, other), list(sha256List, image.digest)), true},
		{"its signer", list(x509List, chains[0][0].Raw), true},
		{"its authority", list(x509List, chains[0][1].Raw), true},
	} {
		denied := must(parseLists(c.lists))(t)
		var revoked *RevokedError
		if err := denied.check(image, chains); errors.As(err, &revoked) != c.revoked || (err != nil) != c.revoked {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, bad := range [][]byte{make([]byte, 5), make([]byte, 28), list(make([]byte, 16), make([]byte, 32)), list(x509List, make([]byte, 9))} {
		if _, err := parseLists(bad); err == nil {
			t.Errorf("signature lists of %d damaged bytes are taken", len(bad))
		}
	}
}

// TestGRUB is about the modules of Debian's signed images.
func TestGRUB(t *testing.T) {
	for suite, modules := range map[string]int{"bookworm": 125, "trixie": 128} {
		chain := debian(t, suite)
		grub := must(chain.Loaders[0].Image.GRUB())(t)
		if grub.Prefix != "/EFI/debian" || len(grub.Modules) != modules || !grub.Has("linux") || grub.Has("blscfg") || grub.Has("eval") {
			t.Errorf("%s: prefix %q, %d modules %v", suite, grub.Prefix, len(grub.Modules), grub.Modules)
		}
		if _, err := chain.Shim.Image.GRUB(); !errors.Is(err, ErrNotGRUB) {
			t.Errorf("shim's modules: %v", err)
		}
	}
}

// TestHostile is about files that are damaged: none may end the program.
func TestHostile(t *testing.T) {
	tree := kit.SignedTree(t, "trixie")
	for _, path := range []string{shimPath, grubPath} {
		data := read(t, filepath.Join(tree, path))
		for n := 0; n < 0x400; n += 5 {
			changed := bytes.Clone(data[:min(len(data), 0x2000+n)])
			changed[n] ^= 0xff
			probe(changed)
		}
		for n := 0; n < 0x400; n += 29 {
			value := data[n]
			data[n] ^= 0xff
			probe(data)
			data[n] = value
		}
	}
}

// probe reads an image in both ways.
func probe(data []byte) {
	Parse(data)
	Look(bytes.NewReader(data))
}
