package ostree

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
)

// maxFsckErrors bounds how many broken objects Fsck names.
const maxFsckErrors = 100

// Fsck reads everything that any ref reaches and compares it with its checksum and the format's
// rules. Parents of commits are followed as far as they are there. It returns nil when all is well;
// otherwise the errors are joined, each an *ObjectError (at most 100 of them) or about a ref. It
// ends early when ctx does.
func (r *Repo) Fsck(ctx context.Context) error {
	if err := r.gate.enter(); err != nil {
		return err
	}
	defer r.gate.leave()
	f := &fsck{repo: r, ctx: ctx, seen: map[objectKey]struct{}{}}
	f.files.SetLimit(runtime.GOMAXPROCS(0))
	f.refs()
	_ = f.files.Wait() // the functions keep their errors in f
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.Join(f.errs...)
}

type fsck struct {
	repo  *Repo
	ctx   context.Context
	seen  map[objectKey]struct{} // of the walking goroutine alone
	files errgroup.Group

	mu   sync.Mutex
	errs []error
}

// report keeps an error and lets the check go on.
func (f *fsck) report(err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) < maxFsckErrors {
		f.errs = append(f.errs, err)
	}
}

func (f *fsck) refs() {
	for _, base := range []string{"refs/heads", "refs/remotes", "refs/mirrors"} {
		refs, err := f.repo.refs.list(base)
		f.report(err)
		for _, ref := range refs {
			if err := f.commits(ref.Commit); err != nil {
				f.report(fmt.Errorf("%s/%s: %w", base, ref.Name, err))
			}
		}
	}
}

// first reports whether the object is met for the first time, and the check is still wanted.
func (f *fsck) first(k objectKey) bool {
	if _, ok := f.seen[k]; ok || f.ctx.Err() != nil {
		return false
	}
	f.seen[k] = struct{}{}
	return true
}

// commits checks a commit and its ancestors. The error is about the first one.
func (f *fsck) commits(sum Checksum) error {
	c, err := checked(f, TypeCommit, sum, DecodeCommit)
	for first := true; ; first = false {
		if err != nil {
			if first {
				return err
			}
			if !errors.Is(err, ErrNotFound) {
				f.report(err)
			}
			return nil
		}
		f.tree(c.Tree)
		f.meta(c.Meta)
		k := objectKey{c.Parent, TypeCommit}
		if c.Parent.IsZero() || !f.first(k) {
			return nil
		}
		c, err = checked(f, TypeCommit, c.Parent, DecodeCommit)
	}
}

func (f *fsck) tree(sum Checksum) {
	if !f.first(objectKey{sum, TypeDirTree}) {
		return
	}
	t, err := checked(f, TypeDirTree, sum, DecodeDirTree)
	if err != nil {
		f.report(err)
		return
	}
	for _, e := range t.Files {
		f.file(e.Checksum)
	}
	for _, d := range t.Dirs {
		f.meta(d.Meta)
		f.tree(d.Tree)
	}
}

func (f *fsck) meta(sum Checksum) {
	if f.first(objectKey{sum, TypeDirMeta}) {
		_, err := checked(f, TypeDirMeta, sum, DecodeDirMeta)
		f.report(err)
	}
}

// checked loads a metadata object, compares its checksum and decodes it.
func checked[T any](f *fsck, t ObjectType, sum Checksum, decode func([]byte) (T, error)) (T, error) {
	return decoded(f.repo, t, sum, func(data []byte) (T, error) {
		if got := Checksum(sha256.Sum256(data)); got != sum {
			var none T
			return none, mismatch(got)
		}
		return decode(data)
	})
}

func mismatch(got Checksum) error {
	return formatErrorf("the content has checksum %s", got)
}

// file checks one file object beside the walk.
func (f *fsck) file(sum Checksum) {
	if !f.first(objectKey{sum, TypeFile}) {
		return
	}
	f.files.Go(func() error {
		f.report(f.repo.objects.verifyFile(f.ctx, sum))
		return nil
	})
}

// verifyFile hashes a file object anew.
func (o *objects) verifyFile(ctx context.Context, sum Checksum) error {
	k := objectKey{sum, TypeFile}
	return k.wrap(o.readContent(k, func(h FileHeader, _ int64, content io.Reader) error {
		h, err := h.normalize()
		if err != nil {
			return err
		}
		got, err := hashFile(ctx, &h, content)
		if err == nil && got != sum {
			err = mismatch(got)
		}
		return err
	}))
}

// hashFile returns the checksum of a file object; content is nil for a symbolic link.
func hashFile(ctx context.Context, h *FileHeader, content io.Reader) (sum Checksum, err error) {
	digest := sha256.New()
	digest.Write(appendHeader(nil, h))
	if content != nil {
		err = hashStream(ctx, digest, content)
	}
	digest.Sum(sum[:0])
	return sum, err
}

func hashStream(ctx context.Context, digest hash.Hash, content io.Reader) error {
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := content.Read(buf)
		digest.Write(buf[:n])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
	}
}
