package source

import (
	"fmt"
	"testing"

	"installer/rootfs/image"
)

// A directory counts once, however many layers have it, and by the size of its list.
func TestMeasureLists(t *testing.T) {
	dir := func(children map[string]*image.Node) *image.Node {
		return &image.Node{Meta: image.Meta{Mode: 0o40755}, Children: children}
	}
	chunk := map[string]*image.Node{}
	for i := range 1000 {
		chunk[fmt.Sprintf("%064x", i)] = &image.Node{Meta: image.Meta{Mode: 0o100644}}
	}
	shared := dir(map[string]*image.Node{"a": {Meta: image.Meta{Mode: 0o100644}}})
	base := dir(map[string]*image.Node{"usr": shared})
	one := &image.Inventory{Tree: &image.Tree{Root: base, Layers: []*image.Node{base}}}
	two := &image.Inventory{Tree: &image.Tree{Root: base, Layers: []*image.Node{base, dir(chunk), dir(map[string]*image.Node{"usr": shared})}}}
	a, b := measure(one), measure(two)
	// 104 bytes for each object, in blocks of 4096, and a root of one more.
	if got, want := b.Content-a.Content, int64(26*4096+4096); got != want || b.Inodes-a.Inodes != 2 {
		t.Errorf("two more layers take %d bytes and %d inodes, want %d and 2", got, b.Inodes-a.Inodes, want)
	}
}
