package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	dockerarchive "go.podman.io/image/v5/docker/archive"
	unpack "go.podman.io/image/v5/pkg/compression"
	"go.podman.io/image/v5/types"
	"golang.org/x/sys/unix"
)

// openDockerArchive opens an image of an archive of `docker save`. The library unpacks a compressed
// one into a file with a name, which stays when the process is killed: it is unpacked here, into
// one without.
func openDockerArchive(ctx context.Context, ref Ref, o OpenOptions) (*Image, error) {
	path, which, _ := strings.Cut(ref.Name, ":")
	plain, err := unpackArchive(path, o.TempDir)
	if err != nil {
		return nil, err
	}
	if plain == nil {
		return openLibrary(ctx, ref, o)
	}
	name := fmt.Sprintf("/proc/self/fd/%d", plain.Fd())
	if which != "" {
		name += ":" + which
	}
	img, err := openKnown(ctx, ref, o, func() (types.ImageReference, error) { return dockerarchive.ParseReference(name) })
	if err != nil {
		plain.Close() // nothing of it is wanted
		return nil, err
	}
	src := img.src.(*layeredSource)
	src.blobs = &unpackedBlobs{src.blobs, plain}
	return img, nil
}

// unpackedBlobs keeps the unpacked archive, which the library opens anew for each blob.
type unpackedBlobs struct {
	blobSource
	archive *os.File
}

func (b *unpackedBlobs) close() error { return errors.Join(b.blobSource.close(), b.archive.Close()) }

// unpackArchive returns the tar in a compressed archive, nil if it is not compressed.
func unpackArchive(path, dir string) (_ *os.File, err error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	r, compressed, err := unpack.AutoDecompress(in)
	if err != nil {
		return nil, fmt.Errorf("reading the archive %s: %w", path, err)
	}
	defer r.Close()
	if !compressed {
		return nil, nil
	}
	if dir == "" {
		dir = spoolDir
	}
	out, err := unnamed(dir)
	if err != nil {
		return nil, &TempError{Dir: dir, Err: err}
	}
	// Through Read alone: the decompressor's WriteTo replaces the error of its destination.
	size, err := io.Copy(out, io.LimitReader(r, DefaultMaxLayerSize+1))
	if err == nil && size > DefaultMaxLayerSize {
		err = fmt.Errorf("it exceeds the limit of %d bytes", int64(DefaultMaxLayerSize))
	}
	if err != nil {
		out.Close() // the first error counts: nothing was kept
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return nil, &TempError{Dir: dir, Err: err}
		}
		return nil, fmt.Errorf("unpacking the archive %s: %w", path, err)
	}
	return out, nil
}
