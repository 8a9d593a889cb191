package tests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Rules say how a tree may differ from its oracle.
type Rules struct {
	// Moved maps a top-level name of the oracle to where it is looked for.
	Moved map[string]string
	// Emptied are top-level directories whose content is dropped; the directory itself must be
	// there.
	Emptied []string
	// Ignored are paths of the compared tree that need no counterpart, with their subtrees.
	Ignored []string
	// LooseLinks gives up on hard links: /etc is a copy, not a link.
	LooseLinks bool
}

// DeploymentRules are those for a deployment's own tree: /etc of the image is /usr/etc, the running
// system's directories are empty, and /etc, the machine's copy, is compared by itself.
func DeploymentRules() Rules {
	return Rules{
		Moved:   map[string]string{"etc": "usr/etc"},
		Emptied: []string{"dev", "proc", "run", "sys", "tmp"},
		Ignored: []string{"etc", ".ostree.cfs"},
	}
}

// CompareTrees fails the test for every difference between a deployment and the tree an independent
// tool made of the same image: names, types, modes, owners, contents, link targets, xattrs, hard
// links.
func CompareTrees(t testing.TB, deployment, oracle string, r Rules) {
	t.Helper()
	diffs, err := compareTrees(deployment, oracle, r)
	if err != nil {
		t.Fatalf("comparing %s with %s: %v", deployment, oracle, err)
	}
	for i, d := range diffs {
		if i == 20 {
			t.Errorf("and %d more differences", len(diffs)-i)
			return
		}
		t.Error(d)
	}
}

// entry holds the compared attributes of a file; the content is compared by itself.
type entry struct {
	full   string
	mode   uint32 // all of st_mode
	uid    uint32
	gid    uint32
	size   int64
	target string
	xattrs map[string]string
	inode  uint64
	links  uint64
}

func compareTrees(tree, oracle string, r Rules) ([]string, error) {
	want, err := readTree(oracle, r.rename)
	if err != nil {
		return nil, err
	}
	got, err := readTree(tree, r.keep)
	if err != nil {
		return nil, err
	}
	if len(want) < 2 {
		return nil, fmt.Errorf("the oracle %s is empty", oracle)
	}
	return compareEntries(got, want, r)
}

func compareEntries(got, want map[string]entry, r Rules) ([]string, error) {
	var diffs []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		g, ok := got[name]
		if !ok {
			diffs = append(diffs, name+": missing")
			continue
		}
		d, err := g.differs(want[name])
		if err != nil {
			return nil, err
		}
		if d != "" {
			diffs = append(diffs, name+": "+d)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			diffs = append(diffs, name+": not in the image")
		}
	}
	if !r.LooseLinks {
		diffs = append(diffs, linkDiffs(got, want)...)
	}
	return diffs, nil
}

// rename gives the place of an oracle's path, or "" for one that is dropped.
func (r Rules) rename(name string) string {
	top, rest, below := strings.Cut(name, "/")
	if below && slices.Contains(r.Emptied, top) {
		return ""
	}
	if to, ok := r.Moved[top]; ok {
		return path.Join(to, rest)
	}
	return name
}

func (r Rules) keep(name string) string {
	for _, i := range r.Ignored {
		if name == i || strings.HasPrefix(name, i+"/") {
			return ""
		}
	}
	return name
}

// readTree reads everything below root, named by rename(path).
func readTree(root string, rename func(string) string) (map[string]entry, error) {
	tree := map[string]entry{}
	err := filepath.WalkDir(root, func(full string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, full)
		if err != nil {
			return err
		}
		if name = rename(name); name == "" {
			return nil
		}
		tree[name], err = readEntry(full)
		return err
	})
	return tree, err
}

func readEntry(full string) (entry, error) {
	var st syscall.Stat_t
	if err := syscall.Lstat(full, &st); err != nil {
		return entry{}, &fs.PathError{Op: "lstat", Path: full, Err: err}
	}
	e := entry{full: full, mode: st.Mode, uid: st.Uid, gid: st.Gid, inode: st.Ino, links: uint64(st.Nlink)}
	var err error
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFLNK:
		e.target, err = os.Readlink(full)
	case syscall.S_IFREG:
		e.size = st.Size
	}
	if err == nil {
		e.xattrs, err = readXattrs(full)
	}
	return e, err
}

func readXattrs(full string) (map[string]string, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(full, names)
	if err != nil {
		return nil, &fs.PathError{Op: "llistxattr", Path: full, Err: err}
	}
	found := map[string]string{}
	for name := range strings.SplitSeq(strings.Trim(string(names[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.SGI_ACL_") { // XFS's second name for system.posix_acl_*
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(full, name, value)
		if err != nil {
			return nil, &fs.PathError{Op: "lgetxattr " + name, Path: full, Err: err}
		}
		found[name] = string(value[:n])
	}
	return found, nil
}

// differs says in which way g is not w; "" is in none.
func (g entry) differs(w entry) (string, error) {
	switch {
	case g.mode != w.mode:
		return fmt.Sprintf("mode %o, want %o", g.mode, w.mode), nil
	case g.uid != w.uid || g.gid != w.gid:
		return fmt.Sprintf("owner %d:%d, want %d:%d", g.uid, g.gid, w.uid, w.gid), nil
	case g.target != w.target:
		return fmt.Sprintf("link to %q, want %q", g.target, w.target), nil
	case g.size != w.size:
		return fmt.Sprintf("%d bytes, want %d", g.size, w.size), nil
	case !maps.Equal(g.xattrs, w.xattrs):
		return fmt.Sprintf("xattrs %q, want %q", g.xattrs, w.xattrs), nil
	case g.mode&syscall.S_IFMT != syscall.S_IFREG:
		return "", nil
	}
	same, err := sameContent(g.full, w.full)
	if err == nil && !same {
		return "the content differs", nil
	}
	return "", err
}

func sameContent(a, b string) (same bool, err error) {
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	x, y := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, errA := io.ReadFull(fa, x)
		m, errB := io.ReadFull(fb, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if errA != nil || errB != nil { // both at the end, as the pieces are equal
			return endOfFile(errA) && endOfFile(errB), nil
		}
	}
}

func endOfFile(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// linkDiffs wants names that are one file in the oracle to be one in the tree. More may be: equal
// files share an object. Empty files need not: ostree checks them out one by one.
func linkDiffs(got, want map[string]entry) []string {
	first := map[uint64]string{}
	var diffs []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		w := want[name]
		if w.mode&syscall.S_IFMT != syscall.S_IFREG || w.links < 2 || w.size == 0 {
			continue
		}
		other, seen := first[w.inode]
		if !seen {
			first[w.inode] = name
			continue
		}
		if got[name].inode != got[other].inode {
			diffs = append(diffs, name+": not a hard link to "+other)
		}
	}
	return diffs
}
