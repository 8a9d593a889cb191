package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"
)

const (
	chunkSize   = 256 << 10 // large enough that handing a chunk over costs nothing beside hashing it
	chunksAhead = 3         // per stage; two stages for each layer in flight
)

// errStopped is the error of reading from a stopped pump.
var errStopped = errors.New("stopped")

// chunk is a buffer on its way to a pump's reader and to its hash.
type chunk struct {
	data  []byte
	users atomic.Int32
	home  *sync.Pool
}

func (c *chunk) release() {
	if c.users.Add(-1) == 0 {
		c.home.Put(c)
	}
}

// newChunkPool makes the buffers that the pumps of one import share.
func newChunkPool() *sync.Pool {
	p := &sync.Pool{}
	p.New = func() any { return &chunk{data: make([]byte, chunkSize), home: p} }
	return p
}

// pump reads a stream ahead in one goroutine and hashes it in another, so that reading, hashing and
// whatever its reader does overlap.
type pump struct {
	ctx    context.Context
	data   chan *chunk
	hashes chan *chunk // nil where nothing is hashed
	sum    hash.Hash
	total  int64
	err    error // of the source; set before data is closed
	halt   chan struct{}
	once   sync.Once
	done   sync.WaitGroup

	current *chunk
	rest    []byte
}

// bounds says how many bytes a stream may have.
type bounds struct {
	least, most int64
	tooLong     error
}

// startPump starts reading src within the bounds. seen is called with the count of bytes as they
// arrive. The caller stops the pump, then waits for it.
func startPump(ctx context.Context, src io.Reader, pool *sync.Pool, b bounds, seen func(int64)) *pump {
	p := newPump(ctx)
	p.hashes, p.sum = make(chan *chunk, chunksAhead), sha256.New()
	p.done.Go(p.hashAll)
	p.done.Go(func() { p.readAll(src, pool, b, seen) })
	return p
}

// startPlainPump is startPump for a stream whose digest nobody asks for.
func startPlainPump(ctx context.Context, src io.Reader, pool *sync.Pool, b bounds) *pump {
	p := newPump(ctx)
	p.done.Go(func() { p.readAll(src, pool, b, func(int64) {}) })
	return p
}

func newPump(ctx context.Context) *pump {
	return &pump{ctx: ctx, data: make(chan *chunk, chunksAhead), halt: make(chan struct{})}
}

func (p *pump) readAll(src io.Reader, pool *sync.Pool, b bounds, seen func(int64)) {
	defer close(p.data)
	if p.hashes != nil {
		defer close(p.hashes)
	}
	for {
		c := pool.Get().(*chunk)
		c.data = c.data[:cap(c.data)]
		n, err := fill(src, c.data)
		p.total += int64(n)
		seen(int64(n))
		if p.total > b.most {
			p.err = b.tooLong
			return
		}
		c.data = c.data[:n]
		if n > 0 && !p.pass(c) {
			p.err = errStopped
			return
		}
		if err != nil {
			p.err = b.end(p.total, err)
			return
		}
	}
}

// end judges the error that ended a stream after total bytes; a good end is nil.
func (b bounds) end(total int64, err error) error {
	if err != io.EOF {
		return err
	}
	if total < b.least {
		return fmt.Errorf("the blob is truncated: it has %d bytes, its manifest says %d", total, b.least)
	}
	return nil
}

// fill reads until b is full or the source ends or fails. Unlike io.ReadFull it keeps a source's
// own io.ErrUnexpectedEOF apart from a plain end.
func fill(src io.Reader, b []byte) (n int, err error) {
	for idle := 0; n < len(b) && err == nil; {
		var m int
		m, err = src.Read(b[n:])
		n += m
		if m > 0 || err != nil {
			idle = 0
		} else if idle++; idle > 100 {
			return n, io.ErrNoProgress
		}
	}
	return n, err
}

// pass hands a chunk to the hash and to the reader; false means stopped.
func (p *pump) pass(c *chunk) bool {
	if p.hashes == nil {
		c.users.Store(1)
		return p.hand(c, p.data)
	}
	c.users.Store(2)
	return p.hand(c, p.hashes) && p.hand(c, p.data)
}

func (p *pump) hand(c *chunk, to chan<- *chunk) bool {
	select {
	case to <- c:
		return true
	case <-p.halt:
		return false
	case <-p.ctx.Done():
		return false
	}
}

func (p *pump) hashAll() {
	for c := range p.hashes {
		p.sum.Write(c.data)
		c.release()
	}
}

// Read implements io.Reader for the one goroutine that consumes the stream.
func (p *pump) Read(b []byte) (int, error) {
	if _, err := p.peek(); err != nil {
		return 0, err
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// peek returns the next bytes and leaves them there: as many as one chunk has, which is all of a
// short stream.
func (p *pump) peek() ([]byte, error) {
	for len(p.rest) == 0 {
		if err := p.next(); err != nil {
			return nil, err
		}
	}
	return p.rest, nil
}

func (p *pump) next() error {
	if p.current != nil {
		p.current.release()
		p.current = nil
	}
	select {
	case <-p.halt:
		return errStopped
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	case c, ok := <-p.data:
		if ok {
			p.current, p.rest = c, c.data
			return nil
		}
		if p.err != nil {
			return p.err
		}
		return io.EOF
	}
}

// finish reads to the end and returns the digest of all that was read; empty where nothing was
// hashed.
func (p *pump) finish() (digest string, err error) {
	p.rest = nil
	for err == nil {
		err = p.next()
	}
	p.rest = nil
	if err != io.EOF {
		return "", err
	}
	p.done.Wait()
	if p.sum == nil {
		return "", nil
	}
	return "sha256:" + hex.EncodeToString(p.sum.Sum(nil)), nil
}

// stop makes the pump's goroutines end; wait waits for them. A reader that is blocked in its source
// ends when that is closed, so close it between the two.
func (p *pump) stop() { p.once.Do(func() { close(p.halt) }) }
func (p *pump) wait() { p.done.Wait() }

// damagedError says that bytes of the source are not those that the manifest names.
type damagedError struct{ what, want, got string }

func (e *damagedError) Error() string {
	return fmt.Sprintf("%s is %s, expected %s: the source is damaged or was changed", e.what, e.got, e.want)
}

func mismatch(what, want, got string) error { return &damagedError{what, want, got} }
