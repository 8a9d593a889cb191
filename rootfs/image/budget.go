package image

import (
	"fmt"
	"sync/atomic"
)

// Bounds on the memory that an image can claim beside its contents.
const (
	// Estimated memory of one directory and of one file or link in a tree, in bytes, without its
	// name, link target and attributes.
	dirCost  = 512
	fileCost = 256

	// maxXattrs bounds the extended attributes of all layers together, in bytes.
	maxXattrs = 64 << 20

	// A layer may imply so many directories, and so many more for each of its entries. Tars without
	// entries for directories imply less than one for a file.
	freeImplied = 10_000
	impliedEach = 8
)

// budget is the memory that is left to the trees of one image. Layers use it concurrently.
type budget struct {
	tree   atomic.Int64 // bytes of memory
	xattrs atomic.Int64 // bytes of names and values
	most   int64
}

func newBudget(tree int64) *budget {
	b := &budget{most: tree}
	b.tree.Store(tree)
	b.xattrs.Store(maxXattrs)
	return b
}

func (b *budget) spend(bytes int) error {
	if b.tree.Add(-int64(bytes)) < 0 {
		return fmt.Errorf("the names, links and directories of the image take more than the limit of %d bytes of memory", b.most)
	}
	return nil
}

// spendXattrs counts attributes, which also take memory of the trees.
func (b *budget) spendXattrs(xattrs []Xattr) error {
	sum := 0
	for _, x := range xattrs {
		sum += len(x.Name) + len(x.Value)
	}
	if b.xattrs.Add(-int64(sum)) < 0 {
		return fmt.Errorf("the extended attributes of the image have more than the limit of %d bytes", maxXattrs)
	}
	return b.spend(sum)
}

// cost estimates the memory of an entry in a tree, but for its attributes.
func (e *entry) cost() int {
	cost := fileCost
	if e.Mode&modeType == modeDir {
		cost = dirCost
	}
	return cost + len(e.path) + len(e.target)
}
