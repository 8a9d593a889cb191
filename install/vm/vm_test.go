package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"installer/disk"
	"installer/install"
	"installer/install/outfile"
	"installer/rootfs/bootloader"
	"installer/rootfs/image"

	"golang.org/x/sys/unix"
)

// layoutOf makes an OCI layout of two layers, whose sizes are no multiples of a sector.
func layoutOf(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "oci")
	work := t.TempDir()
	script := `set -e; umoci init --layout "$1"; umoci new --image "$1:x"
		mkdir "$2/a" "$2/b"; seq 30000 >"$2/a/one"; echo two >"$2/b/two"
		umoci insert --image "$1:x" "$2/a" /usr/a; umoci insert --image "$1:x" "$2/b" /usr/b; umoci gc --layout "$1"`
	if out, err := exec.Command("sh", "-c", script, "sh", dir, work).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

func openImage(t *testing.T, transport, name string) *image.Image {
	t.Helper()
	img, err := image.Open(t.Context(), image.Ref{Transport: transport, Name: name}, image.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// forget is a sink that keeps nothing.
type forget struct{}

func (forget) Store(_ context.Context, _ image.Meta, target string, _ int64, content io.Reader) (image.ContentID, error) {
	if target != "" {
		return image.ContentID{}, nil
	}
	_, err := io.Copy(io.Discard, content)
	return image.ContentID{}, err
}

// names lists an image's tree, having verified its layers.
func names(t *testing.T, img *image.Image) string {
	t.Helper()
	tree, err := img.Import(t.Context(), forget{}, image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	if err := tree.Walk(func(path string, _ *image.Node) error { all = append(all, path); return nil }); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

// QEMU must show the composed disk as an archive that holds the image,
// as tar and as our own reader see it: from a directory, and out of another archive.
func TestComposedDiskIsAnArchive(t *testing.T) {
	layout := layoutOf(t)
	archive := filepath.Join(t.TempDir(), "in.tar")
	if out, err := exec.Command("tar", "-C", layout, "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for transport, name := range map[string]string{image.TransportOCI: layout, image.TransportOCIArchive: archive} {
		img := openImage(t, transport, name)
		s, err := compose(t.Context(), img)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		h := &handles{}
		descriptor, err := memory("test")
		if err != nil {
			t.Fatal(err)
		}
		defer descriptor.Close()
		if _, err := descriptor.Write(s.descriptor(h.path)); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "out.tar")
		p := programs{img: "qemu-img"}
		if p.img, err = exec.LookPath(p.img); err != nil {
			t.Fatal(err)
		}
		if err := p.image(t.Context(), h, "convert", "-f", "vmdk", "-O", "raw", h.path(descriptor), out); err != nil {
			t.Fatal(err)
		}
		if text, err := exec.Command("tar", "-tf", out).CombinedOutput(); err != nil || strings.Count(string(text), "blobs/sha256/") != 4 {
			t.Errorf("%s: tar: %v: %s", transport, err, text)
		}
		again := openImage(t, image.TransportOCIArchive, out)
		if again.ManifestDigest != img.ManifestDigest || names(t, again) != names(t, img) {
			t.Errorf("%s: the disk holds %s with %q", transport, again.ManifestDigest, names(t, again))
		}
	}
}

// A source of streams is copied to an archive that holds the same image.
func TestCopiedSourceIsAnArchive(t *testing.T) {
	layout, dir := layoutOf(t), filepath.Join(t.TempDir(), "dir")
	if out, err := exec.Command("skopeo", "--insecure-policy", "copy", "oci:"+layout+":x", "dir:"+dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	img := openImage(t, image.TransportDir, dir)
	f, err := outfile.Scratch(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var seen int64
	if err := copySource(t.Context(), img, f, func(n int64) { seen += n }); err != nil {
		t.Fatal(err)
	}
	if seen != img.SourceSize() {
		t.Errorf("progress told of %d bytes of %d", seen, img.SourceSize())
	}
	again, err := img.Reopen(f)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.ManifestDigest != img.ManifestDigest || names(t, again) != names(t, img) {
		t.Errorf("the copy holds %s with %q", again.ManifestDigest, names(t, again))
	}
}

// An output that cannot be made is refused with the remedy of its kind, before anything runs.
func TestOutputThatCannotBeMade(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "file"), nil, 0o600), os.Symlink("loop", filepath.Join(dir, "loop"))); err != nil {
		t.Fatal(err)
	}
	for path, advice := range map[string]string{
		"/dev/null": "to-disk writes to devices", dir: "name a file", dir + "/missing/disk.qcow2": "make the directory", "/proc/disk.qcow2": "",
		dir + "/file/disk.qcow2": "", dir + "/loop": "", "/sys/kernel/disk.qcow2": "may write to",
	} {
		_, err := openOutput(path)
		var refused *OutputRefusedError
		if !errors.As(err, &refused) || !strings.Contains(refused.Advice(), advice) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		} else if advice == "" && refused.Advice() != "" && !strings.HasPrefix(path, "/proc") {
			t.Errorf("%s: %v, with the advice %q", path, err, refused.Advice())
		}
	}
}

// A full file system is named by its directory, and the advice is about that one.
func TestFullFileSystemIsNamed(t *testing.T) {
	for _, cause := range []error{unix.ENOSPC, unix.EDQUOT} {
		var e *DirFullError
		if err := full(fmt.Errorf("writing: %w", cause), "/out"); !errors.As(err, &e) || !errors.Is(err, cause) || !strings.Contains(e.Advice(), "room in /out") || strings.Contains(e.Advice(), "TMPDIR") {
			t.Errorf("%v: %v", cause, err)
		}
	}
	if err := full(unix.EIO, "/out"); err != unix.EIO {
		t.Errorf("got %v", err)
	}
}

func testOptions(t *testing.T) Options {
	return Options{
		Install: install.Options{
			Source: image.Ref{Transport: image.TransportOCI, Name: "os:v1"}, Filesystem: disk.Ext4, RootSize: 3 << 30,
			Kargs: []string{"console=ttyS0", "-odd word"}, KargDeletes: []string{"quiet"}, Target: "oci:os:v1",
			RootSSHKeys: []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test"), Stateroot: "default", Bootloader: bootloader.GRUB,
		},
		Output: filepath.Join(t.TempDir(), "disk.qcow2"), Format: QCOW2, DiskSize: 1 << 30, Memory: DefaultMemory, Accel: AccelAuto,
	}
}

func TestInstallerCommandLine(t *testing.T) {
	o := testOptions(t)
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	argv := o.argv()
	for _, want := range [][]string{
		{"--source-imgref=oci-archive:/dev/installer-source", "--source-name=oci:os:v1", "--target-imgref=oci:os:v1", "--filesystem=ext4"}, {"--root-size=3145728K"},
		{"--karg=-odd word", "--karg-delete=quiet", "--source-survey=/run/files/survey.json", "/dev/installer-target"}, {"--generic-image"},
		{"--root-ssh-authorized-keys=/run/files/authorized_keys"},
	} {
		if at := slices.Index(argv, want[0]); at < 0 || !slices.Equal(argv[at:at+len(want)], want) {
			t.Errorf("%v is not in %q", want, argv)
		}
	}
	if size, err := install.ParseSize("3145728K"); err != nil || size != o.Install.RootSize {
		t.Errorf("the size is understood as %d, %v", size, err)
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"compressed raw": func(o *Options) { o.Format, o.Compress = Raw, true },
		"half a sector":  func(o *Options) { o.DiskSize += 100 },
		"no memory":      func(o *Options) { o.Memory = 1 << 20 },
	} {
		o := testOptions(t)
		change(&o)
		if err := o.Validate(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestMissingProgramNamesItsPackages(t *testing.T) {
	for _, missing := range []string{"qemu-system", "qemu-img"} {
		_, err := findPrograms(func(name string) (string, error) {
			if strings.Contains(name, "qemu-kvm") || strings.HasPrefix(name, missing) {
				return "", exec.ErrNotFound
			}
			return "/bin/" + name, nil
		})
		var e *MissingProgramError
		if !errors.As(err, &e) || e.Debian == "" || e.Fedora == "" || !strings.Contains(e.Advice(), e.Debian) {
			t.Errorf("%s: %v", missing, err)
		}
	}
}
