package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

const (
	smallFile   = 256 << 10 // files up to this size are stored by the workers
	maxInFlight = 32 << 20  // bytes of small files that wait for a worker, all layers together
	queueLength = 512
)

// bufferSizes are the kinds of buffers for small files; most files of an OS fit the first.
var bufferSizes = [...]int{4 << 10, 32 << 10, smallFile}

// storePool hands small files and symbolic links to workers, so that a layer's stream need not wait
// for the sink; large files are stored as they stream.
type storePool struct {
	ctx     context.Context
	sink    Sink
	jobs    chan storeJob
	room    *semaphore.Weighted
	buffers [len(bufferSizes)]sync.Pool

	mu       sync.Mutex // of the names of nodes
	ownNames bool       // the sink's are not those of objects
}

// storeJob is a node whose content is in memory.
type storeJob struct {
	node *Node
	path string
	data []byte  // the file's bytes
	buf  *[]byte // that holds them
	kind int     // index of the buffer's size; -1: no buffer
}

// newStorePool starts workers in g. They end when jobs is closed or ctx is done.
func newStorePool(ctx context.Context, g *errgroup.Group, sink Sink, workers int) *storePool {
	p := &storePool{
		ctx: ctx, sink: sink,
		jobs: make(chan storeJob, queueLength),
		room: semaphore.NewWeighted(maxInFlight),
	}
	for i, size := range bufferSizes {
		p.buffers[i].New = func() any { b := make([]byte, size); return &b }
	}
	for range workers {
		g.Go(p.work)
	}
	return p
}

func (p *storePool) work() error {
	for {
		select {
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		case j, ok := <-p.jobs:
			if !ok {
				return nil
			}
			if err := p.storeSmall(j); err != nil {
				return err
			}
		}
	}
}

func (p *storePool) storeSmall(j storeJob) error {
	var content io.Reader
	if j.node.IsRegular() {
		content = bytes.NewReader(j.data)
	}
	id, err := p.sink.Store(p.ctx, j.node.Meta, j.node.Target, j.node.Size, content)
	p.free(j)
	if err != nil {
		return &sinkError{path: j.path, err: err}
	}
	return p.named(j.node, j.path, id)
}

// named gives a node the name of its content. An object of an ostree commit has it already.
func (p *storePool) named(n *Node, path string, id ContentID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n.Content != (ContentID{}) && n.Content != id && !p.ownNames {
		return &entryError{path, &checksumError{id}}
	}
	n.Content = id
	return nil
}

// sinkError is an error of the sink: not the source's fault.
type sinkError struct {
	path string
	err  error
}

func (e *sinkError) Error() string { return fmt.Sprintf("storing %s: %v", quoteShort(e.path), e.err) }
func (e *sinkError) Unwrap() error { return e.err }

// store takes a node's content from its layer's stream. The node's Content is set some time before
// the pool's group ends.
func (p *storePool) store(node *Node, path string, content io.Reader) error {
	if node.IsRegular() && node.Size > smallFile {
		return p.storeLarge(node, path, content)
	}
	j := storeJob{node: node, path: path, kind: -1}
	if node.Size > 0 {
		if err := p.load(&j, content); err != nil {
			return err
		}
	}
	select {
	case p.jobs <- j:
		return nil
	case <-p.ctx.Done():
		p.free(j)
		return context.Cause(p.ctx)
	}
}

// load reads a small file into a buffer; it waits until there is room for one.
func (p *storePool) load(j *storeJob, content io.Reader) error {
	for j.kind = 0; bufferSizes[j.kind] < int(j.node.Size); j.kind++ {
	}
	if err := p.room.Acquire(p.ctx, int64(bufferSizes[j.kind])); err != nil {
		j.kind = -1
		return context.Cause(p.ctx)
	}
	j.buf = p.buffers[j.kind].Get().(*[]byte)
	j.data = (*j.buf)[:j.node.Size]
	if _, err := io.ReadFull(content, j.data); err != nil {
		p.free(*j)
		return &streamError{path: j.path, err: noEOF(err)}
	}
	return nil
}

func (p *storePool) free(j storeJob) {
	if j.kind < 0 {
		return
	}
	p.buffers[j.kind].Put(j.buf)
	p.room.Release(int64(bufferSizes[j.kind]))
}

func (p *storePool) storeLarge(node *Node, path string, content io.Reader) error {
	src := &watchedReader{src: content, left: node.Size}
	id, err := p.sink.Store(p.ctx, node.Meta, "", node.Size, src)
	if src.err != nil {
		return &streamError{path: path, err: src.err}
	}
	if err != nil {
		return &sinkError{path: path, err: err}
	}
	return p.named(node, path, id)
}

// streamError is a fault of the source met while a file's content was read.
type streamError struct {
	path string
	err  error
}

func (e *streamError) Error() string {
	return fmt.Sprintf("reading the content of %s: %v", quoteShort(e.path), e.err)
}
func (e *streamError) Unwrap() error { return e.err }

// watchedReader yields exactly left bytes, and remembers the source's error, to distinguish it from
// the sink's.
type watchedReader struct {
	src  io.Reader
	left int64
	err  error
}

func (w *watchedReader) Read(b []byte) (int, error) {
	if w.left == 0 {
		return 0, io.EOF
	}
	if int64(len(b)) > w.left {
		b = b[:w.left]
	}
	n, err := w.src.Read(b)
	w.left -= int64(n)
	if err == io.EOF && w.left == 0 {
		return n, nil
	}
	if err != nil {
		w.err = noEOF(err)
		return n, w.err
	}
	return n, nil
}

// noEOF turns an early end into an error that says so.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
