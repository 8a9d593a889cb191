package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	dockerarchive "go.podman.io/image/v5/docker/archive"
	libimage "go.podman.io/image/v5/image"
	"go.podman.io/image/v5/pkg/blobinfocache/none"
	"go.podman.io/image/v5/types"
)

// libraryBlobs reads blobs through the containers/image library.
type libraryBlobs struct {
	src types.ImageSource
	// alone is held while a blob is opened by a source that cannot do so concurrently; reading an
	// open blob is independent.
	alone *sync.Mutex
}

func newLibraryBlobs(src types.ImageSource) *libraryBlobs {
	b := &libraryBlobs{src: src}
	if !src.HasThreadSafeGetBlob() {
		b.alone = &sync.Mutex{}
	}
	return b
}

// open implements blobSource.
func (b *libraryBlobs) open(ctx context.Context, blob servedBlob) (io.ReadCloser, error) {
	if b.alone != nil {
		b.alone.Lock()
		defer b.alone.Unlock()
	}
	info := types.BlobInfo{Digest: digest.Digest(blob.digest), Size: blob.size, MediaType: blob.mediaType}
	r, _, err := b.src.GetBlob(ctx, info, none.NoCache)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missingBlob(blob.digest)
	}
	return r, err
}

func (b *libraryBlobs) close() error { return b.src.Close() }

// libraryReference makes the library's reference of ours.
func libraryReference(ref Ref) (types.ImageReference, error) {
	switch ref.Transport {
	case TransportDocker:
		return docker.ParseReference("//" + ref.Name)
	case TransportDir:
		return directory.NewReference(ref.Name)
	case TransportDockerArchive:
		return dockerarchive.ParseReference(ref.Name)
	}
	return nil, &UnknownTransportError{Ref: ref.String()}
}

// openLibrary opens an image of a transport that the library reads.
func openLibrary(ctx context.Context, ref Ref, o OpenOptions) (*Image, error) {
	return openKnown(ctx, ref, o, func() (types.ImageReference, error) { return libraryReference(ref) })
}

// openKnown is openLibrary with a reference of the library's.
func openKnown(ctx context.Context, ref Ref, o OpenOptions, reference func() (types.ImageReference, error)) (*Image, error) {
	known, err := reference()
	if err != nil {
		return nil, err
	}
	l, err := loadLibrary(ctx, ref, known, o)
	if err != nil {
		return nil, err
	}
	var blobs blobSource = newLibraryBlobs(l.src)
	if ref.Transport == TransportDocker {
		blobs = newSpool(blobs, o.TempDir)
	}
	src := &layeredSource{blobs: blobs}
	for _, info := range l.img.Layers {
		src.served = append(src.served, servedBlob{digest: info.Digest, size: info.Size, mediaType: info.MediaType})
	}
	l.img.src = src
	return l.img, nil
}

// loaded is an image whose layers have no source yet.
type loaded struct {
	img      *Image
	src      types.ImageSource
	instance *digest.Digest // of the manifest chosen from an index; nil: the only one
	indexes  [][]byte       // that led to it
}

// loadLibrary reads the manifest and the configuration, and holds them against the policy. The
// library's source is the caller's to close unless there is an error.
func loadLibrary(ctx context.Context, ref Ref, known types.ImageReference, o OpenOptions) (_ *loaded, err error) {
	if err := checkDirManifest(ref); err != nil {
		return nil, err
	}
	src, err := known.NewImageSource(ctx, systemContext(o))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			src.Close()
		}
	}()
	l := &loaded{src: src}
	unparsed, err := l.choose(ctx, o.Platform)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if err := checkPolicy(ctx, unparsed, o); err != nil {
		return nil, err
	}
	body, mediaType, err := unparsed.Manifest(ctx)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	m, err := parseManifest(body, mediaType)
	if err != nil {
		return nil, err
	}
	config, err := libraryBlob(ctx, src, m.Config)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if l.img, err = newImage(ref, body, mediaType, m, config); err != nil {
		return nil, err
	}
	l.img.Indexes = l.indexes
	return l, nil
}

// checkDirManifest bounds the manifest of a directory, which the library reads whole.
func checkDirManifest(ref Ref) error {
	if ref.Transport != TransportDir {
		return nil
	}
	st, err := os.Stat(filepath.Join(ref.Name, "manifest.json"))
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular() || st.Size() > maxJSON:
		return fmt.Errorf("manifest.json is no regular file of at most %d bytes", maxJSON)
	}
	return nil
}

// choose follows indexes to the manifest of a platform. The library verifies a manifest that is
// named by digest.
func (l *loaded) choose(ctx context.Context, p Platform) (types.UnparsedImage, error) {
	for range maxNested {
		unparsed := libimage.UnparsedInstance(l.src, l.instance)
		body, mediaType, err := unparsed.Manifest(ctx)
		if err != nil {
			return nil, err
		}
		if !isIndex(mediaType, body) {
			return unparsed, nil
		}
		l.indexes = append(l.indexes, body)
		d, err := choosePlatform(body, p, func(d v1.Descriptor) ([]byte, error) {
			body, _, err := libimage.UnparsedInstance(l.src, &d.Digest).Manifest(ctx)
			return body, err
		})
		if err != nil {
			return nil, err
		}
		if err := checkDigest(string(d.Digest)); err != nil {
			return nil, err
		}
		l.instance = &d.Digest
	}
	return nil, fmt.Errorf("indexes are nested more than %d deep", maxNested)
}

// libraryBlob reads and verifies a small blob.
func libraryBlob(ctx context.Context, src types.ImageSource, d v1.Descriptor) ([]byte, error) {
	r, _, err := src.GetBlob(ctx, types.BlobInfo{Digest: d.Digest, Size: d.Size, MediaType: d.MediaType}, none.NoCache)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missingBlob(d.Digest.String())
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	body, err := io.ReadAll(io.LimitReader(r, maxJSON+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxJSON {
		return nil, fmt.Errorf("blob %s has more than %d bytes", d.Digest, maxJSON)
	}
	if got := digestOf(body); got != string(d.Digest) {
		return nil, mismatch("the SHA-256 of a blob", string(d.Digest), got)
	}
	return body, nil
}
