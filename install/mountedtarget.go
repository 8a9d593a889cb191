package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/finalize"
	"installer/finalize/mounts"
	"installer/install/config"
	"installer/install/mounted"
)

// mountedTarget is what to-filesystem knows of the file systems that it was given.
type mountedTarget struct {
	opts         MountedOptions
	skipFinalize bool // asked for, or there is no other way
	tree         *mounted.Tree
	found        []disk.Found   // what will be lost
	place        *mounted.Place // of the file system with the boot entries
	noPlace      error          // why place is nil
	written      bool
	sync         []*os.File // directories of the file systems that were written to
}

// MountedFilesystem is one of the file systems that were given.
type MountedFilesystem struct {
	Role       mounted.Role `json:"role"`
	MountPoint string       `json:"mount_point"`
	Device     string       `json:"device"`
	Type       string       `json:"type"`
	UUID       string       `json:"uuid,omitempty"`
}

// lookAtMounted finds out what was given, or refuses it. Nothing is written.
func (r *run) lookAtMounted(ctx context.Context) (err error) {
	m := r.mounted
	m.skipFinalize = m.opts.SkipFinalize
	if m.tree, err = mounted.Find(m.opts.Root); err != nil {
		return err
	}
	if err := r.checkRunning(); err != nil {
		return err
	}
	if err := m.checkOthers(); err != nil {
		return err
	}
	if err := m.checkContents(); err != nil {
		return err
	}
	if err := r.checkHolders(ctx); err != nil {
		return err
	}
	if err := r.openMountedRoot(); err != nil {
		return err
	}
	if err := r.noteCopies(ctx); err != nil {
		return err
	}
	m.place, m.noPlace = mounted.Beneath(m.tree.Entries().Number)
	return r.describeMounted()
}

// checkRunning refuses to harm the running system by mistake.
func (r *run) checkRunning() error {
	m := r.mounted
	if !m.tree.Running {
		return nil
	}
	refused := func(reason string) error {
		return &disk.RefusedError{Path: m.opts.Root, Reason: "the running system has its root on this file system: " + reason}
	}
	switch {
	case m.opts.Replace == ReplaceWipe:
		return refused("deleting it would end that system")
	case m.opts.Replace != ReplaceAlongside:
		return refused("mount another one; or install beside that system, which replaces its boot loader, by --replace=alongside --acknowledge-destructive")
	case !m.opts.AcknowledgeDestructive:
		return refused("installing beside it replaces its boot loader; --acknowledge-destructive says that this is meant")
	}
	m.skipFinalize = true
	r.note("the running system has its root on this file system, which therefore stays writable: nothing can be proven of its release")
	return nil
}

// checkOthers refuses mounts that have no place in the new system, and would be
// taken for a part of its root.
func (m *mountedTarget) checkOthers() error {
	if len(m.tree.Others) == 0 || m.opts.Replace == ReplaceAlongside && m.skipFinalize {
		return nil
	}
	other := m.tree.Others[0]
	return &disk.RefusedError{Path: m.opts.Root, Reason: fmt.Sprintf(
		"%s is mounted on %s, and only /boot and the EFI system partition (/boot/efi or /efi) can be below the root: unmount it", other.FSType, other.Point)}
}

// checkContents finds what will be lost, and refuses to lose what was not to be replaced.
func (m *mountedTarget) checkContents() error {
	for _, f := range m.tree.Filesystems() {
		names, err := mounted.Contents(f)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			continue
		}
		kept := f.Role == mounted.Root && m.opts.Replace == ReplaceAlongside
		if kept {
			if err := m.checkBeside(names); err != nil {
				return err
			}
			names = bootOf(names)
		}
		if m.opts.Replace == ReplaceNone {
			return &disk.RefusedError{Path: f.Mount.Point, Reason: fmt.Sprintf("it is not empty: it has %s; "+
				"--replace=%s deletes all of it, --replace=%s keeps the root's files and replaces only the boot loader's",
				someOf(names), ReplaceWipe, ReplaceAlongside)}
		}
		if len(names) > 0 {
			m.found = append(m.found, disk.Found{Where: f.Mount.Point, What: someOf(names)})
		}
	}
	return nil
}

// checkBeside refuses to install beside what is a system of the same kind.
func (m *mountedTarget) checkBeside(names []string) error {
	if systems := mounted.Systems(names); len(systems) > 0 {
		return &disk.RefusedError{Path: m.opts.Root, Reason: fmt.Sprintf("it has %s, so a system of this kind is installed there already: "+
			"update that one from within, or delete it by --replace=%s", someOf(systems), ReplaceWipe)}
	}
	return nil
}

// bootOf is what an installation beside other files replaces of these: the directory boot.
func bootOf(names []string) []string {
	for _, name := range names {
		if name == "boot" {
			return []string{name}
		}
	}
	return nil
}

// someOf names the first few.
func someOf(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// checkHolders refuses early what could not be released in the end.
func (r *run) checkHolders(ctx context.Context) error {
	wanted := []string{"prove-self-free", "prove-no-holders"}
	switch {
	case r.mounted.tree.Running: // this program is one of those who hold it
		return nil
	case r.mounted.skipFinalize:
		wanted = wanted[:1]
	}
	if _, err := r.runStages(ctx, nil, wanted, nil); err != nil {
		return fmt.Errorf("before anything was written: %w", err)
	}
	return nil
}

// noteCopies tells where else the file systems stay mounted when the caller
// unmounts them: a copy keeps the super block alive.
func (r *run) noteCopies(ctx context.Context) error {
	snapshot, err := mounts.List(ctx)
	if err != nil {
		return err
	}
	var tree []mounts.Mount
	for _, f := range r.mounted.tree.Filesystems() {
		tree = append(tree, f.Mount)
	}
	goes := map[int]bool{}
	for _, m := range mounts.Reached(snapshot, tree) {
		goes[m.ID] = true
	}
	for _, ns := range snapshot.Namespaces {
		for _, m := range ns.Mounts {
			if !ns.Own && !goes[m.ID] && m.Dev == tree[0].Dev {
				r.note("also mounted on %s in another mount namespace, mnt:[%d], where an unmount here does not reach", m.Point, ns.Inode)
			}
		}
	}
	return nil
}

// openMountedRoot opens the root, and locks it against another installer.
func (r *run) openMountedRoot() error {
	r.target.root = r.mounted.opts.Root
	root, err := r.openMounted("root directory", r.target.root)
	if err != nil {
		return err
	}
	r.system.root = root
	err = unix.Flock(int(root.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return &disk.InUseError{Path: r.target.root, Err: err, Uses: []disk.Use{{What: r.target.root,
			Why: "locked by another program, such as an installer", Remedy: "wait for it to end"}}}
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", r.target.root, err)
	}
	return nil
}

// openMounted opens a directory of the target, for the release to close.
func (r *run) openMounted(what, path string) (*os.File, error) {
	released := r.ledger.Opened("fd", path)
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		released()
		return nil, fmt.Errorf("opening the %s: %w", what, err)
	}
	r.hold(what, func() error { defer released(); return dir.Close() })
	r.mounted.sync = append(r.mounted.sync, dir)
	return dir, nil
}

// describeMounted takes over what is known now.
func (r *run) describeMounted() error {
	t := r.mounted.tree
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(r.system.root.Fd()), &st); err != nil {
		return fmt.Errorf("reading the size of %s: %w", r.target.root, err)
	}
	r.opts.Filesystem, r.opts.BlockSetup = t.Root.Super.Filesystem, config.BlockDirect
	r.target.rootUUID = t.Root.Super.UUID
	d := &r.report.Disk
	d.Size, d.RootUUID, d.Filesystem = int64(st.Blocks)*st.Bsize, t.Root.Super.UUID, r.opts.Filesystem
	var texts []string
	for _, f := range t.Filesystems() {
		texts = append(texts, f.String())
		d.Mounted = append(d.Mounted, MountedFilesystem{f.Role, f.Mount.Point, f.Device, f.Mount.FSType, f.Super.UUID})
	}
	r.say("%s", strings.Join(texts, ", "))
	return nil
}

// prepareMounted deletes what is to be replaced, and opens the file systems for
// what goes there beside the root's content.
func (r *run) prepareMounted(ctx context.Context) error {
	m := r.mounted
	m.written = true
	if err := m.clear(ctx); err != nil {
		return err
	}
	for _, f := range m.tree.Filesystems()[1:] {
		if _, err := r.openMounted(string(f.Role), f.Mount.Point); err != nil {
			return err
		}
	}
	return r.openBootSite()
}

// clear deletes what is to be replaced.
func (m *mountedTarget) clear(ctx context.Context) error {
	if m.opts.Replace == ReplaceNone {
		return nil
	}
	for _, f := range m.tree.Filesystems() {
		below := ""
		if f.Role == mounted.Root && m.opts.Replace == ReplaceAlongside {
			below = "boot"
		}
		if err := mounted.Clear(ctx, f, below); err != nil {
			return err
		}
	}
	return nil
}

// runStages runs those stages of a release that are named, on the caller's mounts.
// Copies of them in other mount namespaces, such as a container's and the host's,
// are the caller's affair too; what is open through these is not.
func (r *run) runStages(ctx context.Context, handles []finalize.Handle, names []string, observe func(finalize.StageResult)) (report *finalize.Report, err error) {
	target, closeAll, err := finalize.Discover(filepath.Clean(r.mounted.opts.Root))
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := closeAll(); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
	}()
	target.Handles, target.AllNamespaces = handles, true
	if handles != nil {
		target.Ledger = r.ledger
	}
	pipeline := finalize.Pipeline{}
	for _, stage := range finalize.MountedStages() {
		for _, name := range names {
			if stage.Name == name {
				pipeline.Stages = append(pipeline.Stages, stage)
			}
		}
	}
	return pipeline.Run(ctx, target, observe)
}

// releaseMounted gives back what this program has open, and has the file systems
// written out, read-only and free of holders, where they are.
func (r *run) releaseMounted(ctx context.Context) error {
	if err := r.closeSource(); err != nil {
		return err
	}
	if err := injectFault(r); err != nil {
		return err
	}
	if r.mounted.skipFinalize {
		if err := r.mounted.writeOut(); err != nil {
			return err
		}
	}
	handles := r.releaseOrder()
	r.passOn()
	report, err := r.runStages(ctx, handles, r.mounted.stages(), func(s finalize.StageResult) {
		r.emit(Event{Kind: EventStage, Stage: &s})
	})
	r.report.Finalize = report
	return err
}

// stages are those of the release.
func (m *mountedTarget) stages() []string {
	names := []string{"drop-handles", "prove-self-free", "trim", "remount-read-only", "freeze-thaw", "prove-no-holders"}
	switch {
	case m.tree.Running:
		return names[:1]
	case m.skipFinalize:
		return names[:2]
	}
	return names
}

// writeOut makes durable what was written, where no remount does.
func (m *mountedTarget) writeOut() error {
	for _, dir := range m.sync {
		if err := unix.Syncfs(int(dir.Fd())); err != nil {
			return fmt.Errorf("writing %s out (syncfs): a write was lost, the device may be failing or full: %w", dir.Name(), err)
		}
	}
	return nil
}
