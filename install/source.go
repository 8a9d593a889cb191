package install

import (
	"context"
	"fmt"

	"installer/rootfs/image"
)

// source is the image that is installed.
type source struct {
	image *image.Image
	open  *undo
	facts facts
	bound boundImages
}

// labels by which an image says that it is made to be booted (bootc's and ostree's own).
var bootableLabels = []string{"containers.bootc", "ostree.bootable"}

func (r *run) openSource(ctx context.Context) error {
	if err := r.openImage(ctx); err != nil {
		return err
	}
	img := r.source.image
	r.report.Source.Digest = img.ManifestDigest
	r.report.Source.Layers = len(img.Layers)
	if img.Config == nil { // a directory has no configuration that could say anything
		return nil
	}
	if err := r.checkArchitecture(); err != nil {
		return err
	}
	if !labelled(img.Labels, bootableLabels) {
		r.note("the image carries none of the labels %v: it may not be made to be booted", bootableLabels)
	}
	return nil
}

// openImage opens the source, to be closed by closeSource or the journal.
func (r *run) openImage(ctx context.Context) error {
	img, err := image.Open(ctx, r.opts.Source, r.opts.SourceOpen)
	if err != nil {
		if r.opts.Container != nil {
			err = r.opts.Container.storageError(err)
		}
		return err
	}
	r.source.image = img
	r.source.open = r.journal.add("closed the source image", img.Close)
	return nil
}

func labelled(labels map[string]string, any []string) bool {
	for _, name := range any {
		if _, ok := labels[name]; ok {
			return true
		}
	}
	return false
}

// closeSource lets go of the image, which may lie anywhere.
func (r *run) closeSource() error {
	r.journal.drop(r.source.open)
	if err := r.source.image.Close(); err != nil {
		return fmt.Errorf("closing the source image: %w", err)
	}
	return nil
}
