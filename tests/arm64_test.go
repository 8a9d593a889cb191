package tests

import (
	"archive/tar"
	"bytes"
	"debug/pe"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"installer/tests/layout"
)

// The installer is made for this architecture too, and as statically.
func TestBuildsForARM64(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "installer")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-tags", baseTags, "-o", bin, "./cmd/installer")
	cmd.Dir = repoRoot(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOARCH=arm64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	header := mustCommand(t, "readelf", "--file-header", "--program-headers", bin)
	if !strings.Contains(header, "AArch64") || strings.Contains(header, "INTERP") {
		t.Errorf("the binary is\n%s", header)
	}
}

// efiProgram looks like systemd-boot from outside: a header, and no code.
func efiProgram(t *testing.T, machine uint16) []byte {
	t.Helper()
	const start, efiApplication = 64, 10
	dos := make([]byte, start)
	copy(dos, "MZ")
	binary.LittleEndian.PutUint32(dos[60:], start)
	b := bytes.NewBuffer(dos)
	b.WriteString("PE\x00\x00")
	optional := pe.OptionalHeader64{Magic: 0x20b, Subsystem: efiApplication, NumberOfRvaAndSizes: 16}
	must(t, binary.Write(b, binary.LittleEndian, pe.FileHeader{Machine: machine, SizeOfOptionalHeader: uint16(binary.Size(optional))}))
	must(t, binary.Write(b, binary.LittleEndian, optional))
	return b.Bytes()
}

// arm64Image is the small image, with systemd-boot, for another architecture than this machine's.
func arm64Image(t *testing.T, loader []byte) string {
	t.Helper()
	dir := t.TempDir()
	base, err := tinyTar("arm64")
	must(t, err)
	var top bytes.Buffer
	w := tar.NewWriter(&top)
	for _, name := range []string{"usr/lib/systemd/", "usr/lib/systemd/boot/", "usr/lib/systemd/boot/efi/"} {
		must(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}))
	}
	must(t, w.WriteHeader(&tar.Header{Name: "usr/lib/systemd/boot/efi/systemd-bootaa64.efi", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(loader))}))
	_, err = w.Write(loader)
	must(t, err)
	must(t, w.Close())
	must(t, os.WriteFile(filepath.Join(dir, "1.tar"), base, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "2.tar"), top.Bytes(), 0o600))
	must(t, layout.Write(filepath.Join(dir, "oci"), []string{filepath.Join(dir, "1.tar"), filepath.Join(dir, "2.tar")},
		layout.Options{Tag: "latest", Labels: map[string]string{"containers.bootc": "1"}, Architecture: "arm64"}))
	return "oci:" + filepath.Join(dir, "oci") + ":latest"
}

// An image for ARM64 is installed where that is asked for, without any program of it being run:
// there is none in it.
func TestInstallARM64(t *testing.T) {
	loader := efiProgram(t, pe.IMAGE_FILE_MACHINE_ARM64)
	ref := arm64Image(t, loader)
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	args := func(more ...string) []string {
		return append([]string{"to-disk", "--via-loopback", "--source-imgref", ref, raw}, more...)
	}
	refused(t, 5, args("--bootloader", "none"), `made for architecture "arm64".*this machine is "amd64"; to do: .*--platform linux/arm64`)
	refused(t, 5, args("--platform", "linux/arm64"), `grub is made by a program of the image, which is for arm64.*to do: --bootloader systemd`)

	Run(t, args("--platform", "linux/arm64", "--bootloader", "none")...).Must(t)
	if table := mustCommand(t, "sgdisk", "-p", raw); strings.Contains(table, "EF02") {
		t.Errorf("there is a partition for a BIOS:\n%s", table)
	}
	Run(t, args("--platform", "linux/arm64", "--bootloader", "systemd", "--wipe")...).Must(t)
	root := mustCommand(t, "sgdisk", "-i", "2", raw)
	if !strings.Contains(strings.ToLower(root), "b921b045-1df0-41c3-af44-4c6f280d3fae") { // Discoverable Partitions Specification
		t.Errorf("the root partition is\n%s", root)
	}
	esp := mustPartition(t, raw, typeESP)
	copied := filepath.Join(t.TempDir(), "loader")
	mustCommand(t, "mcopy", "-i", raw+"@@"+strconv.FormatInt(esp.Start, 10), "::/EFI/BOOT/BOOTAA64.EFI", copied)
	if got, err := os.ReadFile(copied); err != nil || !bytes.Equal(got, loader) {
		t.Errorf("the loader is not the image's: %v", err)
	}
	if list := mustCommand(t, "mdir", "-b", "-/", "-i", raw+"@@"+strconv.FormatInt(esp.Start, 10), "::/"); strings.Contains(list, "X64") || !strings.Contains(list, "/loader/entries/") {
		t.Errorf("on the EFI system partition there are\n%s", list)
	}
	if r := Run(t, "verify", raw); r.Code != 0 {
		t.Errorf("verify: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	wrong := arm64Image(t, efiProgram(t, pe.IMAGE_FILE_MACHINE_AMD64))
	r := Run(t, "to-disk", "--via-loopback", "--source-imgref", wrong, "--platform", "linux/arm64", "--bootloader", "systemd", "--wipe", raw)
	if r.Code == 0 || !strings.Contains(r.Stderr, "machine type 0x8664 instead of 0xaa64") {
		t.Errorf("a loader of another architecture: exit status %d\n%s", r.Code, r.Stderr)
	}
}
