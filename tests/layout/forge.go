package layout

import (
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Forge makes the layout dst from the only image of the layout src, with a configuration that
// states a wrong digest of the first layer's tar. All digests of blobs are right. It returns that
// layer's.
func Forge(src, dst string) (digest.Digest, error) {
	config, manifest, tag, err := Read(src)
	if err != nil {
		return "", err
	}
	if err := prepare(dst); err != nil {
		return "", err
	}
	for _, l := range manifest.Layers {
		if err := copyBlob(src, dst, l.Digest); err != nil {
			return "", fmt.Errorf("copying a layer of %s: %w", src, err)
		}
	}
	config.RootFS.DiffIDs[0] = digest.FromString("something else")
	return manifest.Layers[0].Digest, commit(dst, config, manifest, tag)
}
