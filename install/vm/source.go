package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"installer/rootfs/image"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// fromDirectory reports whether the source is a directory tree, which has no layers.
func (o Options) fromDirectory() bool { return o.Install.Source.Transport == image.TransportRootfs }

const sector = 512 // of a tar as of a disk

// source is an OCI archive in pieces, each of them a part of a file.
type source struct {
	pieces []piece
	heads  *os.File // the pieces that are in no other file
	size   int64    // of heads
	layers []*image.ServedLayer
}

// piece is a part of a file, filled up with zeros to a whole number of sectors.
type piece struct {
	file   *os.File
	offset int64 // bytes, a multiple of sector
	size   int64
}

// compose makes the archive of an image whose layers are files.
func compose(ctx context.Context, img *image.Image) (_ *source, err error) {
	s := &source{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.heads, err = memory("source"); err != nil {
		return nil, err
	}
	if err := s.addHead(img); err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for i := range img.Layers {
		layer, err := img.OpenLayer(ctx, i)
		if err != nil {
			return nil, err
		}
		s.layers = append(s.layers, layer)
		if known[layer.Digest] {
			continue
		}
		known[layer.Digest] = true
		if err := s.addLayer(layer); err != nil {
			return nil, err
		}
	}
	return s, s.addBytes(make([]byte, 2*sector)) // the end of a tar
}

// addLayer adds the file of a layer.
func (s *source) addLayer(layer *image.ServedLayer) error {
	file, offset, ok := layer.File()
	if !ok || offset%sector != 0 {
		return fmt.Errorf("the layer %s does not lie in a file so that a disk can be made of it", layer.Digest)
	}
	header, err := tarHeader(blobName(layer.Digest), layer.Size)
	if err != nil {
		return err
	}
	if err := s.addBytes(header); err != nil {
		return err
	}
	if layer.Size > 0 {
		s.pieces = append(s.pieces, piece{file, offset, layer.Size})
	}
	return nil
}

// addHead adds the files of an archive that are no layers.
func (s *source) addHead(img *image.Image) error {
	data, err := layoutHead(img)
	if err != nil {
		return err
	}
	return s.addBytes(data)
}

// addBytes adds whole sectors of content.
func (s *source) addBytes(data []byte) error {
	if _, err := s.heads.WriteAt(data, s.size); err != nil {
		return fmt.Errorf("describing the source to the guest: %w", err)
	}
	s.pieces = append(s.pieces, piece{s.heads, s.size, int64(len(data))})
	s.size += int64(len(data))
	return nil
}

func (s *source) close() error {
	var errs []error
	for _, l := range s.layers {
		errs = append(errs, l.Close())
	}
	if s.heads != nil {
		errs = append(errs, s.heads.Close())
	}
	return errors.Join(errs...)
}

// descriptor returns a VMDK descriptor ("Virtual Disk Format 5.0": extents of type FLAT) of the
// disk that consists of the pieces: this is the format in which QEMU joins parts of files. name
// returns the path of a file for QEMU. No line may be empty: QEMU would read the next line twice.
func (s *source) descriptor(name func(*os.File) string) []byte {
	var b bytes.Buffer
	b.WriteString("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n")
	for _, p := range s.pieces {
		fmt.Fprintf(&b, "RW %d FLAT \"%s\" %d\n", (p.size+sector-1)/sector, name(p.file), p.offset/sector)
	}
	b.WriteString("ddb.adapterType = \"ide\"\n")
	return b.Bytes()
}

// layoutHead returns the begin of an OCI archive: all entries but the layers.
func layoutHead(img *image.Image) ([]byte, error) {
	index := v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType: img.ManifestType, Digest: digest.Digest(img.ManifestDigest), Size: int64(len(img.Manifest)),
		}},
	}
	indexText, err := json.Marshal(index)
	if err != nil {
		return nil, fmt.Errorf("writing the index of an OCI layout: %w", err)
	}
	layout, err := json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
	if err != nil {
		return nil, fmt.Errorf("writing the mark of an OCI layout: %w", err)
	}
	var b bytes.Buffer
	for _, f := range []struct {
		name string
		data []byte
	}{
		{v1.ImageLayoutFile, layout},
		{v1.ImageIndexFile, indexText},
		{blobName(img.ManifestDigest), img.Manifest},
		{blobName(digest.FromBytes(img.Config).String()), img.Config},
	} {
		header, err := tarHeader(f.name, int64(len(f.data)))
		if err != nil {
			return nil, err
		}
		b.Write(header)
		b.Write(f.data)
		b.Write(make([]byte, padding(int64(len(f.data)))))
	}
	return b.Bytes(), nil
}

func blobName(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

func padding(size int64) int64 { return (sector - size%sector) % sector }

// tarHeader returns the tar header of a file: one sector for every size, which only GNU's format
// has.
func tarHeader(name string, size int64) ([]byte, error) {
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatGNU})
	if err != nil {
		return nil, fmt.Errorf("writing the tar entry %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// copySource writes an OCI archive of an image whose layers are streams to f, with each layer as
// its source serves it. It does not verify the layers: the reader of the copy does.
func copySource(ctx context.Context, img *image.Image, f *os.File, progress func(int64)) error {
	head, err := layoutHead(img)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return fmt.Errorf("copying the source: %w", err)
	}
	at := int64(len(head))
	known := map[string]bool{}
	for i := range img.Layers {
		layer, err := img.OpenLayer(ctx, i)
		if err != nil {
			return err
		}
		if !known[layer.Digest] {
			at, err = copyLayer(ctx, layer, f, at, progress)
		}
		known[layer.Digest] = true
		if closeErr := layer.Close(); err == nil && closeErr != nil {
			err = closeErr
		}
		if err != nil {
			return fmt.Errorf("copying the layer %s: %w", img.Layers[i].Digest, err)
		}
	}
	if _, err := f.WriteAt(make([]byte, 2*sector), at); err != nil {
		return fmt.Errorf("copying the source: %w", err)
	}
	return nil
}

// copyLayer writes a layer, and then the header before it, which has the size. It returns the
// offset of the next entry.
func copyLayer(ctx context.Context, layer *image.ServedLayer, f *os.File, at int64, progress func(int64)) (int64, error) {
	stop := context.AfterFunc(ctx, func() { layer.Close() }) // ends a read that is blocked
	defer stop()
	size, err := io.Copy(io.NewOffsetWriter(f, at+sector), &counter{layer, progress})
	if ctx.Err() != nil {
		return at, context.Cause(ctx)
	}
	if err != nil {
		return at, err
	}
	header, err := tarHeader(blobName(layer.Digest), size)
	if err != nil {
		return at, err
	}
	_, err = f.WriteAt(header, at)
	return at + sector + size + padding(size), err
}

// counter reports the bytes that are read.
type counter struct {
	from io.Reader
	tell func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.tell(int64(n))
	return n, err
}
