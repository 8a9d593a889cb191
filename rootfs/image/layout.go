package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// layoutFiles gives the files of an OCI image layout, wherever it lies.
type layoutFiles interface {
	// open opens a regular file by its path in the layout.
	open(path string) (*layoutFile, error)
	close() error
}

// layoutFile is an open file of a layout.
type layoutFile struct {
	*io.SectionReader
	closer func() error
}

// Close frees the file.
func (f *layoutFile) Close() error { return f.closer() }

// layoutDir is a layout in a directory. It opens no file outside.
type layoutDir struct{ root *os.Root }

func (d *layoutDir) close() error { return d.root.Close() }

func (d *layoutDir) open(path string) (*layoutFile, error) {
	// Not to be blocked by a named pipe of that name.
	f, err := d.root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &layoutFile{SectionReader: io.NewSectionReader(f, 0, st.Size()), closer: f.Close}, nil
}

// layout reads images from an OCI image layout (OCI image specification, image-layout.md).
type layout struct {
	files layoutFiles
}

func (l *layout) close() error { return l.files.close() }

// blobPath is where a layout keeps a blob.
func blobPath(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

// open implements blobSource.
func (l *layout) open(_ context.Context, b servedBlob) (io.ReadCloser, error) {
	return l.files.open(blobPath(b.digest))
}

// small reads a whole file of at most maxJSON bytes.
func (l *layout) small(path string) ([]byte, error) {
	f, err := l.files.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size() > maxJSON {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", path, f.Size(), maxJSON)
	}
	body, err := io.ReadAll(f)
	if err == nil && int64(len(body)) != f.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return body, nil
}

// verified reads a small blob and compares it with its descriptor.
func (l *layout) verified(d v1.Descriptor) ([]byte, error) {
	if err := checkDigest(string(d.Digest)); err != nil {
		return nil, err
	}
	body, err := l.small(blobPath(string(d.Digest)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missingBlob(string(d.Digest))
	}
	if err != nil {
		return nil, err
	}
	if int64(len(body)) != d.Size {
		return nil, fmt.Errorf("blob %s has %d bytes, its descriptor says %d", d.Digest, len(body), d.Size)
	}
	if got := digestOf(body); got != string(d.Digest) {
		return nil, mismatch("the SHA-256 of a blob", string(d.Digest), got)
	}
	return body, nil
}

// find returns the descriptor in index.json that a name means.
func (l *layout) find(name layoutName) (v1.Descriptor, error) {
	body, err := l.small("index.json")
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("this is no OCI image layout: %w", err)
	}
	all, err := descriptors(body)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("index.json: %w", err)
	}
	var found []v1.Descriptor
	var tags []string
	for _, d := range all {
		tag := d.Annotations[v1.AnnotationRefName]
		if (name.tag == "" || name.tag == tag) && (name.digest == "" || name.digest == string(d.Digest)) {
			found = append(found, d)
		}
		if len(tags) < maxLookedAt {
			tags = append(tags, fmt.Sprintf("%.256q (%.80s)", tag, d.Digest))
		}
	}
	if len(found) > 1 {
		found = images(found, l.verified)
	}
	switch have := "index.json has " + strings.Join(tags, ", "); {
	case len(tags) == 0:
		return v1.Descriptor{}, errors.New("index.json lists no image")
	case len(found) == 0:
		return v1.Descriptor{}, fmt.Errorf("no image of that tag or digest; %s", have)
	case len(found) > 1:
		return v1.Descriptor{}, fmt.Errorf("more than one image fits, choose one by :TAG or @DIGEST; %s", have)
	}
	return found[0], nil
}

// manifest follows indexes from a descriptor to the manifest of a platform.
func (l *layout) manifest(d v1.Descriptor, p Platform) (body []byte, mediaType string, err error) {
	for range maxNested {
		if body, err = l.verified(d); err != nil {
			return nil, "", err
		}
		if !isIndex(d.MediaType, body) {
			return body, d.MediaType, nil
		}
		if d, err = choosePlatform(body, p, l.verified); err != nil {
			return nil, "", err
		}
	}
	return nil, "", fmt.Errorf("indexes are nested more than %d deep", maxNested)
}

// openLayout opens the image of that name. The layout is closed with the image, or at once if there
// is an error.
func openLayout(ctx context.Context, ref Ref, name layoutName, files layoutFiles, o OpenOptions) (_ *Image, err error) {
	l := &layout{files: files}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	d, err := l.find(name)
	if err != nil {
		return nil, err
	}
	body, mediaType, err := l.manifest(d, o.Platform)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if err := checkLayoutPolicy(ctx, ref, body, mediaType, o); err != nil {
		return nil, err
	}
	m, err := parseManifest(body, mediaType)
	if err != nil {
		return nil, err
	}
	config, err := l.verified(m.Config)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	img, err := newImage(ref, body, mediaType, m, config)
	if err != nil {
		return nil, err
	}
	return img, l.attach(img)
}

// attach makes the layout the image's source, and looks at each layer's blob.
func (l *layout) attach(img *Image) error {
	src := &layeredSource{blobs: l}
	for i := range img.Layers {
		served, err := l.probe(&img.Layers[i])
		if err != nil {
			return &SourceError{Ref: img.Ref.String(), Layer: img.Layers[i].Digest, Err: err}
		}
		src.served = append(src.served, served)
	}
	img.src = src
	return nil
}

// probe checks that a layer's blob is there and whole, and estimates its content. A layout that was
// filled from a store of unpacked layers may have the layer's tar instead, under its own digest.
func (l *layout) probe(info *LayerInfo) (servedBlob, error) {
	f, err := l.files.open(blobPath(info.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		if plain, plainErr := l.files.open(blobPath(info.DiffID)); plainErr == nil {
			defer plain.Close()
			info.Uncompressed = plain.Size()
			return servedBlob{digest: info.DiffID, size: plain.Size(), mediaType: v1.MediaTypeImageLayer}, nil
		}
		return servedBlob{}, missingBlob(info.Digest)
	}
	if err != nil {
		return servedBlob{}, err
	}
	defer f.Close()
	if f.Size() != info.Size {
		return servedBlob{}, fmt.Errorf("the blob has %d bytes, its manifest says %d: the source is damaged or truncated", f.Size(), info.Size)
	}
	info.Uncompressed, err = estimateSize(f, f.Size(), info.MediaType)
	return servedBlob{digest: info.Digest, size: info.Size, mediaType: info.MediaType}, err
}
