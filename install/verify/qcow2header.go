package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Fields of the header of a qcow2, and its extensions (QEMU, docs/interop/qcow2.rst).
const (
	qcow2Version     = 4
	qcow2BackingAt   = 8
	qcow2BackingSize = 16
	qcow2Size        = 24
	qcow2Crypt       = 32
	qcow2Features    = 72
	qcow2Length      = 100
	qcow2HeaderV2    = 72
	qcow2HeaderV3    = 104

	featureDataFile = 1 << 2 // incompatible

	extensionBackingFormat = 0xe2792aca
	extensionDataFile      = 0x44415441
	longestReference       = 1023
	longestHeader          = 64 << 10
)

// qcow2Header holds the size and the names of other files that the header has.
type qcow2Header struct {
	size          int64
	backing       string // "" is none
	backingFormat string // "" is not stated: QEMU guesses
	data          string // external data file
	hasData       bool
}

// readQcow2Header reads the header of version 2 or 3 without believing any size in it.
func readQcow2Header(r io.ReaderAt) (qcow2Header, error) {
	data := make([]byte, longestHeader)
	n, err := r.ReadAt(data, 0)
	if err != nil && err != io.EOF {
		return qcow2Header{}, err
	}
	data = data[:n]
	be := binary.BigEndian
	if len(data) < qcow2HeaderV2 || string(data[:4]) != qcow2Magic {
		return qcow2Header{}, errors.New("its header is cut off")
	}
	h := qcow2Header{size: int64(be.Uint64(data[qcow2Size:]))}
	extensions := uint32(qcow2HeaderV2)
	switch version := be.Uint32(data[qcow2Version:]); version {
	case 2:
	case 3:
		if len(data) < qcow2HeaderV3 {
			return h, errors.New("its header is cut off")
		}
		h.hasData = be.Uint64(data[qcow2Features:])&featureDataFile != 0
		extensions = be.Uint32(data[qcow2Length:])
	default:
		return h, fmt.Errorf("it is of version %d, and QEMU's versions are 2 and 3", version)
	}
	if be.Uint32(data[qcow2Crypt:]) != 0 {
		return h, errors.New("it is encrypted")
	}
	if at, size := be.Uint64(data[qcow2BackingAt:]), be.Uint32(data[qcow2BackingSize:]); at != 0 {
		if h.backing, err = reference(data, at, size); err != nil {
			return h, fmt.Errorf("it has a backing file, and %w", err)
		}
	}
	return h, h.readExtensions(data, uint64(extensions))
}

// reference returns the text of size bytes at an offset.
func reference(data []byte, at uint64, size uint32) (string, error) {
	if size == 0 || size > longestReference || at > uint64(len(data)) || uint64(size) > uint64(len(data))-at {
		return "", errors.New("the header does not say which")
	}
	return string(data[at : at+uint64(size)]), nil
}

func (h *qcow2Header) readExtensions(data []byte, at uint64) error {
	be := binary.BigEndian
	for at+8 <= uint64(len(data)) {
		kind, size := be.Uint32(data[at:]), be.Uint32(data[at+4:])
		if kind == 0 {
			return nil
		}
		at += 8
		if uint64(size) > uint64(len(data))-at {
			return errors.New("an extension of its header is cut off")
		}
		text := string(data[at : at+uint64(size)])
		switch kind {
		case extensionBackingFormat:
			h.backingFormat = text
		case extensionDataFile:
			h.data, h.hasData = text, true
		}
		at += (uint64(size) + 7) &^ 7
	}
	return nil
}

// references lists the other files that the image is made of.
func (h *qcow2Header) references() []string {
	var names []string
	if h.backing != "" {
		names = append(names, h.backing)
	}
	if h.hasData {
		names = append(names, h.data)
	}
	return names
}

// maxChain bounds how many images may stand behind each other.
const maxChain = 16

// checkReferences refuses an image that has QEMU open a file which is not among the allowed ones,
// or any place that is no file: that is how an image reads a file of whoever looks at it.
func checkReferences(path string, h qcow2Header, allowed []string) error {
	for range maxChain {
		for _, name := range h.references() {
			if err := checkReference(path, name, allowed); err != nil {
				return err
			}
		}
		if h.backing == "" {
			return nil
		}
		if h.backingFormat != "raw" && h.backingFormat != "qcow2" {
			return &ReferenceError{Path: path, Name: h.backing, Reason: fmt.Sprintf("as a disk of format %q; raw and qcow2 are read", h.backingFormat)}
		}
		path = resolve(path, h.backing)
		if h.backingFormat == "raw" {
			return nil
		}
		next, err := headerOf(path)
		if err != nil {
			return fmt.Errorf("reading the backing file %s: %w", path, err)
		}
		h = next
	}
	return &ReferenceError{Path: path, Name: h.backing, Reason: fmt.Sprintf("behind more than %d others", maxChain)}
}

func headerOf(path string) (qcow2Header, error) {
	file, err := os.Open(path)
	if err != nil {
		return qcow2Header{}, err
	}
	defer file.Close()
	return readQcow2Header(file)
}

// resolve returns the path of a file that an image names: relative to the image's directory.
func resolve(image, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(image), name)
}

func checkReference(path, name string, allowed []string) error {
	refused := &ReferenceError{Path: path, Name: name, Reason: "that was not named by --backing-file"}
	first, _, _ := strings.Cut(name, "/")
	if name == "" || strings.Contains(first, ":") || strings.Contains(name, "\x00") {
		refused.Reason = "which is no path of a file"
		return refused
	}
	info, err := os.Stat(resolve(path, name))
	if err != nil {
		return refused // whether there is such a file is nothing that an image may find out
	}
	for _, a := range allowed {
		if own, err := os.Stat(a); err == nil && os.SameFile(own, info) && info.Mode().IsRegular() {
			return nil
		}
	}
	return refused
}

// ReferenceError refuses a disk that consists of other files, too.
type ReferenceError struct {
	Path   string // of the disk
	Name   string // of the other file, as the disk has it
	Reason string
}

func (e *ReferenceError) Error() string {
	return fmt.Sprintf("the disk %s refers to %q, %s; make a disk of its own (qemu-img convert) where you trust it, or name each such file by --backing-file",
		e.Path, e.Name, e.Reason)
}
