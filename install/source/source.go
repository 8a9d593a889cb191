package source

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"

	"installer/install/choice"
	"installer/install/journal"
	"installer/rootfs/bootable"
	"installer/rootfs/bootloader"
	"installer/rootfs/bound"
	"installer/rootfs/image"
	"installer/rootfs/label"
)

// Options say which image is installed, and how it is read.
type Options struct {
	Ref          image.Ref
	Image        *image.Image // the source, open: it is left open; nil = Ref is opened
	Open         image.OpenOptions
	MaxLayerSize int64       // bound on a layer uncompressed, in bytes; 0 = image.DefaultMaxLayerSize
	Container    *Container  // the source is the image of this container; nil = it was named
	Survey       *Survey     // facts of the source that another program found; nil = none
	Bound        BoundImages // treatment of the images that the image binds; "" = BoundStored
	InGuest      bool        // this is the virtual machine of a build, where no other image can be found
}

// Source is the image that is installed, open.
type Source struct {
	Image   *image.Image
	o       Options
	journal *journal.Journal
	log     journal.Log
	open    *journal.Undo
}

// labels by which an image says that it is made to be booted (bootc's and ostree's own).
var bootableLabels = []string{"containers.bootc", "ostree.bootable"}

// Open opens the source, to be closed by Close or the journal, and refuses one that is made for
// another machine.
func Open(ctx context.Context, o Options, m choice.Machine, j *journal.Journal, log journal.Log) (*Source, error) {
	s := &Source{o: o, journal: j, log: log}
	if err := s.openImage(ctx); err != nil {
		return nil, err
	}
	if s.Image.Config == nil { // a directory has no configuration that could say anything
		return s, nil
	}
	note, err := choice.CheckArchitecture(o.Ref, s.Arch(), o.Open.Platform.Architecture, m)
	if err != nil {
		return nil, err
	}
	if note != "" {
		log.Note("%s", note)
	}
	bootable := func(label string) bool { _, ok := s.Image.Labels[label]; return ok }
	if !slices.ContainsFunc(bootableLabels, bootable) {
		log.Note("the image carries none of the labels %v: it may not be made to be booted", bootableLabels)
	}
	return s, nil
}

func (s *Source) openImage(ctx context.Context) error {
	if s.o.Image != nil {
		s.Image = s.o.Image
		return nil
	}
	img, err := image.Open(ctx, s.o.Ref, s.o.Open)
	if err != nil {
		if s.o.Container != nil {
			err = s.o.Container.storageError(err)
		}
		return err
	}
	s.Image = img
	s.open = s.journal.Add("closed the source image", img.Close)
	return nil
}

// Close lets go of the image, which may lie anywhere.
func (s *Source) Close() error {
	if s.o.Image != nil {
		return nil
	}
	s.journal.Drop(s.open)
	if err := s.Image.Close(); err != nil {
		return fmt.Errorf("closing the source image: %w", err)
	}
	return nil
}

// Arch returns the architecture of the image by its Go name. A directory tree has none, and is
// taken for this machine's.
func (s *Source) Arch() string {
	if s.Image.Config != nil {
		return s.Image.Architecture
	}
	return runtime.GOARCH
}

// Fault returns an error that the image is to blame for.
func (s *Source) Fault(err error) error { return &image.SourceError{Ref: s.o.Ref.String(), Err: err} }

// Scan looks through the whole image. It reads the files named, and those that this package needs.
// With exact it looks for equal contents, which takes time.
func (s *Source) Scan(ctx context.Context, files []string, exact bool) (*image.Inventory, error) {
	files = slices.Concat(files, []string{pullSecretEtc, pullSecretUsr, bound.Dir}, bound.QuadletDirs, label.Patterns())
	if s.o.Survey != nil && !exact {
		return s.surveyed(ctx, files)
	}
	return s.Image.Scan(ctx, image.ScanOptions{Files: files, Exact: exact, Look: lookAt, ImportOptions: s.ImportOptions(s.Image.SourceSize())})
}

// CheckBootable refuses an image that makes no host which starts by a boot loader of that kind, and
// can be updated.
func (s *Source) CheckBootable(inv *image.Inventory, by bootloader.Kind) error {
	o := bootable.Options{Arch: s.Arch(), EFIStub: by.KernelOnESP(), OwnBoot: by == bootloader.None}
	o.Facts = func(name string) *bootable.Facts {
		if found, ok := inv.Seen(name).(*seen); ok {
			return found.facts
		}
		return nil
	}
	notes, err := bootable.Check(inv.FS(), o)
	for _, note := range notes {
		s.log.Note("%s", note)
	}
	if err != nil {
		return s.Fault(err)
	}
	return nil
}

// ImportOptions bounds the reading of an image of so many bytes, and reports its progress; less
// than 0 is unknown.
func (s *Source) ImportOptions(total int64) image.ImportOptions {
	var done atomic.Int64
	return image.ImportOptions{
		MaxLayerSize: s.o.MaxLayerSize,
		Progress:     func(n int64) { s.log.Progress(done.Add(n), max(total, 0)) },
	}
}

// DemandSignature opens the image anew where its own configuration demands a signature and the user
// did not.
func (s *Source) DemandSignature(ctx context.Context) error {
	if s.o.Open.EnforceSigPolicy {
		return nil
	}
	s.o.Open.EnforceSigPolicy = true
	given, digest := s.o.Image, s.Image.ManifestDigest
	if given == nil {
		if err := s.Close(); err != nil {
			return err
		}
	}
	s.o.Image = nil
	if err := s.openImage(ctx); err != nil {
		return fmt.Errorf("the install configuration demands a signature (enforce-container-sigpolicy): %w", err)
	}
	if got := s.Image.ManifestDigest; got != digest {
		return s.Fault(fmt.Errorf("it changed from %s to %s while it was looked at", digest, got))
	}
	if given == nil {
		return nil
	}
	err := s.Close()
	s.Image, s.o.Image = given, given
	return err
}
