package install

import (
	"context"
	"errors"
	"fmt"

	"installer/rootfs/image"
)

// Survey is what another program knows of the source, which read and verified
// it whole: with it no layer is read just to be looked through. What is written
// is verified again in any case.
type Survey struct {
	Digest  string `json:"digest"`  // of the manifest
	Tree    string `json:"tree"`    // directory in which the merged tree stands
	Stored  int64  `json:"stored"`  // as in an [image.Inventory], an upper bound
	Objects int64  `json:"objects"` // likewise
	Content int64  `json:"content"` // bytes that the installation takes on a root at most
	Inodes  int64  `json:"inodes"`  // likewise
}

// SurveyOf makes the survey of a source of which everything has been read.
func SurveyOf(digest, dir string, tree *image.Tree) *Survey {
	inv := &image.Inventory{Tree: tree, Bound: true}
	seen := map[*image.Node]bool{}
	for _, layer := range tree.Layers {
		count(layer, inv, seen)
	}
	n := measure(inv)
	return &Survey{Digest: digest, Tree: dir, Stored: inv.Stored, Objects: inv.Objects, Content: n.content, Inodes: n.inodes}
}

// count adds up what is stored of a layer, a file with several names once.
func count(n *image.Node, inv *image.Inventory, seen map[*image.Node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	if n.Children == nil {
		inv.Objects++
		inv.Stored += (n.Size + image.StoredBlock - 1) / image.StoredBlock * image.StoredBlock
	}
	for _, child := range n.Children {
		count(child, inv, seen)
	}
}

// inventory is what a scan of the source would find, but for equal contents.
func (s *Survey) inventory(ctx context.Context, r *run) (*image.Inventory, error) {
	if digest := r.source.image.ManifestDigest; digest != s.Digest {
		return nil, r.sourceFault(fmt.Errorf("it has the digest %s, and what was looked through before has %s", digest, s.Digest))
	}
	tree, err := image.Open(ctx, image.Ref{Transport: image.TransportRootfs, Name: s.Tree}, image.OpenOptions{Platform: r.opts.SourceOpen.Platform})
	if err != nil {
		return nil, err
	}
	inv, err := tree.Scan(ctx, image.ScanOptions{Files: scannedFiles()})
	if err = errors.Join(err, tree.Close()); err != nil {
		return nil, err
	}
	inv.Stored, inv.Objects, inv.Bound = s.Stored, s.Objects, true
	return inv, nil
}

// measure adds up what the installation takes, with the bound images.
func (r *run) measure(inv *image.Inventory) {
	r.source.facts.need, r.source.facts.inexact = measure(inv), inv.Bound
	if s := r.opts.Survey; s != nil && inv.Bound {
		r.source.facts.need = need{content: s.Content, inodes: s.Inodes}
	}
	r.source.facts.need.content += r.source.bound.size.Content
	r.source.facts.need.inodes += r.source.bound.size.Inodes
}
