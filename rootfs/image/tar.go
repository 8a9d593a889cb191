package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync/atomic"
)

// maxID is the highest user or group; one more is the "no change" of chown(2).
const maxID = math.MaxUint32 - 1

var errTooManyEntries = errors.New("the image has more entries than the limit")

// entryError is a rule that an entry of the layer breaks.
type entryError struct {
	entry string
	err   error
}

func (e *entryError) Error() string { return fmt.Sprintf("entry %s: %v", quoteShort(e.entry), e.err) }
func (e *entryError) Unwrap() error { return e.err }

// storer takes the content of files and symbolic links; see [storePool].
type storer interface {
	store(node *Node, path string, content io.Reader) error
}

// tarReader makes a tree of a layer's uncompressed tar.
type tarReader struct {
	tree    *builder
	out     storer
	entries *atomic.Int64 // left for the whole image
	bytes   int64         // left for this layer's files
	last    string        // the entry before, for messages
	record  *recording    // nil: nobody asks for it
}

// read reads the tar to its end marker, and resolves the hard links.
func (r *tarReader) read(src io.Reader) (*Node, error) {
	t := tar.NewReader(r.record.begin(src))
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, afterEntry(r.last, err)
		}
		r.record.content(h)
		if err := r.entry(h, t); err != nil {
			return nil, err
		}
		r.last = h.Name
	}
	r.record.finish()
	root, err := r.tree.finish()
	if link := (*linkError)(nil); errors.As(err, &link) {
		return nil, &entryError{entry: link.path, err: link.err}
	}
	return root, err
}

// afterEntry adds the last good entry to an error of the tar format or its stream.
func afterEntry(last string, err error) error {
	if last == "" {
		return fmt.Errorf("reading the tar: %w", err)
	}
	return fmt.Errorf("reading the tar after entry %s: %w", quoteShort(last), err)
}

func (r *tarReader) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // comments of git archive and the like
	}
	if r.entries.Add(-1) < 0 {
		return &entryError{h.Name, errTooManyEntries}
	}
	parts, err := r.split(h.Name)
	if err != nil {
		return &entryError{h.Name, err}
	}
	if taken, err := r.ofRepository(h, parts, content); taken || err != nil {
		return err
	}
	if r.tree.drops(parts) {
		if len(parts) == 2 && parts[0] == plnkDir && h.Typeflag == tar.TypeReg {
			return r.keepTarget(h, parts[1], content)
		}
		return nil
	}
	return r.keep(h, parts, content)
}

// keepTarget keeps a file to which AUFS moved a content that several names share: hard links of the
// layer lead to it.
func (r *tarReader) keepTarget(h *tar.Header, name string, content io.Reader) error {
	e, err := r.describe(h)
	if err == nil {
		err = r.tree.budget.spend(e.cost())
	}
	if err != nil {
		return &entryError{h.Name, err}
	}
	node := &Node{Meta: e.Meta, Size: e.size}
	r.tree.plnk[strings.Clone(name)] = node
	r.record.of(node, h)
	return r.out.store(node, h.Name, content)
}

// keep puts an entry that is not dropped into the tree and stores its content.
func (r *tarReader) keep(h *tar.Header, parts []string, content io.Reader) error {
	if h.Typeflag == tar.TypeLink {
		if err := r.link(h, parts); err != nil {
			return &entryError{h.Name, err}
		}
		return nil
	}
	e, err := r.describe(h)
	if err != nil {
		return &entryError{h.Name, err}
	}
	node, err := r.tree.add(parts, e)
	if err != nil {
		return &entryError{h.Name, err}
	}
	if node.IsDir() {
		return nil
	}
	r.record.of(node, h)
	return r.out.store(node, h.Name, content)
}

func (r *tarReader) link(h *tar.Header, parts []string) error {
	target, err := r.split(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", quoteShort(h.Linkname), err)
	}
	owner, err := ownerOf(h)
	if err != nil {
		return err
	}
	return r.tree.addLink(parts, target, owner)
}

// split takes a path apart, which over a commit has its place in /usr/etc for one in /etc.
func (r *tarReader) split(name string) ([]string, error) {
	parts, err := splitPath(name)
	if err == nil && r.tree.overBase && len(parts) > 0 && parts[0] == "etc" {
		parts = append([]string{"usr"}, parts...)
	}
	return parts, err
}

func ownerOf(h *tar.Header) (m Meta, err error) {
	if h.Uid < 0 || h.Uid > maxID || h.Gid < 0 || h.Gid > maxID {
		return m, fmt.Errorf("owner %d:%d is out of range", h.Uid, h.Gid)
	}
	return Meta{UID: uint32(h.Uid), GID: uint32(h.Gid)}, nil
}

// describe takes from a header the metadata that an OSTree repository keeps.
func (r *tarReader) describe(h *tar.Header) (*entry, error) {
	e := &entry{path: h.Name}
	kind, err := fileType(h.Typeflag)
	if err != nil {
		return nil, err
	}
	if e.Meta, err = ownerOf(h); err != nil {
		return nil, err
	}
	e.Mode = kind | uint32(h.Mode)&modePermMask
	if kind == modeSymlink {
		e.Mode = modeSymlink | 0o777 // all that Linux shows of a link's mode
	}
	xattrs, unreadable := paxXattrs(h.PAXRecords)
	r.tree.ignored.add(unreadable, h.Name)
	if err := r.tree.setXattrs(e, xattrs); err != nil {
		return nil, err
	}
	switch kind {
	case modeSymlink:
		e.target = strings.Clone(h.Linkname)
		return e, checkTarget(e.target)
	case modeRegular:
		e.size = h.Size
		return e, r.spend(e.size)
	}
	return e, nil
}

// spend counts a file against the layer's limit. A sparse file's size is far from its size in the
// tar, so the stream's bound is not enough.
func (r *tarReader) spend(size int64) error {
	if size < 0 || size > r.bytes {
		return fmt.Errorf("file of %d bytes: the layer's files exceed the size limit", size)
	}
	r.bytes -= size
	return nil
}

func checkTarget(target string) error {
	if target == "" {
		return errors.New("symbolic link without a target")
	}
	if len(target) > maxPath {
		return fmt.Errorf("the link's target has %d bytes, more than the %d that Linux takes", len(target), maxPath)
	}
	if err := checkText(target); err != nil {
		return fmt.Errorf("target of the symbolic link: %w", err)
	}
	return nil
}

// fileType maps a tar type to the file type bits of st_mode.
func fileType(flag byte) (uint32, error) {
	switch flag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return modeRegular, nil
	case tar.TypeDir:
		return modeDir, nil
	case tar.TypeSymlink:
		return modeSymlink, nil
	case tar.TypeChar, tar.TypeBlock:
		return 0, errors.New("device nodes cannot be in an image (an overlayfs whiteout must be a .wh. file)")
	case tar.TypeFifo:
		return 0, errors.New("named pipes cannot be in an image")
	}
	return 0, fmt.Errorf("unsupported tar entry type %q", flag)
}
