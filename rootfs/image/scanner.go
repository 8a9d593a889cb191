package image

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"io"
	"slices"
	"sync"

	"installer/rootfs/ostree"
)

// scanner takes contents as a scan meets them: it counts them and keeps the wanted ones. Layers use
// it concurrently.
type scanner struct {
	wanted  wantedFiles
	sizes   map[int64]bool // of files that are kept whatever their name
	seed    maphash.Seed
	buffers sync.Pool
	exact   bool
	look    func(name string, mode uint32) func(io.Reader) (any, error)

	mu        sync.Mutex
	keys      map[*Node]contentKey
	passed    []*Node // whose contents were not read
	kept      map[*Node][]byte
	keptBytes int64
	found     map[*Node]any // the finding of look
}

// contentKey stands for a file with its metadata but the label, as an object's name does. It serves
// an estimate: nothing is ever dropped because two keys are equal.
type contentKey struct {
	size int64
	hash uint64
}

func newScanner(files []string, sizes map[int64]bool) *scanner {
	s := &scanner{
		wanted: wanted(files), sizes: sizes, seed: maphash.MakeSeed(),
		keys: map[*Node]contentKey{}, kept: map[*Node][]byte{}, found: map[*Node]any{},
	}
	s.buffers.New = func() any { b := make([]byte, 64<<10); return &b }
	return s
}

// keeps reports whether a file's content is to be kept.
func (s *scanner) keeps(node *Node, names []string) bool {
	return node.IsRegular() && node.Size <= maxKeptFile && (s.sizes[node.Size] || slices.ContainsFunc(names, s.wanted.has))
}

// store implements storer for contents that stream by.
func (s *scanner) store(node *Node, name string, content io.Reader) error {
	return s.storeAs(node, []string{name}, content)
}

// storeAs implements namedStorer. An object that has its name already is compared with that.
func (s *scanner) storeAs(node *Node, names []string, content io.Reader) error {
	if node.Content != (ContentID{}) {
		return s.compare(node, names, content)
	}
	var h maphash.Hash
	h.SetSeed(s.seed)
	hashMeta(&h, node)
	if err := s.read(node, names, content, &h); err != nil {
		return err
	}
	s.count(node, contentKey{node.Size, h.Sum64()})
	return nil
}

// compare reads an object and compares it with its name.
func (s *scanner) compare(node *Node, names []string, content io.Reader) error {
	h, err := headerOf(node).Hash()
	if err == nil {
		err = s.read(node, names, content, h)
	}
	if err != nil {
		return err
	}
	if got := ContentID(h.Sum(nil)); got != node.Content {
		return &checksumError{got}
	}
	s.count(node, contentKey{node.Size, binary.LittleEndian.Uint64(node.Content[:])})
	return nil
}

// headerOf returns the header of the file object that a node becomes.
func headerOf(n *Node) ostree.FileHeader {
	return ostree.FileHeader{UID: n.UID, GID: n.GID, Mode: n.Mode, Xattrs: n.Xattrs, Target: n.Target}
}

// read reads a content into h, keeps it and has it looked at.
func (s *scanner) read(node *Node, names []string, content io.Reader, h io.Writer) error {
	switch {
	case s.keeps(node, names):
		return s.keep(node, names, io.TeeReader(content, h))
	case !node.IsRegular():
		return nil
	}
	counted := &meter{r: content}
	if err := s.lookAt(node, names, io.TeeReader(counted, h)); err != nil {
		return err
	}
	buffer := s.buffers.Get().(*[]byte)
	n, err := io.CopyBuffer(onlyWriter{h}, onlyReader{content}, *buffer)
	n += counted.n
	s.buffers.Put(buffer)
	if err == nil && n != node.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return &streamError{path: names[0], err: err}
	}
	return nil
}

// onlyReader and onlyWriter hide the methods that would keep io.CopyBuffer from using the buffer.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// hashMeta adds the metadata that an object's checksum covers.
func hashMeta(h *maphash.Hash, n *Node) {
	var b [12]byte
	binary.LittleEndian.PutUint32(b[0:], n.Mode)
	binary.LittleEndian.PutUint32(b[4:], n.UID)
	binary.LittleEndian.PutUint32(b[8:], n.GID)
	h.Write(b[:])
	for _, x := range n.Xattrs {
		h.WriteString(x.Name)
		h.WriteByte(0)
		h.Write(x.Value)
		h.WriteByte(0)
	}
	h.WriteString(n.Target)
}

func (s *scanner) count(n *Node, key contentKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[n] = key
}

// keep reads a content and remembers it.
func (s *scanner) keep(n *Node, names []string, content io.Reader) error {
	data := make([]byte, n.Size)
	if _, err := io.ReadFull(content, data); err != nil {
		return &streamError{path: names[0], err: noEOF(err)}
	}
	if err := s.lookAt(n, names, bytes.NewReader(data)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keptBytes += n.Size; s.keptBytes > maxKeptTotal {
		return &entryError{names[0], errKeptTooMuch}
	}
	s.kept[n] = data
	return nil
}

// lookAt has a content looked at, which may read less than all of it.
func (s *scanner) lookAt(n *Node, names []string, content io.Reader) error {
	var look func(io.Reader) (any, error)
	for i := 0; s.look != nil && look == nil && i < len(names); i++ {
		look = s.look(names[i], n.Mode)
	}
	if look == nil {
		return nil
	}
	found, err := look(content)
	if err != nil {
		return &streamError{path: names[0], err: noEOF(err)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found[n] = found
	return nil
}

// meter counts the bytes that were read.
type meter struct {
	r io.Reader
	n int64
}

func (c *meter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// passOver is a scanner that reads only the wanted contents.
type passOver struct{ *scanner }

// store implements storer for contents that can be passed over.
func (s passOver) store(node *Node, name string, content io.Reader) error {
	names := []string{name}
	if s.keeps(node, names) {
		if err := s.keep(node, names, content); err != nil {
			return err
		}
	} else if node.IsRegular() {
		if err := s.lookAt(node, names, content); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed = append(s.passed, node)
	return nil
}
