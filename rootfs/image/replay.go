package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math"
	"strings"
)

// A scan parses every layer, and the import that follows it would make the same trees: instead it
// takes them, and stores the contents, whose places in the layers the scan has written down.

// scanned is the result of a scan, which an import of the same image takes.
type scanned struct {
	limits [3]int64 // entries, bytes of a layer, and of the trees
	tree   *Tree
	layers []recordedLayer // empty where an earlier one is the same blob
}

// recordedLayer is a layer that was scanned.
type recordedLayer struct {
	*recording
	verified bool // the blob, and the tar that it holds, have their digests
}

func (s *scanned) treeUnless(err error) (*Tree, error) {
	if err != nil {
		return nil, err
	}
	return s.tree, nil
}

// layerReplay stores the contents that a scan has found, in the scan's trees.
type layerReplay struct {
	before  *scanned
	out     storer
	changed []bool // since the scan
}

func newReplay(before *scanned, out storer) *layerReplay {
	return &layerReplay{before, out, make([]bool, len(before.layers))}
}

func (t *layerReplay) unpack(i int, plain io.Reader) (err error) {
	t.changed[i], err = t.before.layers[i].replay(plain, t.out)
	return err
}

// hashes reports whether the scan did not hash the tar: equal blobs hold equal tars.
func (t *layerReplay) hashes(i int) bool { return !t.before.layers[i].verified }

// verified refuses a layer that is right now, and was not when it was scanned.
func (t *layerReplay) verified(i int) error {
	if t.changed[i] {
		return errOtherHeaders
	}
	return nil
}

// recording says where the contents of a layer are. A nil one records nothing.
type recording struct {
	contents []recorded
	end      int64  // of the parsed part, in the uncompressed layer
	between  uint64 // hash of all that is in no content
	seed     maphash.Seed
	sparse   bool  // a content is not as it will be stored
	tape     *tape // while it is made
}

func newRecording() *recording { return &recording{seed: maphash.MakeSeed()} }

// recorded is one content, of a file or of an entry that is left out.
type recorded struct {
	node     *Node // nil: left out
	name     string
	at, size int64
}

// limits are the options with which an import must parse the layers anew.
func (o *ImportOptions) limits() [3]int64 { return [3]int64{o.MaxEntries, o.MaxLayerSize, o.MaxTree} }

// repeats says whether an import with these options would parse the same again.
func (s *scanned) repeats(o ImportOptions) bool {
	if s == nil || s.limits != o.limits() {
		return false
	}
	for _, l := range s.layers {
		if l.recording != nil && l.sparse {
			return false
		}
	}
	return true
}

// tape is an uncompressed layer that is being read. It hashes the bytes between the contents, as
// far as it is read.
type tape struct {
	src   io.Reader
	at    int64 // from the beginning
	until int64 // end of the content at or before which it is
	hash  maphash.Hash
}

func newTape(src io.Reader, seed maphash.Seed) *tape {
	t := &tape{src: src}
	t.hash.SetSeed(seed)
	return t
}

// Read implements io.Reader.
func (t *tape) Read(b []byte) (int, error) {
	n, err := t.src.Read(b)
	inside := min(max(t.until-t.at, 0), int64(n))
	t.hash.Write(b[inside:n])
	t.at += int64(n)
	return n, err
}

// Seek implements io.Seeker as far as the source does, and within a content.
func (t *tape) Seek(offset int64, whence int) (int64, error) {
	seeker, ok := t.src.(io.Seeker)
	if !ok || whence != io.SeekCurrent || offset < 0 || offset > max(0, t.until-t.at) {
		return 0, fmt.Errorf("passing over a content: %w", errors.ErrUnsupported)
	}
	at, err := seeker.Seek(offset, whence)
	if err == nil {
		t.at += offset
	}
	return at, err
}

// begin returns the reader to use in the place of a layer's stream.
func (r *recording) begin(src io.Reader) io.Reader {
	if r == nil {
		return src
	}
	r.tape = newTape(src, r.seed)
	return r.tape
}

// content writes down that the content of an entry begins here.
func (r *recording) content(h *tar.Header) {
	switch {
	case r == nil || r.sparse: // nothing is of use, or not any more
	case isSparse(h):
		r.sparse, r.contents, r.tape.until = true, nil, math.MaxInt64
	case h.Size > 0 && hasContent(h.Typeflag):
		r.contents = append(r.contents, recorded{name: h.Name, at: r.tape.at, size: h.Size})
		r.tape.until = r.tape.at + h.Size
	}
}

// hasContent says which types of entries are followed by as many bytes as they say, as package tar
// reads them.
func hasContent(flag byte) bool {
	switch flag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo, tar.TypeXGlobalHeader:
		return false
	}
	return true
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// of says which node the entry has whose content was written down last, or one without content.
func (r *recording) of(node *Node, h *tar.Header) {
	switch {
	case r == nil || r.sparse:
	case node.IsRegular() && node.Size > 0:
		r.contents[len(r.contents)-1].node = node
	default:
		r.contents = append(r.contents, recorded{node: node, name: h.Name, at: r.tape.at})
	}
}

func (r *recording) finish() {
	if r != nil {
		r.end, r.between, r.tape = r.tape.at, r.tape.hash.Sum64(), nil
	}
}

var errOtherHeaders = errors.New("the layer's headers are not those of the scan before: the source was changed meanwhile")

// replay takes the contents that were written down to their nodes. changed says that the bytes
// between them have changed.
func (r *recording) replay(src io.Reader, out storer) (changed bool, err error) {
	t := newTape(src, r.seed)
	skipped := make([]byte, 4<<10)
	for _, c := range r.contents {
		if err := t.advance(c.at, skipped); err != nil {
			return false, err
		}
		t.until = c.at + c.size
		if c.node == nil {
			continue
		}
		if err := out.store(c.node, c.name, io.LimitReader(t, c.size)); err != nil {
			return false, err
		}
	}
	err = t.advance(r.end, skipped)
	return t.hash.Sum64() != r.between, err
}

// advance reads on to a position.
func (t *tape) advance(to int64, buf []byte) error {
	for t.at < to {
		if _, err := io.ReadFull(t, buf[:min(to-t.at, int64(len(buf)))]); err != nil {
			return fmt.Errorf("reading the tar: %w", noEOF(err))
		}
	}
	return nil
}
