package verify

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"installer/finalize"
	"installer/rootfs/deploy"
	"installer/rootfs/ostree"
)

// layerRepo is a repository with an image of a base commit, a layer of its objects and another
// layer.
type layerRepo struct {
	t       *testing.T
	repo    *ostree.Repo
	digests []string
	commits []ostree.Checksum
}

func newLayerRepo(t *testing.T) *layerRepo {
	dir, err := os.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { dir.Close() })
	must(t, deploy.InitSysroot(dir))
	repo, err := ostree.Create(dir, ostree.Config{}, finalize.NewLedger())
	must(t, err)
	t.Cleanup(func() { must(t, repo.Close()) })
	r := &layerRepo{t: t, repo: repo}
	file, err := repo.WriteContent(t.Context(), ostree.FileHeader{Mode: 0o100644}, 1, strings.NewReader("x"))
	must(t, err)
	for i, name := range []string{"base", file.String(), "derived"} {
		r.digests = append(r.digests, "sha256:"+strings.Repeat(fmt.Sprint(i+1), 64))
		r.commits = append(r.commits, r.commit(name, file))
		r.ref(i, r.commits[i])
	}
	return r
}

func (r *layerRepo) commit(name string, file ostree.Checksum) ostree.Checksum {
	meta, err := r.repo.WriteDirMeta(ostree.DirMeta{Mode: 0o40755})
	must(r.t, err)
	tree, err := r.repo.WriteDirTree(ostree.DirTree{Files: []ostree.FileEntry{{Name: name, Checksum: file}}})
	must(r.t, err)
	sum, err := r.repo.WriteCommit(ostree.Commit{Tree: tree, Meta: meta})
	must(r.t, err)
	return sum
}

func (r *layerRepo) ref(layer int, commit ostree.Checksum) {
	name, err := deploy.BlobRef(r.digests[layer])
	must(r.t, err)
	must(r.t, r.repo.SetRef(name, commit))
}

func (r *layerRepo) lose(layer int) {
	name, err := deploy.BlobRef(r.digests[layer])
	must(r.t, err)
	must(r.t, r.repo.DeleteRef(name))
}

// merge is the commit of the image, whose configuration says that two layers hold the base.
func (r *layerRepo) merge() ostree.Commit {
	var manifest, ids []string
	for _, d := range r.digests {
		manifest = append(manifest, fmt.Sprintf("{%q:%q}", "digest", d))
		ids = append(ids, fmt.Sprintf("%q", d))
	}
	config := fmt.Sprintf(`{"config":{"Labels":{"ostree.final-diffid":%q}},"rootfs":{"diff_ids":[%s]}}`, r.digests[1], strings.Join(ids, ","))
	return ostree.Commit{Parent: r.commits[0], Metadata: []ostree.KeyValue{
		{Key: keyManifestDigest, Value: ostree.StringValue("sha256:0")},
		{Key: keyManifest, Value: ostree.StringValue(`{"layers":[` + strings.Join(manifest, ",") + "]}")},
		{Key: keyConfig, Value: ostree.StringValue(config)},
	}}
}

// TestImageLayers checks what an updater reads back of the layers of an ostree-native image.
func TestImageLayers(t *testing.T) {
	for name, c := range map[string]struct {
		change     func(r *layerRepo, merge *ostree.Commit)
		says, note string
	}{
		"all there": {func(*layerRepo, *ostree.Commit) {}, "", ""},
		"no parent": {func(_ *layerRepo, merge *ostree.Commit) { merge.Parent = ostree.Checksum{} }, "", ""},
		"no first layer": {func(r *layerRepo, _ *ostree.Commit) { r.lose(0) },
			"no ref for the image's first layer", ""},
		"no layer of objects": {func(r *layerRepo, _ *ostree.Commit) { r.lose(1) }, "", "1 of the image's 3 layers have no ref"},
		"another parent": {func(r *layerRepo, merge *ostree.Commit) { merge.Parent = r.commits[2] },
			"and the parent of the commit is", ""},
		"files in the place of objects": {func(r *layerRepo, _ *ostree.Commit) { r.ref(1, r.commits[2]) },
			`under the name "derived"`, ""},
		"fewer layers": {func(r *layerRepo, merge *ostree.Commit) {
			merge.Metadata[1].Value = ostree.StringValue(`{"layers":[{"digest":"` + r.digests[0] + `"}]}`)
		}, "the commit's image configuration has 2 layers, and its manifest 1", ""},
		"no such layer": {func(r *layerRepo, merge *ostree.Commit) {
			merge.Metadata[2].Value = ostree.StringValue(`{"config":{"Labels":{"ostree.final-diffid":"sha256:0"}}}`)
		}, "no layer has the diff-id", ""},
		"no configuration": {func(_ *layerRepo, merge *ostree.Commit) { merge.Metadata = merge.Metadata[:2] }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newLayerRepo(t)
			merge := r.merge()
			c.change(r, &merge)
			var notes []string
			l, err := imageLayers(merge)
			if err == nil {
				err = l.check(r.repo, merge, func(what string) { notes = append(notes, what) })
			}
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v, want %q", err, c.says)
			}
			if got := strings.Join(notes, "\n"); c.note == "" && got != "" || !strings.Contains(got, c.note) {
				t.Errorf("notes %q, want %q", got, c.note)
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
