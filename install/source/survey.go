package source

import (
	"context"
	"errors"
	"fmt"

	"installer/rootfs/deploy"
	"installer/rootfs/image"
)

// Survey holds the facts of a source that another program found by reading and verifying it whole.
// It spares the scan. The import verifies all content again.
type Survey struct {
	Digest  string `json:"digest"`  // of the manifest
	Tree    string `json:"tree"`    // directory in which the merged tree stands
	Stored  int64  `json:"stored"`  // as in an [image.Inventory], an upper bound
	Objects int64  `json:"objects"` // likewise
	Content int64  `json:"content"` // bytes that the installation takes on a root at most
	Inodes  int64  `json:"inodes"`  // likewise
}

// Survey makes the survey of a source that was scanned and measured, whose merged tree will stand
// in dir.
func (s *Source) Survey(dir string, inv *image.Inventory, n Need) *Survey {
	return &Survey{Digest: s.Image.ManifestDigest, Tree: dir, Stored: inv.Stored, Objects: inv.Objects, Content: n.Content, Inodes: n.Inodes}
}

// surveyed returns the inventory that a scan of the source would make, but for equal contents.
func (s *Source) surveyed(ctx context.Context, files []string) (*image.Inventory, error) {
	if digest := s.Image.ManifestDigest; digest != s.o.Survey.Digest {
		return nil, s.Fault(fmt.Errorf("it has the digest %s, and the surveyed image has %s", digest, s.o.Survey.Digest))
	}
	tree, err := image.Open(ctx, image.Ref{Transport: image.TransportRootfs, Name: s.o.Survey.Tree}, image.OpenOptions{Platform: s.o.Open.Platform})
	if err != nil {
		return nil, err
	}
	inv, err := tree.Scan(ctx, image.ScanOptions{Files: files, Look: lookAt})
	if err = errors.Join(err, tree.Close()); err != nil {
		return nil, err
	}
	inv.Stored, inv.Objects, inv.Bound = s.o.Survey.Stored, s.o.Survey.Objects, true
	return inv, nil
}

// Measure adds up the bytes and inodes that an installation takes, with the bound images, of a system
// whose initramfs makes its root so.
func (s *Source) Measure(inv *image.Inventory, b *Bound, root deploy.RootSettings) Need {
	n := measure(inv)
	n.addComposefs(inv.Tree, root)
	if survey := s.o.Survey; survey != nil && inv.Bound {
		n.Content, n.Inodes = survey.Content, survey.Inodes
	}
	n.Content += b.size.Content
	n.Inodes += b.size.Inodes
	return n
}
