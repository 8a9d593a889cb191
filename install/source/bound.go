package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"installer/install/journal"
	"installer/rootfs/bound"
	"installer/rootfs/image"
)

// BoundImages is the treatment of the container images that an image binds logically (bootc's
// usr/lib/bootc/bound-images.d).
type BoundImages string

// The treatments of bound images, as bootc names them.
const (
	BoundStored BoundImages = "stored" // copied from this machine's storage
	BoundPull   BoundImages = "pull"   // fetched from their registries
	BoundSkip   BoundImages = "skip"   // left for the host to fetch
)

// BoundImage is a container image that is brought to the target.
type BoundImage struct {
	File   string `json:"file"`   // of the image, that binds it
	Name   string `json:"name"`   // that it is stored by
	Digest string `json:"digest"` // of its manifest
}

// boundStorageLink is where the running system looks for bootc's storage.
const boundStorageLink = "usr/lib/bootc/storage"

// Bound are the images that the source binds, as far as they are open.
type Bound struct {
	Images  []*bound.Image
	journal *journal.Journal
	open    *journal.Undo
	size    bound.Size
}

// List returns the entries of reports.
func (b *Bound) List() (list []BoundImage) {
	for _, img := range b.Images {
		list = append(list, BoundImage{img.File, img.Name, img.ManifestDigest})
	}
	return list
}

// Size returns how many bytes are read of them at most, -1 if that is unknown.
func (b *Bound) Size() (sum int64) {
	for _, img := range b.Images {
		size := img.SourceSize()
		if size < 0 {
			return -1
		}
		sum += size
	}
	return sum
}

func (b *Bound) close() error {
	var errs []error
	for _, img := range b.Images {
		errs = append(errs, img.Close())
	}
	return errors.Join(errs...)
}

// Close gives the images back.
func (b *Bound) Close() error {
	if b.open == nil {
		return nil
	}
	b.journal.Drop(b.open)
	if err := b.close(); err != nil {
		return fmt.Errorf("closing the bound images: %w", err)
	}
	return nil
}

// Bind opens the images that the source binds, unless the user leaves them out. It refuses missing
// ones before the first write.
func (s *Source) Bind(ctx context.Context, inv *image.Inventory) (*Bound, error) {
	b := &Bound{journal: s.journal}
	dir := inv.Tree.Lookup(bound.Dir)
	if dir == nil || len(dir.Names()) == 0 {
		return b, nil
	}
	switch links := dir.Names(); {
	case s.o.Bound == BoundSkip:
		s.log.Note("the image binds other images (%q), which are not on the disk: the host fetches them with its first update", links)
		return b, nil
	case s.o.InGuest:
		return b, s.Fault(fmt.Errorf("it binds other images (%q), which cannot be brought into a virtual machine: "+
			"install by to-disk --via-loopback as root, or without them by --bound-images=%s", links, BoundSkip))
	}
	err := s.openBound(ctx, inv, b)
	if err != nil && ctx.Err() == nil {
		return b, s.boundFault(err)
	}
	return b, err
}

// boundFault adds the remedies to an error of a bound image.
func (s *Source) boundFault(err error) error {
	ways := fmt.Sprintf("--bound-images=%s installs without them", BoundSkip)
	fault := &image.SourceError{Ref: s.o.Ref.String()}
	if missing := (*bound.MissingError)(nil); errors.As(err, &missing) {
		ways = fmt.Sprintf("--bound-images=%s fetches them, %s", BoundPull, ways)
		if errors.Is(err, fs.ErrNotExist) && inContainer() {
			ways += "; " + mountHint
		}
	}
	if binding := (*bound.BindingError)(nil); errors.As(err, &binding) {
		fault.Entry, err = binding.Path, binding.Err
	}
	fault.Err = fmt.Errorf("%w; %s", err, ways)
	return fault
}

func inContainer() bool {
	_, err := FindContainer()
	return !errors.Is(err, ErrNoContainer)
}

func (s *Source) openBound(ctx context.Context, inv *image.Inventory, b *Bound) error {
	bindings, err := bound.Find(inv.FS())
	if err != nil {
		return err
	}
	o := s.o.Open
	o.EnforceSigPolicy = false // the policy itself demands signatures of bound images, or none
	b.open = s.journal.Add("closed the bound images", func() error { return b.close() })
	for _, binding := range bindings {
		open := binding.OpenStored
		if s.o.Bound == BoundPull {
			open = binding.OpenRemote
		}
		img, err := open(ctx, o)
		if err != nil {
			return err
		}
		b.Images = append(b.Images, img)
		if err := s.checkBoundArchitecture(img); err != nil {
			return err
		}
	}
	if inv.Tree.Lookup(boundStorageLink) == nil {
		s.log.Note("the image has no /%s, by which containers find the images that it binds: bootc's packages bring it", boundStorageLink)
	}
	b.size, err = bound.Measure(ctx, b.Images)
	return err
}

func (s *Source) checkBoundArchitecture(img *bound.Image) error {
	if img.Architecture != "" && img.Architecture != s.Arch() {
		return fmt.Errorf("the bound image %s is made for architecture %q, and the system for %q", img.Name, img.Architecture, s.Arch())
	}
	return nil
}
