package bound

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"installer/rootfs/beneath"
	"installer/rootfs/image"

	"github.com/opencontainers/go-digest"
	cstorage "go.podman.io/storage"
	"go.podman.io/storage/pkg/fsutils"
)

// Places below the physical root. The storage is where bootc has its own, which the running system
// sees as /usr/lib/bootc/storage; the state lasts as long as a Store is open.
const (
	storageDir = "ostree/bootc/storage"
	stateDir   = "ostree/bootc/storage-state"
)

// driver is the one of bootc's storage.
const driver = "overlay"

// Store is bootc's containers-storage on a target.
type Store struct {
	store      cstorage.Store
	dir, state string
}

// Create makes the storage on the physical root, which is mounted on mountpoint and has none. The
// program must call reexec.Init of the library first of all: layers are unpacked in a process of
// their own.
func Create(root *beneath.Dir, mountpoint string) (_ *Store, err error) {
	s := &Store{dir: filepath.Join(mountpoint, storageDir), state: filepath.Join(mountpoint, stateDir)}
	if err := root.MkdirAll(path.Dir(storageDir), 0o755); err != nil {
		return nil, fmt.Errorf("making the storage of bound images: %w", err)
	}
	if err := s.settleFeatures(root); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.state))
	}
	s.store, err = cstorage.GetStore(cstorage.StoreOptions{
		GraphRoot: s.dir, RunRoot: s.state, GraphDriverName: driver,
		// Else the driver mounts the directory on itself.
		GraphDriverOptions: []string{driver + ".skip_mount_home=true"},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making the storage of bound images: %w", err), os.RemoveAll(s.state))
	}
	return s, nil
}

// settleFeatures answers questions that the driver else answers by mounting overlays on the target,
// and unmounting them lazily: nothing is mounted from the storage here, and this kernel need not
// have overlays. The files' names are those by which the driver remembers its answers.
func (s *Store) settleFeatures(root *beneath.Dir) error {
	ok, err := fsutils.SupportsDType(filepath.Dir(s.dir))
	if err != nil {
		return fmt.Errorf("asking the file system of %s for the types of directory entries: %w", s.dir, err)
	}
	if !ok {
		return fmt.Errorf("the file system of %s does not show the types of directory entries, which overlays need: make an xfs with ftype=1", s.dir)
	}
	dir := path.Join(stateDir, driver)
	if err := root.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the state of the storage of bound images: %w", err)
	}
	for _, answer := range []string{"overlay-true", "metacopy()-false", "native-diff()-true", "idmapped-lower-dir-false", "volatile-false"} {
		if err := root.WriteFile(path.Join(dir, answer), nil, 0o600); err != nil {
			return fmt.Errorf("making the state of the storage of bound images: %w", err)
		}
	}
	return nil
}

// Put stores an image under the name that it was found by. Layers that are there already are not
// read. Faults of the source are an [*image.SourceError].
func (s *Store) Put(ctx context.Context, img *Image, o image.ImportOptions) error {
	top := ""
	for i := range img.Layers {
		var err error
		if top, err = s.putLayer(ctx, img.Image, i, top, o); err != nil {
			return fmt.Errorf("storing the bound image %s: %w", img.Name, err)
		}
	}
	if err := s.putImage(img, top); err != nil {
		return fmt.Errorf("storing the bound image %s: %w", img.Name, err)
	}
	return nil
}

// putLayer stores a layer on top of another, and returns its identifier.
func (s *Store) putLayer(ctx context.Context, img *image.Image, index int, parent string, o image.ImportOptions) (string, error) {
	info := img.Layers[index]
	id := chainID(parent, info.DiffID)
	if s.store.Exists(id) {
		return id, nil
	}
	layer, err := img.OpenTar(ctx, index, o)
	if err != nil {
		return "", err
	}
	options := &cstorage.LayerOptions{OriginalDigest: digest.Digest(info.Digest), UncompressedDigest: digest.Digest(info.DiffID)}
	if info.Size >= 0 {
		options.OriginalSize = &info.Size
	}
	_, _, err = s.store.PutLayer(id, parent, nil, "", false, options, layer)
	if err == nil {
		_, err = io.Copy(io.Discard, layer) // on to its end, which verifies it
	}
	if cause := layer.Err(); cause != nil && cause != io.EOF {
		err = cause // of which the library has but an output of its child
	}
	if closeErr := layer.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return "", fmt.Errorf("layer %s: %w", info.Digest, err)
	}
	return id, nil
}

// chainID is a layer's identifier, by which the library knows it again.
func chainID(parent, diffID string) string {
	own := strings.TrimPrefix(diffID, "sha256:")
	if parent == "" {
		return own
	}
	sum := sha256.Sum256([]byte(parent + "+" + own))
	return hex.EncodeToString(sum[:])
}

// putImage makes the record of an image whose layers are there, or adds to it.
func (s *Store) putImage(img *Image, top string) error {
	config := digest.FromBytes(img.Config)
	data := []cstorage.ImageBigDataOption{{Key: config.String(), Data: img.Config, Digest: config}}
	for _, m := range append(img.Indexes, img.Manifest) {
		d := digest.FromBytes(m)
		data = append(data, cstorage.ImageBigDataOption{Key: cstorage.ImageDigestManifestBigDataNamePrefix + "-" + d.String(), Data: m, Digest: d})
	}
	data = append(data, cstorage.ImageBigDataOption{Key: cstorage.ImageDigestBigDataKey, Data: img.Manifest, Digest: digest.FromBytes(img.Manifest)})
	id := config.Encoded()
	_, err := s.store.CreateImage(id, []string{img.Name}, top, "{}", &cstorage.ImageOptions{CreationDate: img.Created, BigData: data})
	if !errors.Is(err, cstorage.ErrDuplicateID) {
		return err
	}
	for _, d := range data {
		if old, err := s.store.ImageBigData(id, d.Key); err == nil && bytes.Equal(old, d.Data) {
			continue
		}
		if err := s.store.SetImageBigData(id, d.Key, d.Data, func(b []byte) (digest.Digest, error) { return digest.FromBytes(b), nil }); err != nil {
			return err
		}
	}
	return s.store.AddNames(id, []string{img.Name})
}

// Close gives back all that the storage holds of the target.
func (s *Store) Close() error {
	var errs []error
	if _, err := s.store.Shutdown(true); err != nil {
		errs = append(errs, fmt.Errorf("shutting down the storage of bound images: %w", err))
	}
	errs = append(errs, os.RemoveAll(s.state))
	// A node with the number that the target's device has on this machine.
	if err := os.Remove(filepath.Join(s.dir, driver, "backingFsBlockDev")); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
