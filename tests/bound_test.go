package tests

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	ocidigest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"installer/tests/layout"
)

// boundApps makes images of containers: app, and tool with a layer of app and one of its own.
func boundApps(t *testing.T) (app, tool string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, items ...item) string {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		must(t, writeItems(items...)(w))
		must(t, w.Close())
		name = filepath.Join(dir, name+".tar")
		must(t, os.WriteFile(name, b.Bytes(), 0o600))
		return name
	}
	image := func(name string, tars ...string) string {
		must(t, layout.Write(filepath.Join(dir, name), tars, layout.Options{Tag: "latest"}))
		return "oci:" + filepath.Join(dir, name) + ":latest"
	}
	base := write("base", directory("etc/", 0o755), file("etc/app.conf", "app"), file("etc/removed", "r"), file("usr/bin/app", "#!").mode(0o4755).owner(1000, 1001),
		hardLink("usr/bin/same", "usr/bin/app"), symlink("usr/bin/link", "/usr/bin/app"), directory("opaque/", 0o700), file("opaque/hidden", "h"),
		file("usr/bin/capable", "c").xattr("security.capability", capability()))
	return image("app", base, write("app", file("etc/.wh.removed", ""), file("opaque/.wh..wh..opq", ""), file("opaque/shown", "s"), file("data", strings.Repeat("data", 1<<18)))),
		image("tool", base, write("tool", file("tool", "tool")))
}

// binding is the small image that binds others: the quadlets by the names of their files.
func binding(t *testing.T, quadlets map[string]string) string {
	t.Helper()
	files := map[string]string{"usr/lib/bootc/storage": "-> /sysroot/ostree/bootc/storage"}
	for name, text := range quadlets {
		files["usr/share/containers/systemd/"+name] = text
		files["usr/lib/bootc/bound-images.d/"+name] = "-> /usr/share/containers/systemd/" + name
	}
	return configured(t, files)
}

// machineStore makes a store the one of this machine, as storage.conf says.
func machineStore(t *testing.T) store {
	t.Helper()
	s := newStore(t, "overlay")
	conf := filepath.Join(s.dir, "storage.conf")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, "[storage]\ndriver = %q\ngraphroot = %q\nrunroot = %q\n", s.driver, s.root(), s.dir+"/run"), 0o600))
	t.Setenv("CONTAINERS_STORAGE_CONF", conf)
	return s
}

func (s store) add(t *testing.T, from, name string) (digest string) {
	t.Helper()
	mustCommand(t, "skopeo", "--insecure-policy", "copy", "--quiet", from, s.ref(name))
	return strings.TrimSpace(mustCommand(t, "podman", s.args("image", "inspect", "--format", "{{.Digest}}", name)...))
}

func (s store) args(more ...string) []string {
	return append([]string{"--root", s.root(), "--runroot", s.dir + "/run", "--tmpdir", s.dir + "/tmp", "--storage-driver", s.driver}, more...)
}

// boundTo looks at an installed disk as its host would: podman has bootc's storage as an additional
// one, read-only, and an own one that is empty. It returns the digests of the images by their
// names.
type boundTo struct {
	t    *testing.T
	host store
	root string // the storage on the disk
}

func onDisk(t *testing.T, raw string) boundTo {
	t.Helper()
	FsckAll(t, raw, "xfs")
	return boundTo{t, newStore(t, "overlay"), filepath.Join(MountRootReadOnly(t, raw), "ostree/bootc/storage")}
}

func (b boundTo) podman(more ...string) string {
	b.t.Helper()
	args := append([]string{"--storage-opt", "additionalimagestore=" + b.root}, more...)
	return strings.TrimSpace(mustCommand(b.t, "podman", b.host.args(args...)...))
}

// has fails the test unless the image is there, by this name and digest, and has the files of app.
func (b boundTo) has(name, digest string, app store, original string) {
	b.t.Helper()
	if got := b.podman("image", "inspect", "--format", "{{.Digest}}", name); got != digest {
		b.t.Errorf("%s is %s, want %s", name, got, digest)
	}
	container := b.podman("create", "--pull=never", "--network=none", name, "/usr/bin/app")
	defer b.podman("rm", "--force", container)
	got := b.podman("mount", container)
	want := strings.TrimSpace(mustCommand(b.t, "podman", app.args("image", "mount", original)...))
	defer mustCommand(b.t, "podman", app.args("image", "unmount", original)...)
	CompareTrees(b.t, got, want, Rules{})
}

// clean fails the test if the storage has something that is of the installation alone.
func (b boundTo) clean(layers int) {
	b.t.Helper()
	if left := mustCommand(b.t, "find", filepath.Dir(b.root), "(", "-type", "b", "-o", "-name", "storage-state", "-o", "-name", "*compat*", "-o",
		"-name", "*.tmp", "-o", "-name", ".pivot_root*", "-o", "-path", "*/tempdirs/*", "-type", "d", ")"); left != "" {
		b.t.Errorf("left in the storage:\n%s", left)
	}
	found, err := filepath.Glob(filepath.Join(b.root, "overlay/*/diff"))
	must(b.t, err)
	if len(found) != layers {
		b.t.Errorf("%d layers, want %d: %q", len(found), layers, found)
	}
}

// The images that an image binds are copied from this machine's storage, with its digest, whatever
// name it is bound by, and a dry run lists it.
func TestBoundImagesStored(t *testing.T) {
	app, tool := boundApps(t)
	s := machineStore(t)
	appDigest, toolDigest := s.add(t, app, "quay.invalid/bound/app:1"), s.add(t, tool, "localhost/tool:latest")
	quadlets := map[string]string{
		"app.container": "[Container]\nImage=quay.invalid/bound/app:1\nGlobalArgs=--storage-opt=additionalimagestore=/usr/lib/bootc/storage\n",
		"same.image":    "[Image]\nImage=quay.invalid/bound/app@" + appDigest + "\n",
		"tool.image":    "[Image]\nImage=tool\n",
	}
	ref := binding(t, quadlets)
	raw, reportFile := filepath.Join(t.TempDir(), "disk.raw"), filepath.Join(t.TempDir(), "report.json")
	makeRaw(t, raw, tinySize)
	out := Run(t, installArgs(ref, raw, "--dry-run")...).Must(t).Stdout
	if want := "quay.invalid/bound/app:1 (" + appDigest + ")"; !strings.Contains(out, want) {
		t.Errorf("the plan lacks %s:\n%s", want, out)
	}
	Run(t, installArgs(ref, raw, "--report", reportFile)...).Must(t)
	nothingLeft(t, filepath.Dir(raw))
	if r := readReport(t, reportFile); !r.Finalize.Released || r.Outcome != "complete" {
		t.Errorf("%+v", r)
	}
	report, _ := verified(t, raw)
	for _, f := range report.Findings {
		if f.Check != "esp-boot-files" { // for there is no boot loader
			t.Errorf("verify found: %s: %s", f.Check, f)
		}
	}
	disk := onDisk(t, raw)
	disk.clean(3)
	disk.has("quay.invalid/bound/app:1", appDigest, s, "quay.invalid/bound/app:1")
	disk.has("quay.invalid/bound/app@"+appDigest, appDigest, s, "quay.invalid/bound/app:1")
	disk.has("localhost/tool:latest", toolDigest, s, "localhost/tool:latest")
}

// A bound image that is not in this machine's storage is refused before the first write, and so is
// a machine that has no storage.
func TestBoundImagesMissing(t *testing.T) {
	app, _ := boundApps(t)
	s := machineStore(t)
	s.add(t, app, "quay.invalid/bound/app:1")
	ref := binding(t, map[string]string{
		"app.image":  "[Image]\nImage=quay.invalid/bound/app:1\n",
		"gone.image": "[Image]\nImage=quay.invalid/bound/gone:1\n",
	})
	refused(t, 5, installArgs(ref, rawFile(t, tinySize)), `bound image quay\.invalid/bound/gone:1 .*gone\.image.* is not in the containers-storage`,
		`podman pull quay\.invalid/bound/gone:1`, `--bound-images=pull .*--bound-images=skip`)
	t.Setenv("CONTAINERS_STORAGE_CONF", filepath.Join(s.dir, "other.conf"))
	must(t, os.WriteFile(filepath.Join(s.dir, "other.conf"), fmt.Appendf(nil, "[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", s.dir+"/none", s.dir+"/run"), 0o600))
	refused(t, 5, installArgs(ref, rawFile(t, tinySize)), `there is no containers-storage`)
}

// There must be room for the bound images, and that is known before the first write.
func TestBoundImagesNeedRoom(t *testing.T) {
	s := machineStore(t)
	dir := t.TempDir()
	w, err := os.Create(filepath.Join(dir, "big.tar"))
	must(t, err)
	tw := tar.NewWriter(w)
	const size = 200 << 20
	must(t, tw.WriteHeader(&tar.Header{Name: "big", Typeflag: tar.TypeReg, Mode: 0o644, Size: size}))
	_, err = io.CopyN(tw, zeros{}, size)
	must(t, err)
	must(t, tw.Close())
	must(t, w.Close())
	must(t, layout.Write(filepath.Join(dir, "big"), []string{filepath.Join(dir, "big.tar")}, layout.Options{Tag: "latest"}))
	s.add(t, "oci:"+dir+"/big:latest", "localhost/big:latest")
	ref := binding(t, map[string]string{"big.image": "[Image]\nImage=localhost/big\n"})
	raw := rawFile(t, 836<<20) // with as small a root as an xfs can be
	Run(t, installArgs(ref, raw, "--dry-run", "--bound-images", "skip")...).Must(t)
	refused(t, 4, installArgs(ref, raw), `too small`)
}

// Overlays want a file system whose directory entries have the types of files.
func TestBoundImagesNeedEntryTypes(t *testing.T) {
	app, _ := boundApps(t)
	machineStore(t).add(t, app, "quay.invalid/bound/app:1")
	ref := binding(t, map[string]string{"app.image": "[Image]\nImage=quay.invalid/bound/app:1\n"})
	m := mountOwn(t, tinySize, "ext4", "")
	must(t, unix.Unmount(m.root, 0))
	device := m.devices[0].Name()
	mustCommand(t, "debugfs", "-w", "-R", "feature -filetype", device)
	must(t, unix.Mount(device, m.root, "ext4", 0, ""))
	args := []string{"to-filesystem", "--source-imgref", ref, "--bootloader", "none", m.root}
	checkMessage(t, Run(t, args...), 4, `whose storage needs types in directory entries, and the ext4 on /dev/loop\d+ has none .*--bound-images=skip`)
	Run(t, append(args, "--dry-run", "--bound-images=skip")...).Must(t)
	if _, err := os.Stat(filepath.Join(m.root, "ostree")); err == nil {
		t.Error("the root was written to")
	}
}

// A bound image is fetched from its registry, for the platform of the system and by the digest that
// its name means when the disk is planned.
func TestBoundImagesPulled(t *testing.T) {
	app, _ := boundApps(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	insecureRegistry(t, host)
	s := machineStore(t)
	mustCommand(t, "skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", app, "docker://"+host+"/bound/app:1")
	index := pushIndex(t, server.URL+"/v2/bound/app/manifests/", "1", "many")
	appDigest := s.add(t, app, "localhost/app:latest")
	ref := binding(t, map[string]string{
		"app.container": "[Container]\nImage=" + host + "/bound/app:1\n",
		"many.image":    "[Image]\nImage=" + host + "/bound/app:many@" + index + "\n",
	})
	gone := binding(t, map[string]string{"gone.image": "[Image]\nImage=" + host + "/bound/gone:1\n"})
	refused(t, 5, installArgs(gone, rawFile(t, tinySize), "--bound-images", "pull"), `bound image `+host+`/bound/gone:1`, `--bound-images=skip`)

	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	Run(t, installArgs(ref, raw, "--bound-images", "pull")...).Must(t)
	nothingLeft(t, filepath.Dir(raw))
	disk := onDisk(t, raw)
	disk.clean(2)
	disk.has(host+"/bound/app:1", appDigest, s, "localhost/app:latest")
	if digests := disk.podman("image", "inspect", "--format", "{{json .RepoDigests}}", host+"/bound/app@"+index); !strings.Contains(digests, index) {
		t.Errorf("the image that is bound by the digest of an index has the digests %s, not %s", digests, index)
	}
}

// pushIndex makes an index of the image with a tag and one for another machine, and returns its
// digest.
func pushIndex(t *testing.T, manifests, tag, as string) string {
	t.Helper()
	resp, err := http.Get(manifests + tag)
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	must(t, resp.Body.Close())
	d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: ocidigest.FromBytes(body), Size: int64(len(body))}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	for _, arch := range []string{"s390x", "amd64", "arm64"} {
		d.Platform = &v1.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, d)
	}
	text, err := json.Marshal(index)
	must(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, manifests+as, bytes.NewReader(slices.Clone(text)))
	must(t, err)
	req.Header.Set("Content-Type", v1.MediaTypeImageIndex)
	resp, err = http.DefaultClient.Do(req)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("pushing an index: %s", resp.Status)
	}
	return ocidigest.FromBytes(text).String()
}
