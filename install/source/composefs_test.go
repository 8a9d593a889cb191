package source

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"installer/rootfs/composefs"
	"installer/rootfs/deploy"
	"installer/rootfs/image"
	"installer/rootfs/ostree"
)

func folder(children map[string]*image.Node) *image.Node {
	return &image.Node{Meta: image.Meta{Mode: 0o40755}, Children: children}
}

// inodeOf is the file as its composefs image has it.
func inodeOf(n *image.Node) *composefs.Inode {
	out := &composefs.Inode{Mode: n.Mode, Links: 1, Xattrs: n.Xattrs, Target: n.Target, Size: uint64(n.Size)}
	if n.IsRegular() && n.Size > 0 {
		out.Path, out.Digest = ostree.ContentPath(ostree.Checksum(n.Content)), n.Content[:]
	}
	for name, child := range n.Children {
		out.Entries = append(out.Entries, composefs.Entry{Name: name, Inode: inodeOf(child)})
	}
	slices.SortFunc(out.Entries, func(a, b composefs.Entry) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// The room that is set aside for a composefs image is enough, and not a multiple of it.
func TestComposefsRoom(t *testing.T) {
	many, dirs := map[string]*image.Node{}, map[string]*image.Node{}
	for i := range 20_000 {
		n := &image.Node{Meta: image.Meta{Mode: 0o100644}, Size: int64(i)}
		n.Content[0], n.Content[1], n.Content[2] = byte(i), byte(i>>8), 1
		many[fmt.Sprintf("file-%d", i)] = n
	}
	for i := range 500 {
		link := &image.Node{Meta: image.Meta{Mode: 0o120777}, Target: strings.Repeat("t", 1+i*8%4000)}
		labelled := &image.Node{Meta: image.Meta{Mode: 0o100644, Xattrs: []image.Xattr{{Name: "user.x", Value: []byte(strings.Repeat("v", i))}}}}
		dirs[fmt.Sprintf("dir-%d", i)] = folder(map[string]*image.Node{"link": link, "labelled": labelled})
	}
	for name, root := range map[string]*image.Node{"many": folder(many), "dirs": folder(dirs), "empty": folder(map[string]*image.Node{})} {
		img, err := composefs.New(inodeOf(root), composefs.Versions{Max: 1})
		if err != nil {
			t.Fatal(err)
		}
		var n, none Need
		none.addComposefs(&image.Tree{Root: root}, deploy.RootSettings{})
		n.addComposefs(&image.Tree{Root: root}, deploy.RootSettings{Composefs: deploy.ComposefsYes, Verity: true})
		if n.Content < img.Size() || n.Content > 3*img.Size()+composefsWhole || n.Inodes != 1 || none != (Need{}) {
			t.Errorf("%s: %+v for an image of %d bytes, and %+v without one", name, n, img.Size(), none)
		}
	}
}
