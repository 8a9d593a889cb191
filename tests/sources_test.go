package tests

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"installer/tests/layout"
)

// An image is the same from wherever it comes: one manifest, one commit. A docker-archive keeps no
// manifest, so there the manifest's copy in the commit differs, and the tree alone must be the same.
func TestSourcesGiveTheSameCommit(t *testing.T) {
	source := sourceImage(t)
	want := installFrom(t, source)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	insecureRegistry(t, strings.TrimPrefix(server.URL, "http://"))
	work := t.TempDir()
	for transport, ref := range map[string]string{
		"registry":    "docker://" + strings.TrimPrefix(server.URL, "http://") + "/os/image:latest",
		"oci-archive": "oci-archive:" + work + "/oci.tar:latest",
		"dir":         "dir:" + work + "/dir",
	} {
		t.Run(transport, func(t *testing.T) {
			mustCommand(t, "skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", source, ref)
			sameCommit(t, installFrom(t, ref), want)
		})
	}
	t.Run("docker-archive", func(t *testing.T) {
		ref := "docker-archive:" + work + "/docker.tar:localhost/os:latest"
		mustCommand(t, "skopeo", "--insecure-policy", "copy", "--quiet", source, ref)
		got := installFrom(t, ref)
		if got.tree != want.tree {
			t.Errorf("the tree is %s, want %s", got.tree, want.tree)
		}
	})
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run("container "+driver, func(t *testing.T) {
			sameCommit(t, installInContainer(t, source, driver), want)
		})
	}
}

// sourceImage has layers that hide and change files of lower layers, and the links of a system whose
// programs are all in /usr.
func sourceImage(t *testing.T) string {
	t.Helper()
	tiny, tag := splitRef(TinyImage(t))
	dir := filepath.Join(t.TempDir(), "oci")
	s, err := layout.Begin(tiny, dir)
	must(t, err)
	must(t, s.Add(func(w *tar.Writer) error {
		for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
			if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: "usr/" + name, Mode: 0o777}); err != nil {
				return err
			}
		}
		return w.WriteHeader(&tar.Header{Name: "usr/share/many/.wh.a-file-with-a-rather-long-name-007", Typeflag: tar.TypeReg, Mode: 0o644})
	}))
	must(t, s.Add(func(w *tar.Writer) error {
		for _, h := range []*tar.Header{
			{Name: "usr/share/owned", Typeflag: tar.TypeReg, Mode: 0o4751, Uid: 1234, Gid: 4321, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}},
			{Name: "usr/share/link", Typeflag: tar.TypeLink, Linkname: "usr/share/owned"},
			{Name: "etc/tiny.conf", Typeflag: tar.TypeReg, Mode: 0o600},
		} {
			if err := w.WriteHeader(h); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, s.Finish(nil))
	return "oci:" + dir + ":" + tag
}

// fromSource holds the results of an installation from a source.
type fromSource struct{ digest, commit, tree string }

func sameCommit(t *testing.T, got, want fromSource) {
	t.Helper()
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// installFrom installs the image and has ostree check the result.
func installFrom(t *testing.T, ref string) fromSource {
	t.Helper()
	dir := t.TempDir()
	raw, report := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "report.json")
	makeRaw(t, raw, tinySize)
	Run(t, installArgs(ref, raw, "--report", report)...).Must(t)
	return judgeSource(t, raw, report)
}

func judgeSource(t *testing.T, raw, report string) fromSource {
	t.Helper()
	r := readReport(t, report)
	repo := filepath.Join(MountRootReadOnly(t, raw), "ostree/repo")
	return fromSource{r.Source.Digest, r.Deployment.Commit, treeChecksums(t, repo, r.Deployment.Commit)}
}

// insecureRegistry makes the registry one that is spoken to over plain HTTP, as registries.conf
// says.
func insecureRegistry(t *testing.T, host string) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "registries.conf")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", host), 0o644))
	t.Setenv("CONTAINERS_REGISTRIES_CONF", conf)
}

// installInContainer installs from inside a container of the image itself, with nothing said of the
// source. It must also name the update source of the host: the registry of the image's name.
func installInContainer(t *testing.T, source, driver string) fromSource {
	t.Helper()
	store := newStore(t, driver)
	const name = "registry.invalid/os/image:latest"
	mustCommand(t, "skopeo", "--insecure-policy", "copy", "--quiet", source, store.ref(name))
	out := t.TempDir()
	makeRaw(t, filepath.Join(out, "disk.raw"), tinySize)
	// The image is too small to bring mkfs: the container gets this system's programs.
	visible := []string{BuildInstaller(t) + ":/installer:ro", out + ":/out", "/usr:/usr:ro"}
	args := []string{"to-disk", "--via-loopback", "--bootloader", "none", "--report", "/out/report.json", "/out/disk.raw"}

	blind := store.run(t, name, visible, args...)
	if blind.Code != 5 || !strings.Contains(blind.Stderr, "-v /var/lib/containers:/var/lib/containers") {
		t.Errorf("without podman's storage: status %d, %s", blind.Code, blind.Stderr)
	}
	store.run(t, name, append(visible, store.root()+":/var/lib/containers/storage"), args...).Must(t)
	nothingLeft(t, out)
	raw := filepath.Join(out, "disk.raw")
	origin := DefaultDeployment(t, MountRootReadOnly(t, raw)) + ".origin"
	text, err := os.ReadFile(origin)
	if want := "container-image-reference=ostree-unverified-registry:" + name; err != nil || !strings.Contains(string(text), want) {
		t.Errorf("the origin is %q (%v), want %s", text, err, want)
	}
	return judgeSource(t, raw, filepath.Join(out, "report.json"))
}

// store is a store of podman's of its own.
type store struct{ dir, driver string }

func newStore(t *testing.T, driver string) store {
	t.Helper()
	dir, err := os.MkdirTemp("", "store") // podman refuses long paths, and overlay some characters
	must(t, err)
	s := store{dir, driver}
	t.Cleanup(func() { must(t, errors.Join(s.remove(), os.RemoveAll(dir))) })
	return s
}

func (s store) root() string { return filepath.Join(s.dir, "root") }

func (s store) ref(name string) string {
	return fmt.Sprintf("containers-storage:[%s@%s+%s/run]%s", s.driver, s.root(), s.dir, name)
}

// run runs the installer in a privileged container, with the limits of one that may not raise its
// own.
func (s store) run(t *testing.T, image string, volumes []string, args ...string) Result {
	t.Helper()
	all := []string{"--root", s.root(), "--runroot", s.dir + "/run", "--tmpdir", s.dir + "/tmp", "--storage-driver", s.driver, "--runtime", "runc",
		"run", "--rm", "--pull=never", "--privileged", "--pid=host", "--network=none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"}
	for _, v := range volumes {
		all = append(all, "--volume", v)
	}
	return RunBinary(t, "podman", append(append(all, image, "/installer"), args...)...)
}

// remove undoes the mount that the overlay driver leaves on its directory.
func (s store) remove() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	at := filepath.Join(s.root(), "overlay")
	if !strings.Contains(string(mounts), " "+at+" ") {
		return nil
	}
	_, err = command(context.Background(), "umount", at)
	return err
}
