package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"installer/rootfs/beneath"
	"installer/rootfs/image"
)

// Labelling says which files beside those of commits get an SELinux label, and by which policy.
type Labelling struct {
	Of image.Labeller
	// All has every file on the physical root labelled. Else those are left that bootc and libostree
	// leave without a label of their own where the kernel has SELinux off and the root that they run
	// in has no policy: /etc keeps the labels of usr/etc, which it was copied from, and boot, the
	// repository and its like have none.
	All bool
}

// Places on the physical root that are labelled as if they were elsewhere, and marks of others.
const (
	boundStorage  = "ostree/bootc/storage"
	asStorage     = "/var/lib/containers/storage" // where a system has container images
	storageStamp  = ".bootc_labeled"              // by which bootc knows a storage that is labelled
	varStamp      = ".ostree-selabeled"           // by which libostree knows a /var that is labelled
	asRepository  = "/usr"                        // the repository and the files beside it
	objectsDir    = "ostree/repo/objects"
	contentSuffix = ".file"
)

// Label labels the files that the deployment d consists of beside those of its commit, and returns
// how many. It comes after everything else was written on the physical root, which is not kept.
func Label(ctx context.Context, root *os.File, d *Deployment, o Labelling, l Ledger) (n int, err error) {
	top := beneath.Of(root, l)
	w := &labelWalk{ctx: ctx, of: o.Of}
	stateroot := path.Join("ostree/deploy", d.Stateroot)
	if o.All {
		err = w.all(top, d, stateroot)
	} else {
		err = w.least(top, d, stateroot)
	}
	if err != nil {
		return w.n, fmt.Errorf("labelling the system's files: %w", err)
	}
	return w.n, nil
}

// all labels every file on the physical root but those of commits.
func (w *labelWalk) all(top *beneath.Dir, d *Deployment, stateroot string) error {
	if _, exists, err := top.Stat(boundStorage); err != nil {
		return err
	} else if exists {
		if err := top.WriteFile(path.Join(boundStorage, storageStamp), nil, 0o644); err != nil {
			return err
		}
	}
	w.repo = w.of(asRepository, unix.S_IFDIR)
	for _, t := range []struct {
		name, as string
		rule     rule
	}{
		{".", "/", notBelow},
		{AlephPath, "/" + AlephPath, everything},
		{"lost+found", "/lost+found", everything},
		{"boot", "/boot", notLinked},
		{path.Join(stateroot, "var"), "/var", everything},
		{path.Join(d.Path, "etc"), "/etc", everything},
		{boundStorage, asStorage, everything},
		{"ostree", "", notOwn(d.Path, path.Join(stateroot, "var"), boundStorage)},
		{path.Join(d.Path, ComposefsName), "", everything},
		{path.Join(stateroot, "backing", path.Base(d.Path), "root-transient/upper"), "/", everything},
	} {
		if err := w.tree(top, t.name, t.as, t.rule); err != nil {
			return err
		}
	}
	return nil
}

// least labels the files that bootc and libostree label on every machine, and those in /etc that
// were not copied.
func (w *labelWalk) least(top *beneath.Dir, d *Deployment, stateroot string) error {
	err := w.tree(top, path.Join(stateroot, "var"), "/var", notStamp)
	if err != nil {
		return err
	}
	return w.tree(top, path.Join(d.Path, "etc"), "/etc", notLabelled)
}

// labelWalk labels the files below directories.
type labelWalk struct {
	ctx  context.Context
	of   image.Labeller
	repo string // the label of the repository and the files beside it
	n    int
}

// rule returns the treatment of an entry of a directory.
type rule func(in *beneath.Dir, name string, st *unix.Stat_t) (treatment, error)

type treatment int

const (
	labelIt  treatment = iota
	keepIt             // it has the right label, or none
	labelTop           // and nothing below it
	pruneIt            // and everything below it
)

func everything(*beneath.Dir, string, *unix.Stat_t) (treatment, error) { return labelIt, nil }
func notBelow(*beneath.Dir, string, *unix.Stat_t) (treatment, error)   { return labelTop, nil }

// notStamp leaves libostree's mark without a label, as libostree does.
func notStamp(_ *beneath.Dir, name string, _ *unix.Stat_t) (treatment, error) {
	if name == varStamp {
		return keepIt, nil
	}
	return labelIt, nil
}

// notLabelled leaves the files that have a label.
func notLabelled(in *beneath.Dir, name string, _ *unix.Stat_t) (treatment, error) {
	if has, err := in.HasLabel(name); has || err != nil {
		return keepIt, err
	}
	return labelIt, nil
}

// notLinked leaves the names of objects, whose label is a part of their checksum: the kernel's files
// where boot is no file system of its own.
func notLinked(_ *beneath.Dir, _ string, st *unix.Stat_t) (treatment, error) {
	if !isDir(st) && st.Nlink > 1 {
		return keepIt, nil
	}
	return labelIt, nil
}

// notOwn leaves content objects, and the directories that have labels of their own.
func notOwn(own ...string) rule {
	skipped := map[string]bool{}
	for _, name := range own {
		skipped[name] = true
	}
	return func(in *beneath.Dir, name string, _ *unix.Stat_t) (treatment, error) {
		switch full := in.Full(name); {
		case skipped[full]:
			return pruneIt, nil
		case strings.HasPrefix(full, objectsDir) && strings.HasSuffix(full, contentSuffix):
			return keepIt, nil
		}
		return labelIt, nil
	}
}

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

// tree labels a file or directory, which may be missing, and all below it, by the path as. An empty
// one stands for the repository's label.
func (w *labelWalk) tree(in *beneath.Dir, name, as string, r rule) error {
	st, exists, err := in.Stat(name)
	if !exists || err != nil {
		return err
	}
	return w.entry(in, name, as, &st, r)
}

func (w *labelWalk) entry(in *beneath.Dir, name, as string, st *unix.Stat_t, r rule) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	how, err := r(in, name, st)
	if err != nil || how == pruneIt {
		return err
	}
	if how != keepIt {
		below, err := w.set(in, name, as, st)
		if err != nil || !below {
			return err
		}
	}
	if how == labelTop || !isDir(st) {
		return nil
	}
	return in.With(name, func(d *beneath.Dir) error { return w.entries(d, as, r) })
}

func (w *labelWalk) entries(d *beneath.Dir, as string, r rule) error {
	names, err := d.Names(".")
	if err != nil {
		return err
	}
	for _, name := range names {
		st, _, err := d.Stat(name)
		if err != nil {
			return err
		}
		at := ""
		if as != "" {
			at = path.Join(as, name)
		}
		if err := w.entry(d, name, at, &st, r); err != nil {
			return err
		}
	}
	return nil
}

// set labels one file. below is false for an EFI system partition, whose file system has no labels.
func (w *labelWalk) set(in *beneath.Dir, name, as string, st *unix.Stat_t) (below bool, err error) {
	label := w.repo
	if as != "" {
		label = w.of(as, st.Mode)
	}
	if label == "" {
		return true, nil
	}
	err = in.SetLabel(name, label)
	if errors.Is(err, unix.EOPNOTSUPP) && isDir(st) {
		return false, notFAT(in, name, err)
	}
	w.n++
	return true, err
}

// notFAT returns the error unless the directory is of a FAT.
func notFAT(in *beneath.Dir, name string, err error) error {
	return in.With(name, func(d *beneath.Dir) error {
		var st unix.Statfs_t
		if failed := unix.Fstatfs(d.FD(), &st); failed != nil {
			return errors.Join(err, d.Fail("statfs", ".", failed))
		}
		if st.Type == unix.MSDOS_SUPER_MAGIC {
			return nil
		}
		return err
	})
}
