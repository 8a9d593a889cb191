package install

import (
	"installer/disk"
	"installer/rootfs/image"
)

const mib = 1 << 20

// Estimates for content whose size the image does not state, and for what a
// file system takes beside content. They lean to the large side by little: a
// plan that is refused must be one that would have failed.
const (
	compressionRatio = 3        // of a compressed layer that does not say its size; distribution images have 2.3 to 3
	slack            = 2        // percent for directories, inodes and repository metadata
	freeRoom         = 64 * mib // a system that boots with no room at all is of no use
)

// fixedCost is what an empty file system of the root's size takes for itself.
func fixedCost(fs disk.Filesystem) int64 {
	switch fs {
	case disk.XFS:
		return 64 * mib // the log's least size since xfsprogs 5.19
	case disk.Btrfs:
		return 128 * mib // metadata is kept twice, in chunks
	}
	return 64 * mib // the journal
}

// rootNeed estimates how large the root must be for the image, in bytes. A
// content that several layers carry is counted each time.
func rootNeed(img *image.Image, fs disk.Filesystem) int64 {
	var content int64
	for _, layer := range img.Layers {
		switch {
		case layer.Uncompressed > 0:
			content += layer.Uncompressed
		case layer.Size > 0:
			content += layer.Size * compressionRatio
		}
	}
	return content + content*slack/100 + fixedCost(fs) + freeRoom
}
