package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"installer/tests/layout"
)

// followed is the image that the hosts of these tests take updates from, and the ref of that name:
// each character that a ref cannot have is written _HEX_ (ostree-ext's rule).
const (
	followed    = "docker://quay.io/os_name/image:v1"
	followedRef = "ostree/container/image/docker_3A__2F__2F_quay_2E_io/os__name/image_3A_v1"
)

// The installed system is the image: path by path as another program unpacks it, object by object
// sound for ostree, and with the refs and commits that an updater reads back.
func TestFidelity(t *testing.T) {
	ref, oracle := featureImage(t)
	dir, _ := splitRef(ref)

	raw, report := filepath.Join(t.TempDir(), "disk.raw"), filepath.Join(t.TempDir(), "report.json")
	makeRaw(t, raw, 8<<30)
	Run(t, installArgs(ref, raw, "--target-imgref", followed, "--report", report)...).Must(t)
	root := MountRootReadOnly(t, raw)
	repo := filepath.Join(root, "ostree/repo")
	commit := readReport(t, report).Deployment.Commit

	t.Run("deployment", func(t *testing.T) { compareFeatures(t, DefaultDeployment(t, root), oracle) })
	t.Run("repository", func(t *testing.T) { OstreeChecks(t, root) })
	t.Run("refs", func(t *testing.T) { checkRefs(t, repo, dir, commit) })
	t.Run("metadata", func(t *testing.T) { checkMetadata(t, repo, dir, commit) })
	t.Run("layers", func(t *testing.T) { checkLayerCommits(t, repo, dir) })
	t.Run("mapped", func(t *testing.T) { largeDirectory(t, repo) })
	t.Run("again", func(t *testing.T) {
		raw, report := filepath.Join(t.TempDir(), "disk.raw"), filepath.Join(t.TempDir(), "report.json")
		makeRaw(t, raw, 8<<30)
		Run(t, installArgs(ref, raw, "--target-imgref", "quay.io/other/name", "--report", report)...).Must(t)
		if again := readReport(t, report).Deployment.Commit; again != commit {
			t.Errorf("a second installation gave the commit %s, the first %s", again, commit)
		}
	})
}

// compareFeatures holds the deployment against the oracle's tree. /etc/hostname is empty, as
// podman leaves the targets of its own mounts, and is not compared.
func compareFeatures(t *testing.T, deployment, oracle string) {
	t.Helper()
	must(t, os.Remove(filepath.Join(oracle, "etc/hostname")))
	CompareTrees(t, deployment, oracle, DeploymentRules())
	CompareTrees(t, filepath.Join(deployment, "etc"), filepath.Join(oracle, "etc"), Rules{LooseLinks: true})
	// The oracle could be wrong in the same way: some of it is said again.
	d := filepath.Join(deployment, "usr/share/features")
	for name, want := range map[string]string{
		"becomes-directory": "and back", "becomes-symlink/again": "a", "comes-back": "2", "repeated": "second, and final",
		"link-becomes-directory/inside": "not elsewhere", "opaque/new": "n", "new\nline": "n", "link-to-link": "shared",
	} {
		if got, err := os.ReadFile(filepath.Join(d, name)); err != nil || string(got) != want {
			t.Errorf("%q is %q (%v), want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"to-be-removed", "dir-to-be-removed", "opaque/below", "becomes-symlink/inside", "elsewhere/inside"} {
		if _, err := os.Lstat(filepath.Join(d, name)); !os.IsNotExist(err) {
			t.Errorf("%q is there (%v)", name, err)
		}
	}
	st, err := os.Stat(filepath.Join(deployment, "usr/share/gnu/huge"))
	must(t, err)
	if st.Size() != hugeSize {
		t.Errorf("the huge file has %d bytes, want %d", st.Size(), int64(hugeSize))
	}
	e, err := readEntry(filepath.Join(d, "dir-meta"))
	must(t, err)
	if e.mode != 0o42700 || e.uid != 8 || e.gid != 9 {
		t.Errorf("the last entry of a directory does not count: mode %o, owner %d:%d", e.mode, e.uid, e.gid)
	}
}

// checkRefs wants a ref for every layer, for the image and for the deployment, and no other.
func checkRefs(t *testing.T, repo, dir, commit string) {
	t.Helper()
	_, manifest, _, err := layout.Read(dir)
	must(t, err)
	if len(manifest.Layers) < 20 {
		t.Fatalf("the image has only %d layers", len(manifest.Layers))
	}
	want := []string{followedRef, "ostree/1/1/0"}
	for _, l := range manifest.Layers {
		want = append(want, blobRef(l))
	}
	slices.Sort(want)
	got := strings.Fields(mustCommand(t, "ostree", "refs", "--repo="+repo))
	slices.Sort(got)
	if !slices.Equal(got, slices.Compact(want)) {
		t.Errorf("the refs are %q, want %q", got, want)
	}
	for _, name := range []string{followedRef, "ostree/1/1/0"} {
		if got := strings.TrimSpace(mustCommand(t, "ostree", "rev-parse", "--repo="+repo, name)); got != commit {
			t.Errorf("%s names %s, want %s", name, got, commit)
		}
	}
}

func blobRef(l v1.Descriptor) string {
	return "ostree/container/blob/sha256_3A_" + l.Digest.Encoded()
}

// checkMetadata wants the merge commit to carry manifest and configuration with sorted keys and
// without spaces.
func checkMetadata(t *testing.T, repo, dir, commit string) {
	t.Helper()
	d, err := layout.First(dir)
	must(t, err)
	config, manifest, _, err := layout.Read(dir)
	must(t, err)
	blob := func(d v1.Descriptor) string {
		b, err := os.ReadFile(filepath.Join(dir, "blobs/sha256", d.Digest.Encoded()))
		must(t, err)
		var document any
		must(t, json.Unmarshal(b, &document))
		sorted, err := json.Marshal(document)
		must(t, err)
		return string(sorted)
	}
	for key, want := range map[string]string{
		"ostree.manifest-digest":        d.Digest.String(),
		"ostree.manifest":               blob(d),
		"ostree.container.image-config": blob(manifest.Config),
	} {
		if got := metadataString(t, repo, commit, key); got != want {
			t.Errorf("%s is %.200q, want %.200q", key, got, want)
		}
	}
	if version := metadataString(t, repo, commit, "ostree.importer.version"); version == "" {
		t.Error("the importer has no version")
	}
	when := mustCommand(t, "ostree", "show", "--repo="+repo, commit)
	if want := config.Created.UTC().Format("2006-01-02 15:04:05"); !strings.Contains(when, "Date:  "+want) {
		t.Errorf("ostree show says %q, want the date %s", when, want)
	}
}

// metadataString reads a string that ostree prints as GVariant text. Either kind of quotes is used,
// and their content escaped as in JSON.
func metadataString(t *testing.T, repo, commit, key string) string {
	t.Helper()
	text := strings.TrimSpace(mustCommand(t, "ostree", "show", "--repo="+repo, "--print-metadata-key="+key, commit))
	body, ok := strings.CutPrefix(text, "'")
	if !ok {
		t.Fatalf("%s: GVariant text %.100q", key, text)
	}
	body = strings.TrimSuffix(body, "'")
	body = strings.ReplaceAll(strings.ReplaceAll(body, `\'`, `'`), `"`, `\"`)
	var s string
	if err := json.Unmarshal([]byte(`"`+body+`"`), &s); err != nil {
		t.Fatalf("%s: %v in %.100q", key, err, text)
	}
	return s
}

// checkLayerCommits wants in each layer's commit the files of the layer: whiteouts are plain files
// there.
func checkLayerCommits(t *testing.T, repo, dir string) {
	t.Helper()
	_, manifest, _, err := layout.Read(dir)
	must(t, err)
	first := len(manifest.Layers) - len(featureLayers()) - 2
	for i, items := range featureLayers() {
		listing := mustCommand(t, "ostree", "ls", "-R", "--nul-filenames-only", "--repo="+repo, blobRef(manifest.Layers[first+i]))
		got := map[string]bool{}
		for name := range strings.SplitSeq(listing, "\x00") {
			got[name] = true
		}
		for _, item := range items {
			name := filepath.Clean("/" + item.Name)
			if rest, ok := strings.CutPrefix(name, "/etc"); ok {
				name = "/usr/etc" + rest
			}
			dropped := strings.HasPrefix(name, "/tmp/") || strings.HasPrefix(name, "/run/")
			if got[name] == dropped {
				t.Errorf("layer %d: %q is there: %v", first+i, name, got[name])
			}
		}
	}
}

// largeDirectory makes sure that the image has the shape that set off a leaked mapping elsewhere: a
// directory object of more than 16 KiB, changed by an opaque whiteout.
func largeDirectory(t *testing.T, repo string) {
	t.Helper()
	found, err := filepath.Glob(repo + "/objects/*/*.dirtree")
	must(t, err)
	large := 0
	for _, name := range found {
		st, err := os.Stat(name)
		must(t, err)
		if st.Size() > 16<<10 {
			large++
		}
	}
	if large < 3 { // of both layers and of TinyImage
		t.Errorf("only %d directory objects exceed 16 KiB", large)
	}
	listing := mustCommand(t, "ostree", "ls", "--repo="+repo, followedRef, "/usr/share/crowd")
	if n := strings.Count(listing, "\n") - 1; n != 500 || strings.Contains(listing, "/first-") {
		t.Errorf("the opaque directory has %d entries in the end, want the upper layer's 500", n)
	}
}

// Hostile images end with status 5 and name layer and entry, and nothing is left.
func TestHostileImages(t *testing.T) {
	for name, c := range map[string]struct {
		bad  item
		says string
	}{
		"path out of the tree":      {file("usr/../../../../../../tmp/outside", "x"), `"\.\."`},
		"hard link out of the tree": {hardLink("usr/passwd", "../../../../../../etc/passwd"), `"\.\."`},
		"hard link to another":      {hardLink("usr/passwd", "usr/lib/os-release"), `not in the layer`},
		"through a symbolic link":   {file("usr/out/outside", "x"), `not a directory`},
		"device":                    {item{Header: tarDevice("usr/disk")}, `device`},
		"whiteout of the parent":    {file("usr/.wh...", ""), `whiteout`},
		"path too long":             {file(strings.Repeat("d/", 2048)+"x", ""), `4095`},
		"name not UTF-8":            {file("usr/\xff\xfe", ""), `UTF-8`},
	} {
		t.Run(name, func(t *testing.T) {
			dir, tag := stackOn(t, TinyImage(t), func(s *layout.Stack) {
				must(t, s.Add(writeItems(symlink("usr/out", "/tmp"), c.bad)))
			})
			_, manifest, _, err := layout.Read(dir)
			must(t, err)
			culprit := manifest.Layers[len(manifest.Layers)-1].Digest
			raw := filepath.Join(t.TempDir(), "disk.raw")
			makeRaw(t, raw, tinySize)
			refused(t, 5, installArgs("oci:"+dir+":"+tag, raw), "layer "+culprit.String(), `entry "`, c.says)
			if _, err := os.Lstat("/tmp/outside"); !os.IsNotExist(err) {
				t.Error("something was written outside of the target")
			}
		})
	}
}

func TestDecompressionBomb(t *testing.T) {
	dir, tag := stackOn(t, TinyImage(t), func(s *layout.Stack) {
		must(t, s.Add(writeItems(file("usr/bomb", strings.Repeat("\x00", 200<<20)))))
	})
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	args := installArgs("oci:"+dir+":"+tag, raw, "--max-layer-size", "100M")
	refused(t, 5, args, `layer sha256:`, fmt.Sprintf(`size limit|limit of %d bytes`, 100<<20))
}
