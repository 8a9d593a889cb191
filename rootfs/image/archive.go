package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// maxArchiveFiles bounds the index of an archive: blobs of very many images.
const maxArchiveFiles = 100_000

// layoutArchive is a layout in an uncompressed tar, in a file or on a block device, read in place.
type layoutArchive struct {
	file  *os.File
	index map[string]extent
}

// extent is where a file's content lies in the archive.
type extent struct{ offset, size int64 }

func (a *layoutArchive) close() error { return a.file.Close() }

func (a *layoutArchive) open(name string) (*layoutFile, error) {
	e, ok := a.index[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name + " in the archive", Err: fs.ErrNotExist}
	}
	return &layoutFile{
		SectionReader: io.NewSectionReader(a.file, e.offset, e.size),
		closer:        func() error { return nil }, // the archive's file is closed with the image
	}, nil
}

// openArchive opens a tar file and indexes it.
func openArchive(name string) (*layoutArchive, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	a := &layoutArchive{file: f, index: map[string]extent{}}
	if err := a.scan(); err != nil {
		f.Close()
		return nil, err
	}
	return a, nil
}

// scan notes where each file is. The tar reader seeks over contents, so this reads headers only. A
// later file of the same name replaces an earlier one.
func (a *layoutArchive) scan() error {
	size, err := a.check()
	if err != nil {
		return err
	}
	t := tar.NewReader(a.file)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return a.checkEnd()
		}
		if err != nil {
			return fmt.Errorf("reading the archive's index: %w (is it truncated?)", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		offset, err := a.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if h.Size > size-offset {
			return fmt.Errorf("the archive is truncated: %s ends at byte %d, the archive at %d", quoteShort(h.Name), offset+h.Size, size)
		}
		if len(a.index) >= maxArchiveFiles {
			return fmt.Errorf("the archive has more than %d files", maxArchiveFiles)
		}
		a.index[path.Clean(h.Name)] = extent{offset: offset, size: h.Size}
	}
}

// checkEnd demands the two zero blocks that end a tar (POSIX.1-2001 pax, "ustar Interchange
// Format"): the tar reader is content with a plain end of file.
func (a *layoutArchive) checkEnd() error {
	var end [1024]byte
	offset, err := a.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if offset < int64(len(end)) {
		return errors.New("the archive is truncated or no tar")
	}
	if _, err := a.file.ReadAt(end[:], offset-int64(len(end))); err != nil {
		return fmt.Errorf("the archive is truncated: %w", noEOF(err))
	}
	if end != [1024]byte{} {
		return errors.New("the archive is truncated: it has no end marker")
	}
	return nil
}

// check refuses an archive that cannot be read in place, and returns the archive's size.
func (a *layoutArchive) check() (int64, error) {
	st, err := a.file.Stat()
	if err != nil {
		return 0, err
	}
	size := st.Size()
	switch mode := st.Mode(); {
	case mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0:
		if size, err = a.deviceSize(); err != nil {
			return 0, err
		}
	case !mode.IsRegular():
		return 0, fmt.Errorf("%s is neither a regular file nor a block device", a.file.Name())
	}
	head := make([]byte, len(zstdMagic))
	if _, err := a.file.ReadAt(head, 0); err != nil {
		return 0, fmt.Errorf("the archive is empty or unreadable: %w", noEOF(err))
	}
	if bytes.HasPrefix(head, gzipMagic) || bytes.HasPrefix(head, zstdMagic) {
		return 0, fmt.Errorf("the archive is compressed as a whole: unpack it with gunzip or unzstd first (its layers may stay compressed)")
	}
	return size, nil
}

// deviceSize is the size of a block device, which stat(2) does not return.
func (a *layoutArchive) deviceSize() (int64, error) {
	size, err := a.file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = a.file.Seek(0, io.SeekStart)
	}
	return size, err
}
