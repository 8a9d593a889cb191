package install

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"installer/install/config"
	"installer/rootfs/bootloader"
	"installer/rootfs/bound"
	"installer/rootfs/deploy"
	"installer/rootfs/image"
)

// facts are what the image says of its own installation.
type facts struct {
	need      need
	bootFiles int64 // bytes of the kernel's files
	inexact   bool  // need may be more than what is needed: equal contents were not looked for
	config    *config.Loaded
	kargs     *config.Loaded
	selinux   bool     // it has a policy
	rootLink  string   // where the link /root leads, "" if it is none
	binds     []string // names of the images that it binds
}

// Files of an image that are read before it is installed, beside the configuration.
const (
	selinuxConfig = "usr/etc/selinux/config"
	pullSecretEtc = "usr/etc/ostree/auth.json" // ostree-container(5): credentials of the host
	pullSecretUsr = "usr/lib/ostree/auth.json"
)

// inspect looks through the whole image: what is wrong with it, and how it
// wants to be installed, must be known before the first write.
func (r *run) inspect(ctx context.Context) error {
	inv, err := r.scan(ctx, r.opts.DryRun) // a dry run is asked for the figures
	if err != nil {
		return err
	}
	if err := deploy.CheckTree(inv.Tree); err != nil {
		return err
	}
	if err := r.readConfig(inv); err != nil {
		return err
	}
	if err := r.choose(); err != nil {
		return err
	}
	if err := r.checkRunnable(); err != nil {
		return err
	}
	if err := bootloader.Check(r.opts.Bootloader, r.firmware(), r.arch(), inv.FS()); err != nil {
		return err
	}
	if err := deploy.CheckComposefs(inv.FS(), r.assembleKargs()); err != nil {
		return err
	}
	if err := r.findBound(ctx, inv); err != nil {
		return err
	}
	if err := r.enforcePolicy(ctx); err != nil {
		return err
	}
	if err := r.checkFetch(ctx, inv); err != nil {
		return err
	}
	r.measure(inv)
	r.say("%s in %d files, install configuration of %d files", FormatBytes(inv.Stored), inv.Objects, len(r.source.facts.config.Files))
	return nil
}

// measureExactly reads the contents that inspect passed over, which takes time
// that only a disk is worth that may be too small.
func (r *run) measureExactly(ctx context.Context) error {
	inv, err := r.scan(ctx, true)
	if err != nil {
		return err
	}
	r.measure(inv)
	return nil
}

func (r *run) scan(ctx context.Context, exact bool) (*image.Inventory, error) {
	if s := r.opts.Survey; s != nil && !exact {
		return s.inventory(ctx, r)
	}
	return r.source.image.Scan(ctx, image.ScanOptions{
		Files:         scannedFiles(),
		Exact:         exact,
		ImportOptions: r.importOptions(new(atomic.Int64)),
	})
}

// importOptions bounds the reading of the source, which adds to done and tells of it.
func (r *run) importOptions(done *atomic.Int64) image.ImportOptions {
	return r.readOptions(done, r.source.image.SourceSize())
}

// readOptions is importOptions for so many bytes; less than 0 is unknown.
func (r *run) readOptions(done *atomic.Int64, total int64) image.ImportOptions {
	total = max(total, 0)
	return image.ImportOptions{
		MaxLayerSize: r.opts.MaxLayerSize,
		Progress: func(n int64) {
			r.emit(Event{Kind: EventProgress, Done: done.Add(n), Total: total})
		},
	}
}

// scannedFiles lists what is read of an image before it is installed, as paths of the scan.
func scannedFiles() []string {
	files := append(config.ImageFiles(), pullSecretEtc, pullSecretUsr, bound.Dir)
	files = append(files, bound.QuadletDirs...)
	for _, name := range deploy.PrepareRootFiles() {
		if strings.HasPrefix(name, "etc/") {
			name = "usr/" + name
		}
		files = append(files, name)
	}
	return files
}

// sourceFault is an error that the image is to blame for.
func (r *run) sourceFault(err error) error {
	return &image.SourceError{Ref: r.opts.Source.String(), Err: err}
}

// enforcePolicy opens the image anew where its own configuration demands a
// signature and the command line did not.
func (r *run) enforcePolicy(ctx context.Context) error {
	wanted := r.source.facts.config.EnforceSigPolicy
	if wanted == nil || !*wanted || r.opts.SourceOpen.EnforceSigPolicy {
		return nil
	}
	r.opts.SourceOpen.EnforceSigPolicy = true
	if err := r.closeSource(); err != nil {
		return err
	}
	digest := r.source.image.ManifestDigest
	if err := r.openImage(ctx); err != nil {
		return fmt.Errorf("the install configuration demands a signature (enforce-container-sigpolicy): %w", err)
	}
	if got := r.source.image.ManifestDigest; got != digest {
		return r.sourceFault(fmt.Errorf("it changed from %s to %s while it was looked at", digest, got))
	}
	return nil
}
