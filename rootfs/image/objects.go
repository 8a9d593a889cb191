package image

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"installer/rootfs/ostree"
	"installer/rootfs/xattr"
)

// repoPrefix is where the lower layers of an ostree-native image hold a repository. Everything else
// in them is for engines that run the image.
const repoPrefix = "sysroot/ostree/repo/"

// Bounds of the entries that are kept in memory, in bytes, as ostree-ext has them.
const (
	maxMetadataObject = 10 << 20
	maxXattrsObject   = 1 << 20
)

// objectKind is the suffix of an entry that holds an object, or a part of one.
type objectKind string

const (
	commitKind     objectKind = "commit"
	commitMetaKind objectKind = "commitmeta"
	dirTreeKind    objectKind = "dirtree"
	dirMetaKind    objectKind = "dirmeta"
	fileKind       objectKind = "file"
	// xattrsKind is a list of extended attributes that file objects share, named by its own
	// checksum. A link to it, or a copy, comes right before each of those objects.
	xattrsKind      objectKind = "file-xattrs"
	xattrsLinkKind  objectKind = "file-xattrs-link"
	xattrsLinkKind0 objectKind = "file.xattrs" // in streams of version 0
)

var objectKinds = []objectKind{
	commitKind, commitMetaKind, dirTreeKind, dirMetaKind, fileKind, xattrsKind, xattrsLinkKind, xattrsLinkKind0,
}

// object is an entry of a layer that holds an object.
type object struct {
	kind    objectKind
	sum     ContentID
	header  *tar.Header
	content io.Reader
}

// objectPath returns the path of an object below repoPrefix.
func objectPath(kind objectKind, sum ContentID) string {
	name := sum.String()
	return "objects/" + name[:2] + "/" + name[2:] + "." + string(kind)
}

// parseObject takes apart the path of an entry below repoPrefix. ok is false for an entry that
// holds no object, such as the repository's configuration.
func parseObject(name string) (kind objectKind, sum ContentID, ok bool, err error) {
	if rest, is := strings.CutPrefix(name, "xattrs/"); is { // version 0
		sum, err = parseSum(rest)
		return xattrsKind, sum, true, err
	}
	rest, is := strings.CutPrefix(name, "objects/")
	if !is {
		return "", sum, false, nil
	}
	stem, suffix, _ := strings.Cut(rest, ".")
	if kind = objectKind(suffix); !slices.Contains(objectKinds, kind) {
		return kind, sum, true, fmt.Errorf("%q is no type of an object", suffix)
	}
	if len(stem) < 3 || stem[2] != '/' {
		return kind, sum, true, errors.New("the name is not that of an object")
	}
	sum, err = parseSum(stem[:2] + stem[3:])
	return kind, sum, true, err
}

func parseSum(name string) (ContentID, error) {
	sum, err := ostree.ParseChecksum(name)
	if err != nil {
		err = fmt.Errorf("the name is not that of an object: %w", err)
	}
	return ContentID(sum), err
}

// data reads an object that is kept in memory.
func (o *object) data(most int64) ([]byte, error) {
	if o.header.Typeflag != tar.TypeReg {
		return nil, errors.New("the entry is no regular file")
	}
	if o.header.Size > most {
		return nil, fmt.Errorf("the object has %d bytes, more than the limit of %d", o.header.Size, most)
	}
	data := make([]byte, o.header.Size)
	if _, err := io.ReadFull(o.content, data); err != nil {
		return nil, &streamError{path: o.header.Name, err: noEOF(err)}
	}
	return data, nil
}

// verified reads an object that is named by the checksum of its bytes.
func (o *object) verified(most int64) ([]byte, error) {
	data, err := o.data(most)
	if err == nil && sha256.Sum256(data) != o.sum {
		err = &checksumError{sha256.Sum256(data)}
	}
	return data, err
}

// checksumError says that an object is another one than its name says.
type checksumError struct{ got ContentID }

func (e *checksumError) Error() string {
	return fmt.Sprintf("the object has the checksum %s, and not the one of its name: the image is damaged", e.got)
}

// objectReader reads the objects of a layer's tar.
type objectReader struct {
	entries *atomic.Int64 // left for the whole image
	record  *recording
	use     func(o *object) error
}

func (r *objectReader) read(src io.Reader) error {
	t := tar.NewReader(r.record.begin(src))
	last := ""
	for {
		h, err := t.Next()
		if err == io.EOF {
			r.record.finish()
			return nil
		}
		if err != nil {
			return afterEntry(last, err)
		}
		r.record.content(h)
		if err := r.entry(h, t); err != nil {
			return asEntry(h.Name, err)
		}
		last = h.Name
	}
}

// asEntry names the entry at fault, unless the stream is.
func asEntry(name string, err error) error {
	if stream := (*streamError)(nil); errors.As(err, &stream) || errors.As(err, new(*entryError)) {
		return err
	}
	return &entryError{name, err}
}

func (r *objectReader) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == tar.TypeDir {
		return nil
	}
	if r.entries.Add(-1) < 0 {
		return errTooManyEntries
	}
	parts, err := splitPath(h.Name)
	if err != nil {
		return err
	}
	name, is := strings.CutPrefix(strings.Join(parts, "/"), repoPrefix)
	if !is {
		return nil
	}
	kind, sum, ok, err := parseObject(name)
	if err != nil || !ok {
		return err
	}
	if isSparse(h) {
		return errors.New("the entry is a sparse file, which no object is")
	}
	return r.use(&object{kind, sum, h, content})
}

// xattrLists are the lists of extended attributes of a layer by their checksums.
type xattrLists struct {
	lists  map[ContentID][]Xattr
	budget *budget
	// The list for the file object of this name, which comes next.
	next    []Xattr
	nextFor ContentID
	waiting bool
}

// use takes an entry that holds a list, or names the list of the next file object.
func (x *xattrLists) use(o *object) error {
	if x.waiting {
		return errors.New("the entry before names the attributes of a file object, which must follow it")
	}
	if o.kind == xattrsKind {
		data, err := o.verified(maxXattrsObject)
		if err == nil {
			_, err = x.add(o.sum, data)
		}
		return err
	}
	list, err := x.linked(o)
	x.next, x.nextFor, x.waiting = list, o.sum, err == nil
	return err
}

func (x *xattrLists) linked(o *object) ([]Xattr, error) {
	if o.header.Typeflag != tar.TypeLink {
		data, err := o.data(maxXattrsObject)
		if err != nil {
			return nil, err
		}
		return x.add(sha256.Sum256(data), data)
	}
	sum, err := linkedSum(o.header.Linkname)
	if err != nil {
		return nil, fmt.Errorf("link to %s: %w", quoteShort(o.header.Linkname), err)
	}
	list, known := x.lists[sum]
	if !known {
		return nil, fmt.Errorf("link to the attributes %s, which did not come before it", sum)
	}
	return list, nil
}

// linkedSum returns the checksum of a list by the name of its entry.
func linkedSum(target string) (ContentID, error) {
	dir, base := path.Split(target)
	if len(base) == 64 { // version 0
		return parseSum(base)
	}
	base, _ = strings.CutSuffix(base, "."+string(xattrsKind))
	return parseSum(path.Base(dir) + base)
}

func (x *xattrLists) add(sum ContentID, data []byte) ([]Xattr, error) {
	if list, known := x.lists[sum]; known {
		return list, nil
	}
	list, err := ostree.DecodeXattrs(data)
	if err == nil {
		err = x.budget.spendXattrs(list)
	}
	if err == nil {
		x.lists[sum] = list
	}
	return list, err
}

// finish fails if a file object is missing whose attributes were named.
func (x *xattrLists) finish() error {
	if !x.waiting {
		return nil
	}
	return &entryError{repoPrefix + objectPath(fileKind, x.nextFor), errors.New("the object is missing: the layer's last entry names its attributes")}
}

// take returns the attributes of a file object.
func (x *xattrLists) take(sum ContentID) ([]Xattr, error) {
	if !x.waiting || x.nextFor != sum {
		return nil, errors.New("the entry before does not name the object's attributes")
	}
	x.waiting = false
	return x.next, nil
}

// checkShown refuses attributes that a file does not show as they are in the object's name.
func checkShown(m Meta) error {
	if len(m.Xattrs) == 0 {
		return nil
	}
	shown, mode, dropped, err := xattr.Canonical(m.Mode, m.Xattrs)
	if err != nil {
		return err
	}
	differs, same := xattr.Equal(shown, m.Xattrs)
	switch {
	case len(dropped) > 0:
		return fmt.Errorf("the extended attribute %s is none that Linux has", quoteShort(dropped[0]))
	case !same:
		return fmt.Errorf("a file does not show the extended attribute %s as the object has it", quoteShort(differs))
	case mode != m.Mode:
		return fmt.Errorf("the access control list does not go with the mode %#o", m.Mode)
	}
	return nil
}
