package tests

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"installer/tests/kit"
	"installer/tests/layout"
)

// signedImage is the image with Debian's packages of signed boot loaders; its kernel is signed.
func signedImage(t *testing.T, directories ...string) string {
	t.Helper()
	packages := filepath.Join(t.TempDir(), "signed.tar")
	mustCommand(t, "tar", append([]string{"-C", kit.SignedTree(t, "bookworm"), "--numeric-owner", "-cf", packages}, directories...)...)
	dir, tag := stackOn(t, CacheImage(t), func(s *layout.Stack) { addTarFile(t, s, packages) })
	return "oci:" + dir + ":" + tag
}

// A disk with the signed boot loader of its image starts while Secure Boot is on; a byte of the boot
// loader or of the kernel that was changed after it was signed is found.
func TestSecureBoot(t *testing.T) {
	LoopSnapshot(t)
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, diskSize)
	installed := Run(t, "to-disk", "--via-loopback", "--generic-image", "--source-imgref", signedImage(t, "usr/lib/shim", "usr/lib/grub"),
		"--secure-boot", "required", "--karg", "console=ttyS0,115200n8", raw).Must(t)
	if !strings.Contains(installed.Stdout, "signed: packages of signed boot loaders") {
		t.Errorf("the output does not name the source of the boot loader:\n%s", installed.Stdout)
	}
	kernel := strings.TrimSpace(onRoot(t, raw, os.O_RDONLY, `(cd "$1" && echo boot/ostree/*/vmlinuz-*)`))
	checkSignatures(t, raw, kernel)
	wantSound(t, raw)

	for where, at := range map[string]int64{
		"ESP:/EFI/BOOT/grubx64.efi": onESP(t, raw, "/EFI/BOOT/grubx64.efi") + 0x3000,
		"/" + kernel:                physical(t, raw, kernel) + 1<<20,
	} {
		flip(t, raw, at)
		report, code := verified(t, raw)
		wantNamed(t, report, code, named{"secure-boot", where, "changed after it was signed"})
		flip(t, raw, at)
	}
	var err error
	wait := aside(t, func() { err = secureBoot{raw, "secureboot: Secure boot enabled"}.start(t.Context()) })
	t.Parallel()
	wait()
	must(t, err)
}

// checkSignatures has sbverify judge the programs on the disk.
func checkSignatures(t *testing.T, raw, kernel string) {
	t.Helper()
	tree, dir := kit.SignedTree(t, "bookworm"), t.TempDir()
	vendor := filepath.Join(dir, "vendor")
	mustCommand(t, "openssl", "x509", "-inform", "der", "-in", filepath.Join(tree, "usr/share/shim/debian-uefi-ca.der"), "-out", vendor)
	for name, from := range map[string]string{
		"BOOT/BOOTX64.EFI": "usr/lib/shim/shimx64.efi.signed", "BOOT/grubx64.efi": "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
		"BOOT/mmx64.efi": "usr/lib/shim/mmx64.efi.signed", "debian/shimx64.efi": "usr/lib/shim/shimx64.efi.signed",
		"debian/grubx64.efi": "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
	} {
		content := ESPFile(t, raw, "/EFI/"+name)
		want, err := os.ReadFile(filepath.Join(tree, from))
		must(t, err)
		if !bytes.Equal(content, want) {
			t.Errorf("EFI/%s is not /%s of the image", name, from)
		}
		program := filepath.Join(dir, "program")
		must(t, os.WriteFile(program, content, 0o600))
		if !strings.Contains(from, "shimx64") {
			mustCommand(t, "sbverify", "--cert", vendor, program)
		} else if list := mustCommand(t, "sbverify", "--list", program); !strings.Contains(list, "Microsoft Corporation UEFI CA 2011") {
			t.Errorf("EFI/%s is signed by\n%s", name, list)
		}
	}
	onRoot(t, raw, os.O_RDONLY, `sbverify --cert "$2" "$1/$3"`, vendor, kernel)
}

// secureBoot is a start under firmware that demands signatures.
type secureBoot struct {
	disk string
	says string // on the console, at its end
}

// start starts the disk until the console has the text.
func (b secureBoot) start(ctx context.Context) error {
	work, err := os.MkdirTemp("", "boot")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	args, err := BootOptions{Disk: b.disk, Firmware: SecureUEFI}.withDefaults().command(work)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	m := startQEMU(ctx, args)
	defer m.stop()
	var console []byte
	for part := range m.output {
		console = append(console, part...)
		if bytes.Contains(console, []byte(b.says)) {
			return nil
		}
	}
	return fmt.Errorf("the console of a start with Secure Boot does not have %q:\n%s", b.says, printed.ReplaceAll(console, nil))
}

// printed matches the codes by which firmware places its text on the screen.
var printed = regexp.MustCompile(`\x1b\[[0-9;=]*[A-Za-z]`)

// An image whose chain is not whole is refused where it must be, before the disk is touched; the
// message has the missing package of each distribution.
func TestSecureBootRequired(t *testing.T) {
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, diskSize)
	for _, c := range []struct {
		image  string
		flags  []string
		status int
		says   []string
	}{
		{CacheImage(t), []string{"--generic-image"}, 5, []string{"shim-signed", "grub-efi-amd64-signed (Debian)", "shim-x64, grub2-efi-x64 (Fedora, CentOS)"}},
		{signedImage(t, "usr/lib/shim"), []string{"--generic-image"}, 5, []string{"lacks /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "grub-efi-amd64-signed (Debian)"}},
		{TinyImage(t), []string{"--bootloader", "none"}, 2, []string{"no boot loader"}},
	} {
		r := Run(t, append([]string{"to-disk", "--via-loopback", "--source-imgref", c.image, "--secure-boot", "required", raw}, c.flags...)...)
		if r.Code != c.status {
			t.Errorf("exit status %d, want %d: %s", r.Code, c.status, r.Stderr)
		}
		for _, text := range c.says {
			if !strings.Contains(r.Stderr, text) {
				t.Errorf("the message lacks %q: %s", text, r.Stderr)
			}
		}
	}
	if used := mustCommand(t, "stat", "-c", "%b", raw); strings.TrimSpace(used) != "0" {
		t.Errorf("the disk was written to: it has %s blocks", used)
	}
}
