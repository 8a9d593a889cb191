package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"

	"installer/rootfs/bound"
	"installer/rootfs/image"
)

// BoundImages says what becomes of the container images that an image binds
// logically (bootc's usr/lib/bootc/bound-images.d).
type BoundImages string

// The treatments of bound images, as bootc names them.
const (
	BoundStored BoundImages = "stored" // copied from this machine's storage
	BoundPull   BoundImages = "pull"   // fetched from their registries
	BoundSkip   BoundImages = "skip"   // left for the host to fetch
)

// ParseBoundImages reads the name of a treatment.
func ParseBoundImages(name string) (BoundImages, error) {
	switch b := BoundImages(name); b {
	case BoundStored, BoundPull, BoundSkip:
		return b, nil
	}
	return "", fmt.Errorf("unknown treatment %q: known are %s, %s and %s", name, BoundStored, BoundPull, BoundSkip)
}

// BoundImage is a container image that is brought to the target.
type BoundImage struct {
	File   string `json:"file"`   // of the image, that binds it
	Name   string `json:"name"`   // that it is stored by
	Digest string `json:"digest"` // of its manifest
}

// boundStorageLink is where the running system looks for bootc's storage.
const boundStorageLink = "usr/lib/bootc/storage"

// boundImages are the images that the source binds, as far as they are found.
type boundImages struct {
	images []*bound.Image
	open   *undo
	size   bound.Size
}

// list is what reports say of them.
func (b boundImages) list() (list []BoundImage) {
	for _, img := range b.images {
		list = append(list, BoundImage{img.File, img.Name, img.ManifestDigest})
	}
	return list
}

// sourceSize is how many bytes are read of them at most, -1 if that is unknown.
func (b boundImages) sourceSize() (sum int64) {
	for _, img := range b.images {
		size := img.SourceSize()
		if size < 0 {
			return -1
		}
		sum += size
	}
	return sum
}

func (b boundImages) close() error {
	var errs []error
	for _, img := range b.images {
		errs = append(errs, img.Close())
	}
	return errors.Join(errs...)
}

// findBound finds what the source binds, unless that is to be left out: what is
// missing is refused before the first write.
func (r *run) findBound(ctx context.Context, inv *image.Inventory) error {
	links := r.source.facts.binds
	switch {
	case len(links) == 0:
		return nil
	case r.opts.BoundImages == BoundSkip:
		r.note("the image binds other images (%q), which are not on the disk: the host fetches them with its first update", links)
		return nil
	case r.opts.Survey != nil || r.opts.SourceName != "":
		return r.sourceFault(fmt.Errorf("it binds other images (%q), which cannot be brought into a virtual machine: "+
			"install by to-disk --via-loopback as root, or without them by --bound-images=%s", links, BoundSkip))
	}
	err := r.openBound(ctx, inv)
	if err != nil && ctx.Err() == nil {
		return r.boundFault(err)
	}
	return err
}

// boundFault says what can be done about a bound image.
func (r *run) boundFault(err error) error {
	ways := fmt.Sprintf("--bound-images=%s installs without them", BoundSkip)
	fault := &image.SourceError{Ref: r.opts.Source.String()}
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

func (r *run) openBound(ctx context.Context, inv *image.Inventory) error {
	bindings, err := bound.Find(inv.FS())
	if err != nil {
		return err
	}
	o := r.opts.SourceOpen
	o.EnforceSigPolicy = false // of what is bound, the policy itself says what it demands
	b := &r.source.bound
	b.open = r.journal.add("closed the bound images", func() error { return b.close() })
	for _, binding := range bindings {
		open := binding.OpenStored
		if r.opts.BoundImages == BoundPull {
			open = binding.OpenRemote
		}
		img, err := open(ctx, o)
		if err != nil {
			return err
		}
		b.images = append(b.images, img)
		if err := r.checkBoundArchitecture(img); err != nil {
			return err
		}
	}
	if inv.Tree.Lookup(boundStorageLink) == nil {
		r.note("the image has no /%s, by which containers find the images that it binds: bootc's packages bring it", boundStorageLink)
	}
	b.size, err = bound.Measure(ctx, b.images)
	return err
}

func (r *run) checkBoundArchitecture(img *bound.Image) error {
	if img.Architecture != "" && img.Architecture != r.arch() {
		return fmt.Errorf("the bound image %s is made for architecture %q, and the system for %q", img.Name, img.Architecture, r.arch())
	}
	return nil
}

// copyBound writes the bound images to bootc's own storage on the target.
func (r *run) copyBound(ctx context.Context) error {
	b := &r.source.bound
	if len(b.images) == 0 {
		r.say("there are none")
		return nil
	}
	if err := r.storeBound(ctx); err != nil {
		return err
	}
	r.journal.drop(b.open)
	if err := b.close(); err != nil {
		return fmt.Errorf("closing the bound images: %w", err)
	}
	var names []string
	for _, img := range b.images {
		names = append(names, img.Name)
	}
	r.say("%s", strings.Join(names, ", "))
	return nil
}

func (r *run) storeBound(ctx context.Context) (err error) {
	released := r.ledger.Opened("storage", r.target.root)
	defer released()
	store, err := bound.Create(r.target.root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var done atomic.Int64
	o := r.readOptions(&done, r.source.bound.sourceSize())
	for _, img := range r.source.bound.images {
		if err := store.Put(ctx, img, o); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
	return nil
}
