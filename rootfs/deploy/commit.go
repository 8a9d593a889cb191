package deploy

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"installer/rootfs/image"
	"installer/rootfs/ostree"
)

// ImporterVersion is the release of ostree-ext whose rules the import follows. Updaters show it and
// decide nothing by it.
const ImporterVersion = "0.15.3"

// RootfsRef is the ref of a system that was installed from a plain directory, where WriteImage is
// given no other name.
const RootfsRef = "installer/rootfs"

// Metadata keys of commits, as ostree-ext and libostree name them.
const (
	keyComposefsDigest = "ostree.composefs.digest.v0"
	keyImageConfig     = "ostree.container.image-config"
	keyImporter        = "ostree.importer.version"
	keyManifest        = "ostree.manifest"
	keyManifestDigest  = "ostree.manifest-digest"
	keyVersion         = "version"
)

// WriteImage writes the directories of tree, which was imported from img through NewSink, and
// returns the commit of the merged tree.
//
// A container image gets the objects that its updater reads back: a commit and a ref for each
// layer, a merge commit that carries manifest and configuration, and the image's ref. The commit
// that an ostree-native image holds is written as it is, and is the parent of the merge. target is the
// reference, with transport, that the host will follow, such as docker://quay.io/x/y:latest. A
// plain directory has none of that; it gets one commit under the plain ref target, or RootfsRef if
// target is empty.
//
// Timestamps come from the image, so that one image always gives the same commits.
func WriteImage(ctx context.Context, repo *ostree.Repo, img *image.Image, tree *image.Tree, target string) (ostree.Checksum, error) {
	if err := writeTwins(ctx, repo, tree.Twins); err != nil {
		return ostree.Checksum{}, err
	}
	w := newTreeWriter(repo)
	if err := repo.StartSync(); err != nil { // while directories and links are made
		return ostree.Checksum{}, err
	}
	if img.Manifest == nil {
		return writeRootfs(ctx, w, img, tree, target)
	}
	if err := writeLayers(ctx, w, img, tree); err != nil {
		return ostree.Checksum{}, err
	}
	ref, err := ImageRef(target)
	if err != nil {
		return ostree.Checksum{}, err
	}
	merge := ostree.Commit{Metadata: mergeMetadata(img), Timestamp: timestamp(img)}
	if tree.Base != nil {
		merge.Parent = ostree.Checksum(tree.Base.Checksum)
	}
	return writeDeployed(ctx, w, tree.Root, ref, merge)
}

// writeTwins stores the files that share the content of others.
func writeTwins(ctx context.Context, repo *ostree.Repo, twins []image.Twin) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	out := NewSink(repo)
	for _, t := range twins {
		group.Go(func() error {
			err := repo.ReadContent(ostree.Checksum(t.Of.Content), func(_ ostree.FileHeader, size int64, content io.Reader) (err error) {
				t.Node.Content, err = out.Store(ctx, t.Node.Meta, t.Node.Target, size, content)
				return err
			})
			if err != nil {
				return fmt.Errorf("storing object %s with the label %s, too: %w", t.Of.Content, t.Node.Label(), err)
			}
			return nil
		})
	}
	return group.Wait()
}

func writeRootfs(ctx context.Context, w *treeWriter, img *image.Image, tree *image.Tree, ref string) (ostree.Checksum, error) {
	if ref == "" {
		ref = RootfsRef
	}
	return writeDeployed(ctx, w, tree.Root, ref, ostree.Commit{Metadata: versionMetadata(img), Timestamp: timestamp(img)})
}

// writeDeployed is writeCommit for the commit that is deployed. Where the objects have fs-verity, the
// commit names the digest that the composefs image of its tree will have.
func writeDeployed(ctx context.Context, w *treeWriter, root *image.Node, ref string, c ostree.Commit) (ostree.Checksum, error) {
	if w.repo.Config().Verity {
		digest, err := composefsDigest(w.repo, root)
		if err != nil {
			return ostree.Checksum{}, err
		}
		c.Metadata = append([]ostree.KeyValue{{Key: keyComposefsDigest, Value: ostree.BytesValue(digest[:])}}, c.Metadata...)
	}
	return writeCommit(ctx, w, root, ref, c)
}

// writeLayers writes each layer's own commit, which keeps its objects and spares its download at
// the next update.
func writeLayers(ctx context.Context, w *treeWriter, img *image.Image, tree *image.Tree) error {
	if len(tree.Layers) != len(img.Layers) {
		return fmt.Errorf("the image has %d layers, and its tree was made of %d", len(img.Layers), len(tree.Layers))
	}
	done := make(map[string]bool)
	for i, layer := range img.Layers {
		if done[layer.Digest] {
			continue
		}
		done[layer.Digest] = true
		ref, err := BlobRef(layer.Digest)
		if err != nil {
			return err
		}
		if _, err := writeCommit(ctx, w, tree.Layers[i], ref, layerCommit(img, tree, i)); err != nil {
			return fmt.Errorf("keeping layer %s: %w", layer.Digest, err)
		}
	}
	return writeDetached(w.repo, tree.Base)
}

// layerCommit returns the commit of a layer without its tree: that of an ostree-native image as it
// is, an empty one for the file objects of that, which updaters know by its checksum, or one that
// bears the importer's name.
func layerCommit(img *image.Image, tree *image.Tree, i int) ostree.Commit {
	switch {
	case tree.Base == nil || i >= tree.Base.Layers:
		return ostree.Commit{Metadata: importerMetadata(), Timestamp: timestamp(img)}
	case i == 0:
		return tree.Base.Commit
	}
	return ostree.Commit{}
}

// writeDetached keeps the metadata beside the commit of an ostree-native image, such as signatures.
func writeDetached(repo *ostree.Repo, base *image.Base) error {
	if base == nil || len(base.Detached) == 0 {
		return nil
	}
	if err := repo.WriteCommitMeta(ostree.Checksum(base.Checksum), base.Detached); err != nil {
		return fmt.Errorf("keeping the metadata beside commit %s: %w", base.Checksum, err)
	}
	return nil
}

// writeCommit completes the commit with the tree's objects and writes it after them, and its ref
// after it.
func writeCommit(ctx context.Context, w *treeWriter, root *image.Node, ref string, c ostree.Commit) (ostree.Checksum, error) {
	sums, err := w.write(ctx, root)
	if err != nil {
		return ostree.Checksum{}, fmt.Errorf("writing the directories of %s: %w", ref, err)
	}
	if known := (written{c.Tree, c.Meta}); known != (written{}) && known != sums {
		return ostree.Checksum{}, fmt.Errorf("writing the directories of %s: they have the checksums %s and %s, and the commit names %s and %s",
			ref, sums.tree, sums.meta, known.tree, known.meta)
	}
	c.Tree, c.Meta = sums.tree, sums.meta
	sum, err := w.repo.WriteCommit(c)
	if err != nil {
		return ostree.Checksum{}, fmt.Errorf("writing the commit of %s: %w", ref, err)
	}
	if err := w.repo.SetRef(ref, sum); err != nil {
		return ostree.Checksum{}, fmt.Errorf("setting ref %s: %w", ref, err)
	}
	return sum, nil
}

func importerMetadata() []ostree.KeyValue {
	return []ostree.KeyValue{{Key: keyImporter, Value: ostree.StringValue(ImporterVersion)}}
}

// mergeMetadata is the metadata that bootc reads back from the deployed commit, keys in order. The
// version is not needed by bootc; ostree shows it, and puts it into the boot entry's title.
func mergeMetadata(img *image.Image) []ostree.KeyValue {
	return append([]ostree.KeyValue{
		{Key: keyImageConfig, Value: ostree.StringValue(string(canonicalJSON(img.Config)))},
		{Key: keyImporter, Value: ostree.StringValue(ImporterVersion)},
		{Key: keyManifest, Value: ostree.StringValue(string(canonicalJSON(img.Manifest)))},
		{Key: keyManifestDigest, Value: ostree.StringValue(img.ManifestDigest)},
	}, versionMetadata(img)...)
}

func versionMetadata(img *image.Image) []ostree.KeyValue {
	if v := imageVersion(img); v != "" {
		return []ostree.KeyValue{{Key: keyVersion, Value: ostree.StringValue(v)}}
	}
	return nil
}

// imageVersion is the version that the image's labels state, or "".
func imageVersion(img *image.Image) string {
	if v := img.Labels["org.opencontainers.image.version"]; v != "" {
		return v
	}
	return img.Labels["version"]
}

// timestamp is the image's time of creation; an image that states none is of 1970.
func timestamp(img *image.Image) uint64 {
	if img.Created.IsZero() {
		return 0
	}
	return uint64(max(img.Created.Unix(), 0))
}
