package verify

import (
	"encoding/json"
	"errors"
	"fmt"

	"installer/install/size"
	"installer/rootfs/deploy"
	"installer/rootfs/image"
	"installer/rootfs/ostree"
)

// layers are those of the image that a commit was made of, lowest first.
type layers struct {
	digests []string // of their blobs
	base    int      // so many, from the lowest, hold the objects of an ostree commit
}

// imageLayers reads the manifest and configuration that a commit carries. An updater does without
// the configuration.
func imageLayers(c ostree.Commit) (l layers, err error) {
	if metadata(c, keyManifestDigest) == "" {
		return l, errors.New("the commit does not say of which image manifest it was made (" + keyManifestDigest + ")")
	}
	var manifest struct {
		Layers []struct {
			Digest string `json:"digest"`
		} `json:"layers"`
	}
	if err := json.Unmarshal([]byte(metadata(c, keyManifest)), &manifest); err != nil {
		return l, fmt.Errorf("the commit's image manifest cannot be read: %w", err)
	}
	if len(manifest.Layers) == 0 {
		return l, errors.New("the commit's image manifest has no layers")
	}
	for _, layer := range manifest.Layers {
		l.digests = append(l.digests, layer.Digest)
	}
	config := metadata(c, keyConfig)
	if config == "" || config == "null" {
		return l, nil
	}
	if l.base, err = image.BaseLayers([]byte(config)); err != nil {
		return l, fmt.Errorf("the commit's image configuration: %w", err)
	}
	if l.base > len(l.digests) {
		return l, fmt.Errorf("the commit's image configuration has %s, and its manifest %d", size.Count(l.base, "layer"), len(l.digests))
	}
	return l, nil
}

// check looks for the commits of the layers, from which an updater takes what it need not fetch.
func (l layers) check(repo *ostree.Repo, merge ostree.Commit, note func(string)) error {
	lost := 0
	for i, digest := range l.digests {
		ref, err := deploy.BlobRef(digest)
		if err != nil {
			return err
		}
		commit, err := repo.ResolveRef(ref)
		switch {
		case err != nil && i == 0:
			return fmt.Errorf("the repository has no ref for the image's first layer, without which no update works: %w", err)
		case errors.Is(err, ostree.ErrNotFound):
			lost++
			continue
		case err == nil && i < l.base && i > 0:
			err = checkObjectSet(repo, commit)
		}
		if err != nil {
			return fmt.Errorf("the ref of layer %s: %w", digest, err)
		}
		if i == 0 && l.base > 0 && !merge.Parent.IsZero() && merge.Parent != commit {
			return fmt.Errorf("the image's first layer holds the ostree commit %s, and the parent of the commit is %s", commit, merge.Parent)
		}
	}
	if lost > 0 {
		note(fmt.Sprintf("%d of the image's %d layers have no ref: the next update fetches them anew", lost, len(l.digests)))
	}
	return nil
}

// checkObjectSet checks the commit of a layer that holds the file objects of an ostree commit: a
// directory of them by their checksums.
func checkObjectSet(repo *ostree.Repo, commit ostree.Checksum) error {
	c, err := repo.LoadCommit(commit)
	if err != nil {
		return err
	}
	list, err := repo.LoadDirTree(c.Tree)
	if err != nil {
		return err
	}
	if len(list.Dirs) > 0 {
		return fmt.Errorf("commit %s has directories, and the layer holds objects of an ostree commit", commit)
	}
	for _, f := range list.Files {
		if f.Name != f.Checksum.String() {
			return fmt.Errorf("commit %s has the object %s under the name %q", commit, f.Checksum, f.Name)
		}
	}
	return nil
}
