package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"installer/rootfs/keyfile"
	"installer/rootfs/ostree"
)

// Base is the ostree commit that the lower layers of an ostree-native image hold. Its objects are
// stored as they are.
type Base struct {
	Layers   int // of the image, lowest first: that of the commit, then those of its files
	Checksum ContentID
	Commit   ostree.Commit
	Detached []ostree.KeyValue // metadata beside the commit, such as its signatures
}

// Labels of an image whose lower layers hold the objects of an ostree commit. The value is the
// diff-id of the last of those layers.
var baseLabels = []string{"ostree.final-diffid", "ostree.diffid"}

// BaseLayers returns how many layers of the image with this configuration, from the lowest, hold
// the objects of an ostree commit: 0 if it is not ostree-native.
func BaseLayers(config []byte) (int, error) {
	var c imageConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return 0, fmt.Errorf("parsing the configuration: %w", err)
	}
	return c.baseLayers()
}

func (c *imageConfig) baseLayers() (int, error) {
	for _, label := range baseLabels {
		last, native := c.Config.Labels[label]
		if !native {
			continue
		}
		count := 0
		for i, diffID := range c.RootFS.DiffIDs {
			switch {
			case diffID != last:
			case count > 0:
				return 0, fmt.Errorf("the label %s names the last layer of the ostree commit, and 2 layers have the diff-id %s", label, last)
			default:
				count = i + 1
			}
		}
		if count == 0 {
			return 0, fmt.Errorf("the label %s names the last layer of the ostree commit, and no layer has the diff-id %s", label, quoteShort(last))
		}
		return count, nil
	}
	return 0, nil
}

// baseReader makes the tree of a base commit, and those of its layers.
type baseReader struct {
	budget *budget
	// compares has file objects compared with their names as they are read; otherwise who takes them
	// does that.
	compares bool

	out     Base
	root    *Node
	leftOut map[*Node]bool // files of the layers over the commit that assemble leaves out

	mu       sync.Mutex
	files    map[ContentID]*baseFile
	settings []byte // content of prepareRootFile
}

// baseFile is a file object.
type baseFile struct {
	node  *Node
	names []string // in the commit, in byte order
	found bool     // a layer has it
}

func newBaseReader(layers int, b *budget) *baseReader {
	return &baseReader{out: Base{Layers: layers}, budget: b, leftOut: map[*Node]bool{}, files: map[ContentID]*baseFile{}}
}

// commitReader collects the metadata objects of the commit's layer.
type commitReader struct {
	base  *baseReader
	has   bool // the commit
	trees map[ContentID]ostree.DirTree
	metas map[ContentID]ostree.DirMeta
}

func newCommitReader(b *baseReader) *commitReader {
	return &commitReader{base: b, trees: map[ContentID]ostree.DirTree{}, metas: map[ContentID]ostree.DirMeta{}}
}

func (c *commitReader) use(o *object) (err error) {
	if !c.has && o.kind != commitKind {
		return errors.New("the first object of the layer must be the commit")
	}
	switch o.kind {
	case commitKind:
		return c.commit(o)
	case commitMetaKind:
		return c.detached(o)
	case dirTreeKind, dirMetaKind:
		data, err := o.verified(maxMetadataObject)
		if err == nil {
			err = c.base.budget.spend(len(data))
		}
		if err != nil {
			return err
		}
		if o.kind == dirMetaKind {
			c.metas[o.sum], err = ostree.DecodeDirMeta(data)
		} else {
			c.trees[o.sum], err = ostree.DecodeDirTree(data)
		}
		return err
	}
	return nil // contents are read with those of the other layers
}

func (c *commitReader) commit(o *object) error {
	if c.has {
		return fmt.Errorf("a second commit, after %s", c.base.out.Checksum)
	}
	data, err := o.verified(maxMetadataObject)
	if err != nil {
		return err
	}
	c.has, c.base.out.Checksum = true, o.sum
	if c.base.out.Commit, err = ostree.DecodeCommit(data); err != nil {
		return err
	}
	again, err := c.base.out.Commit.Encode()
	if err == nil && !bytes.Equal(again, data) {
		err = errors.New("the commit is not in the form in which it would be written")
	}
	return err
}

func (c *commitReader) detached(o *object) error {
	if o.sum != c.base.out.Checksum {
		return fmt.Errorf("metadata of another commit than %s", c.base.out.Checksum)
	}
	data, err := o.data(maxMetadataObject)
	if err == nil {
		c.base.out.Detached, err = ostree.DecodeMetadata(data)
	}
	return err
}

// finish makes the tree of the objects.
func (c *commitReader) finish(entries *atomic.Int64) error {
	if !c.has {
		return errors.New("the layer holds no commit: it is not the first one of an ostree-native image")
	}
	commit := c.base.out.Commit
	t := treeOfCommit{c, entries}
	root, err := t.dir("", ContentID(commit.Tree), ContentID(commit.Meta))
	c.base.root = root
	return err
}

// treeOfCommit makes nodes of dirtree and dirmeta objects. The limits of an image's entries and
// memory bound a tree of objects that name each other many times.
type treeOfCommit struct {
	*commitReader
	entries *atomic.Int64 // left for the whole image
}

func (t treeOfCommit) dir(at string, tree, meta ContentID) (*Node, error) {
	list, known := t.trees[tree]
	if !known {
		return nil, t.missing(dirTreeKind, tree, at)
	}
	m, known := t.metas[meta]
	if !known {
		return nil, t.missing(dirMetaKind, meta, at)
	}
	if err := t.count(at, dirCost+len(at)); err != nil {
		return nil, err
	}
	n := &Node{
		Meta:     Meta{Mode: m.Mode, UID: m.UID, GID: m.GID, Xattrs: m.Xattrs},
		Children: make(map[string]*Node, len(list.Files)+len(list.Dirs)), Explicit: true,
	}
	if err := checkShown(n.Meta); err != nil {
		return nil, &entryError{repoPrefix + objectPath(dirMetaKind, meta), err}
	}
	for _, f := range list.Files {
		name := joined(at, f.Name)
		if err := t.count(name, fileCost+2*len(name)); err != nil {
			return nil, err
		}
		n.Children[f.Name] = t.base.file(ContentID(f.Checksum), name)
	}
	for _, d := range list.Dirs {
		child, err := t.dir(joined(at, d.Name), ContentID(d.Tree), ContentID(d.Meta))
		if err != nil {
			return nil, err
		}
		n.Children[d.Name] = child
	}
	return n, nil
}

func joined(at, name string) string {
	if at == "" {
		return name
	}
	return at + "/" + name
}

// count spends an entry of the tree.
func (t treeOfCommit) count(name string, cost int) error {
	if base := name[strings.LastIndexByte(name, '/')+1:]; len(base) > maxName || len(name) > maxPath {
		return &entryError{name, fmt.Errorf("the commit has a path of %d bytes that Linux does not take", len(name))}
	}
	err := t.base.budget.spend(cost)
	if t.entries.Add(-1) < 0 {
		err = errTooManyEntries
	}
	if err != nil {
		return &entryError{name, err}
	}
	return nil
}

func (t treeOfCommit) missing(kind objectKind, sum ContentID, at string) error {
	return &entryError{repoPrefix + objectPath(kind, sum), fmt.Errorf("the object is missing: the commit %s has it as /%s", t.base.out.Checksum, at)}
}

// file returns the node of a file object that the commit has under a name.
func (b *baseReader) file(sum ContentID, name string) *Node {
	f := b.files[sum]
	if f == nil {
		f = &baseFile{node: &Node{Content: sum}}
		b.files[sum] = f
	}
	f.names = append(f.names, name)
	return f.node
}

// missing returns an error for the first file object that no layer has.
func (b *baseReader) missing() error {
	var lost *baseFile
	for _, f := range b.files {
		if !f.found && (lost == nil || f.names[0] < lost.names[0]) {
			lost = f
		}
	}
	if lost == nil {
		return nil
	}
	return &entryError{repoPrefix + objectPath(fileKind, lost.node.Content), fmt.Errorf(
		"the object is missing in the image's layers: the commit %s has it as /%s", b.out.Checksum, lost.names[0])}
}

// fileReader takes the file objects of one of the base's layers.
type fileReader struct {
	base   *baseReader
	first  bool // the layer is the commit's, which may have other objects
	out    storer
	bytes  int64 // left for the layer's files
	lists  xattrLists
	record *recording
	root   *Node // of the layer's own commit
}

func (b *baseReader) fileReader(layer int, out storer, bytes int64, record *recording) *fileReader {
	return &fileReader{
		base: b, first: layer == 0, out: out, bytes: bytes, record: record, root: newDir(),
		lists: xattrLists{lists: map[ContentID][]Xattr{}, budget: b.budget},
	}
}

func (r *fileReader) use(o *object) error {
	switch o.kind {
	case xattrsKind, xattrsLinkKind, xattrsLinkKind0:
		return r.lists.use(o)
	case fileKind:
		return r.file(o)
	}
	if !r.first {
		return fmt.Errorf("a %s object, which only the image's first layer can hold", o.kind)
	}
	return nil
}

func (r *fileReader) file(o *object) error {
	m, size, err := r.describe(o)
	if err != nil {
		return err
	}
	f, err := r.base.fill(o.sum, m, size, o.header.Linkname)
	if err != nil {
		return err
	}
	name := o.sum.String()
	if r.root.Children[name] != nil {
		return errors.New("the layer has the object twice")
	}
	r.root.Children[name] = f.node
	if err := r.base.budget.spend(fileCost); err != nil {
		return err
	}
	r.record.of(f.node, o.header)
	return r.store(f, o)
}

// describe takes the metadata of a file object.
func (r *fileReader) describe(o *object) (m Meta, size int64, err error) {
	h := o.header
	if m, err = ownerOf(h); err != nil {
		return m, size, err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		m.Mode, size = modeRegular|uint32(h.Mode)&modePermMask, h.Size
	case tar.TypeSymlink:
		m.Mode, err = modeSymlink|0o777, checkTarget(h.Linkname)
	default:
		err = fmt.Errorf("a file object cannot be a tar entry of type %q", h.Typeflag)
	}
	if err != nil {
		return m, size, err
	}
	if m.Xattrs, err = r.lists.take(o.sum); err != nil {
		return m, size, err
	}
	if size > r.bytes {
		return m, size, fmt.Errorf("file of %d bytes: the layer's files exceed the size limit", size)
	}
	r.bytes -= size
	return m, size, checkShown(m)
}

// fill gives the node of a file object its metadata. Layers may hold the same object.
func (b *baseReader) fill(sum ContentID, m Meta, size int64, target string) (*baseFile, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.files[sum]
	if f == nil { // not the commit's: it is the layer's alone
		f = &baseFile{node: &Node{Content: sum}}
		b.files[sum] = f
	}
	if !f.found {
		f.found = true
		f.node.Meta, f.node.Size, f.node.Target = m, size, strings.Clone(target)
		return f, nil
	}
	if !sameNode(f.node, m, size, target) {
		return nil, errors.New("another layer has the object with other metadata")
	}
	return f, nil
}

func sameNode(n *Node, m Meta, size int64, target string) bool {
	if n.Mode != m.Mode || n.UID != m.UID || n.GID != m.GID || n.Size != size || n.Target != target || len(n.Xattrs) != len(m.Xattrs) {
		return false
	}
	for i, x := range n.Xattrs {
		if x.Name != m.Xattrs[i].Name || !bytes.Equal(x.Value, m.Xattrs[i].Value) {
			return false
		}
	}
	return true
}

// namedStorer is a storer that looks at a content by its names in the merged tree.
type namedStorer interface {
	storeAs(node *Node, names []string, content io.Reader) error
}

// store hands the content on.
func (r *fileReader) store(f *baseFile, o *object) error {
	content := o.content
	if f.node.IsSymlink() {
		content = nil
	}
	var sum hash.Hash
	if r.base.compares {
		var err error
		if sum, err = headerOf(f.node).Hash(); err != nil {
			return err
		}
		if content != nil {
			content = io.TeeReader(content, sum)
		}
	}
	if err := r.storeContent(f, o, content); err != nil || sum == nil {
		return err
	}
	if got := ContentID(sum.Sum(nil)); got != o.sum {
		return &checksumError{got}
	}
	return nil
}

func (r *fileReader) storeContent(f *baseFile, o *object, content io.Reader) error {
	var settings bytes.Buffer
	if content != nil && f.node.Size <= maxKeptFile && slices.Contains(f.names, prepareRootFile) {
		content = io.TeeReader(content, &settings)
	}
	var err error
	if named, ok := r.out.(namedStorer); ok && len(f.names) > 0 {
		err = named.storeAs(f.node, f.names, content)
	} else {
		err = r.out.store(f.node, o.header.Name, content)
	}
	if settings.Len() > 0 {
		r.base.mu.Lock()
		defer r.base.mu.Unlock()
		r.base.settings = settings.Bytes()
	}
	return err
}

// prepareRootFile configures how the initramfs mounts the commit's root.
const prepareRootFile = "usr/lib/ostree/prepare-root.conf"

// takesAnyPath reports whether the system shows files of derived layers that are outside of /usr,
// /etc and /var: its root is an overlay. An updater leaves them out otherwise.
func (b *baseReader) takesAnyPath() (bool, error) {
	values, err := keyfile.Parse(string(b.settings))
	if err != nil {
		return false, &entryError{prepareRootFile, err}
	}
	switch enabled := values["composefs.enabled"]; enabled {
	case "maybe", "signed", "verity":
		return true, nil
	default:
		return keyfile.IsTrue(enabled) || keyfile.IsTrue(values["root.transient"]), nil
	}
}
