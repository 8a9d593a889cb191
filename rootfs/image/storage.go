package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
	cstorage "go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
)

// storageBlobs reads layers from containers-storage as the tars they were; see [placedLayer]. The
// library's own image source writes each to a temporary file first.
type storageBlobs struct {
	src   types.ImageSource
	store cstorage.Store
}

// open implements blobSource.
func (s *storageBlobs) open(_ context.Context, b servedBlob) (io.ReadCloser, error) {
	r, err := openStored(s.store, b.storeID)
	if err != nil {
		return nil, fmt.Errorf("reading layer %s of the store: %w", b.storeID, err)
	}
	return r, nil
}

// rebuilt has the store put a layer together, which allows one such stream at a time: for stores
// and layers that cannot be read in place.
func rebuilt(store cstorage.Store, id string) (io.ReadCloser, error) {
	plain := archive.Uncompressed
	return store.Diff("", id, &cstorage.DiffOptions{Compression: &plain})
}

func (s *storageBlobs) close() error {
	return errors.Join(s.src.Close(), shutdown(s.store))
}

// shutdown gives back the resources of the store's driver (it may have mounted its own directory).
// A store that containers use is left alone.
func shutdown(store cstorage.Store) error {
	if _, err := store.Shutdown(false); err != nil && !errors.Is(err, cstorage.ErrLayerUsedByContainer) {
		return fmt.Errorf("shutting down containers-storage: %w", err)
	}
	return nil
}

// storeOptions splits [[DRIVER@]ROOT[+RUNROOT][:OPTION,…]]NAME as in containers-transports(5).
// Without a specifier it is the default store.
func storeOptions(name string) (o cstorage.StoreOptions, rest string, err error) {
	spec, ok := strings.CutPrefix(name, "[")
	if !ok {
		o, err = cstorage.DefaultStoreOptions()
		return o, name, err
	}
	spec, rest, ok = strings.Cut(spec, "]")
	if !ok || rest == "" {
		return o, "", fmt.Errorf("%q: write [DRIVER@ROOT+RUNROOT]IMAGE", name)
	}
	if driver, after, ok := strings.Cut(spec, "@"); ok {
		o.GraphDriverName, spec = driver, after
	}
	spec, options, _ := strings.Cut(spec, ":")
	if options != "" {
		o.GraphDriverOptions = strings.Split(options, ",")
	}
	o.GraphRoot, o.RunRoot, _ = strings.Cut(spec, "+")
	return o, rest, fillStoreOptions(&o)
}

// fillStoreOptions takes the parts that a specifier leaves out from the default store.
func fillStoreOptions(o *cstorage.StoreOptions) error {
	if !strings.HasPrefix(o.GraphRoot, "/") || o.RunRoot != "" && !strings.HasPrefix(o.RunRoot, "/") {
		return errors.New("the directories of a storage specifier must be absolute")
	}
	if o.RunRoot != "" && o.GraphDriverName != "" {
		return nil
	}
	defaults, err := cstorage.DefaultStoreOptions()
	if err != nil {
		return err
	}
	if o.RunRoot == "" {
		o.RunRoot = defaults.RunRoot
	}
	if o.GraphDriverName == "" {
		o.GraphDriverName, o.GraphDriverOptions = defaults.GraphDriverName, defaults.GraphDriverOptions
	}
	return nil
}

// useDriverOf takes the driver that made the store where the chosen one, which may be a mere
// default, has no images there: a container sees its host's store, but not its host's storage.conf.
// Each driver has its list in DRIVER-images.
func useDriverOf(o *cstorage.StoreOptions) error {
	const suffix = "-images"
	lists, err := filepath.Glob(filepath.Join(o.GraphRoot, "*"+suffix))
	if err != nil || len(lists) != 1 {
		return err
	}
	if driver := strings.TrimSuffix(filepath.Base(lists[0]), suffix); driver != o.GraphDriverName {
		o.GraphDriverName, o.GraphDriverOptions = driver, nil
	}
	return nil
}

// openStorage opens an image of containers-storage.
func openStorage(ctx context.Context, ref Ref, o OpenOptions) (_ *Image, err error) {
	options, name, err := storeOptions(ref.Name)
	if err != nil {
		return nil, err
	}
	// Opening a store makes it where there is none: not the business of a reader.
	if _, err := os.Stat(options.GraphRoot); err != nil {
		return nil, fmt.Errorf("there is no containers-storage: %w", err)
	}
	if err := useDriverOf(&options); err != nil {
		return nil, err
	}
	store, err := cstorage.GetStore(options)
	if err != nil {
		return nil, fmt.Errorf("opening containers-storage: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, shutdown(store))
		}
	}()
	known, err := storage.Transport.ParseStoreReference(store, name)
	if err != nil {
		return nil, err
	}
	resolved, stored, err := storage.ResolveReference(known)
	if err != nil {
		return nil, err
	}
	l, err := loadLibrary(ctx, ref, resolved, o)
	if err != nil {
		return nil, err
	}
	src := &layeredSource{blobs: &storageBlobs{src: l.src, store: store}}
	if src.served, err = storedLayers(store, stored.TopLayer, l.img); err != nil {
		l.src.Close()
		return nil, err
	}
	l.img.src = src
	return l.img, nil
}

// storedLayers finds the store's layers of an image. They are served uncompressed, so the diff-id
// verifies them.
func storedLayers(store cstorage.Store, top string, img *Image) ([]servedBlob, error) {
	var found []servedBlob
	for id := top; id != ""; {
		layer, err := store.Layer(id)
		if err != nil {
			return nil, fmt.Errorf("layer %s of the store: %w", id, err)
		}
		size := layer.UncompressedSize
		if size <= 0 {
			size = -1
		}
		found = append(found, servedBlob{size: size, storeID: id})
		if id = layer.Parent; len(found) > len(img.Layers) {
			break
		}
	}
	if len(found) != len(img.Layers) {
		return nil, fmt.Errorf("the store has %d layers for the manifest's %d", len(found), len(img.Layers))
	}
	slices.Reverse(found)
	for i := range found {
		found[i].digest = img.Layers[i].DiffID
		img.Layers[i].Uncompressed = max(0, found[i].size)
	}
	return found, nil
}
