package ostree

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// Ref is a name for a commit. A ref fetched from a remote is named "remote:name".
type Ref struct {
	Name   string
	Commit Checksum
}

// maxRefFile bounds a ref's file, in bytes: 64 digits and a newline, with room for spaces that an
// editor may have added.
const maxRefFile = 4096

// checkRefName applies the format's rule to each component: a letter, digit or underscore, then
// also dots and dashes. A name that looks like a checksum is refused.
func checkRefName(name string) error {
	if isHexName(name) {
		return fmt.Errorf("ref name %q looks like a checksum", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if !isRefComponent(part) {
			return fmt.Errorf("ref name %q is not allowed: components start with a letter, digit or underscore and go on with these, dots and dashes", name)
		}
	}
	return nil
}

func isRefComponent(s string) bool {
	for i, c := range s {
		word := c == '_' || unicode.IsLetter(c) || unicode.IsNumber(c)
		if c == unicode.ReplacementChar || !word && (i == 0 || c != '-' && c != '.') {
			return false
		}
	}
	return s != ""
}

// refFile returns where a ref stands beneath the repository: the folder that an alias may not
// leave, and the path in it.
func refFile(name string) (base, path string, err error) {
	base, path = "refs/heads", name
	if remote, rest, ok := strings.Cut(name, ":"); ok {
		if !isRefComponent(remote) {
			return "", "", fmt.Errorf("remote name %q of ref %q is not allowed", remote, name)
		}
		base, path = "refs/remotes", remote+"/"+rest
		return base, path, checkRefName(rest)
	}
	return base, path, checkRefName(path)
}

// SetRef makes name point to a commit, whether it existed or not. The commit must be in the
// repository. A name that is a folder of other refs is refused.
func (r *Repo) SetRef(name string, c Checksum) error {
	if err := r.gate.enter(); err != nil {
		return err
	}
	defer r.gate.leave()
	base, path, err := refFile(name)
	if err != nil {
		return err
	}
	if err := r.objects.require(objectKey{c, TypeCommit}); err != nil {
		return fmt.Errorf("setting ref %q: %w", name, err)
	}
	if err := r.refs.write(base, path, c); err != nil {
		return fmt.Errorf("setting ref %q: %w", name, err)
	}
	return r.folders.touch()
}

// refs is the repository's refs, each a file beneath one of the folders in refs.
type refs struct{ folders *folders }

// write replaces the ref's file by one made aside, so that a reader sees the old commit or the
// new one.
func (r *refs) write(base, path string, c Checksum) error {
	dir, err := r.open(base)
	if err != nil {
		return err
	}
	defer dir.close()
	for i, ch := range path {
		if ch != '/' {
			continue
		}
		if _, err := makeDir(dir.fd, path[:i], dir.name+"/"+path[:i], 0o755); err != nil {
			return err
		}
	}
	tmp := r.folders.tmpName()
	if err := r.folders.writeTemp(tmp, []byte(c.String()+"\n")); err != nil {
		return err
	}
	if err := unix.Renameat(r.folders.tmp.fd, tmp, dir.fd, path); err != nil {
		err = &os.PathError{Op: "rename", Path: dir.name + "/" + path, Err: err}
		return errors.Join(err, unix.Unlinkat(r.folders.tmp.fd, tmp, 0))
	}
	return nil
}

func (r *refs) open(base string) (handle, error) {
	return openDirAt(r.folders.ledger, repoPath+"/"+base, r.folders.repo.fd, base)
}

// ResolveRef returns the commit that a ref points to. A missing ref is ErrNotFound.
func (r *Repo) ResolveRef(name string) (Checksum, error) {
	if err := r.gate.enter(); err != nil {
		return Checksum{}, err
	}
	defer r.gate.leave()
	base, path, err := refFile(name)
	if err != nil {
		return Checksum{}, err
	}
	dir, err := r.refs.open(base)
	if err != nil {
		return Checksum{}, err
	}
	defer dir.close()
	c, err := r.refs.read(dir, path)
	if err != nil {
		err = fmt.Errorf("resolving ref %q: %w", name, err)
	}
	return c, err
}

// read reads one ref's file. Links between refs are followed as long as they stay in the refs'
// folder.
func (r *refs) read(dir handle, path string) (Checksum, error) {
	full := dir.name + "/" + path
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(dir.fd, path, &how)
	if err != nil {
		return Checksum{}, notFound(&os.PathError{Op: "open", Path: full, Err: err})
	}
	f := handle{fd: fd, name: full, released: r.folders.ledger.Opened("fd", full)}
	defer f.close()
	data, err := readLimited(f, maxRefFile)
	if errors.Is(err, unix.EISDIR) {
		return Checksum{}, ErrNotFound
	}
	if err != nil {
		return Checksum{}, err
	}
	c, err := ParseChecksum(string(bytes.TrimSpace(data)))
	if err != nil {
		return Checksum{}, formatErrorf("%s: %v", full, err)
	}
	return c, nil
}

// ListRefs returns all local refs and those of remotes, sorted by name.
func (r *Repo) ListRefs() ([]Ref, error) {
	if err := r.gate.enter(); err != nil {
		return nil, err
	}
	defer r.gate.leave()
	refs, err := r.refs.list("refs/heads")
	if err != nil {
		return nil, err
	}
	remotes, err := r.refs.list("refs/remotes")
	if err != nil {
		return nil, err
	}
	for _, ref := range remotes {
		if remote, name, ok := strings.Cut(ref.Name, "/"); ok {
			refs = append(refs, Ref{Name: remote + ":" + name, Commit: ref.Commit})
		}
	}
	sort.Slice(refs, func(i, j int) bool { return refs[i].Name < refs[j].Name })
	return refs, nil
}

// list returns the refs beneath one folder, which may be missing, named by their path in it.
func (r *refs) list(base string) ([]Ref, error) {
	dir, err := r.open(base)
	if isNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.close()
	var refs []Ref
	err = r.walk(dir, "", func(path string) error {
		c, err := r.read(dir, path)
		if err == nil {
			refs = append(refs, Ref{Name: path, Commit: c})
		}
		return err
	})
	return refs, err
}

// walk calls fn for every file beneath path in dir. Names that no ref may bear, such as another
// program's temporary files, are passed over.
func (r *refs) walk(dir handle, path string, fn func(string) error) error {
	names, err := r.names(dir, path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !isRefComponent(name) {
			continue
		}
		sub := strings.TrimPrefix(path+"/"+name, "/")
		var st unix.Stat_t
		if err := unix.Fstatat(dir.fd, sub, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "stat", Path: dir.name + "/" + sub, Err: err}
		}
		visit := fn
		if st.Mode&modeTypeMask == modeDirectory {
			visit = func(sub string) error { return r.walk(dir, sub, fn) }
		}
		if err := visit(sub); err != nil {
			return err
		}
	}
	return nil
}

// names lists a folder beneath dir.
func (r *refs) names(dir handle, path string) ([]string, error) {
	h, err := openDirAt(r.folders.ledger, dir.name+"/"+path, dir.fd, "./"+path)
	if err != nil {
		return nil, err
	}
	defer h.close()
	var names []string
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.ReadDirent(h.fd, buf)
		if err != nil {
			return nil, &os.PathError{Op: "readdir", Path: h.name, Err: err}
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// DeleteRef removes a ref; its commit stays. A missing ref is ErrNotFound.
func (r *Repo) DeleteRef(name string) error {
	if err := r.gate.enter(); err != nil {
		return err
	}
	defer r.gate.leave()
	base, path, err := refFile(name)
	if err != nil {
		return err
	}
	if err := unix.Unlinkat(r.folders.repo.fd, base+"/"+path, 0); err != nil {
		return fmt.Errorf("deleting ref %q: %w", name, notFound(err))
	}
	return r.folders.touch()
}
