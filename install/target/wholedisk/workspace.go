package wholedisk

import (
	"fmt"
	"os"
	"path/filepath"

	"installer/disk/mounts"
)

// workspace is a tmpfs, seen by this process's mount namespace alone, for mount points and device
// nodes. When the process dies, it is gone.
type workspace struct{ dir string }

// Places below the workspace.
func (w workspace) root() string  { return filepath.Join(w.dir, "root") }
func (w workspace) nodes() string { return filepath.Join(w.dir, "dev") }

// openWorkspace mounts the workspace on dir, which it creates if need be. The empty directory is
// left behind on purpose: removing it would unmount the workspace of another installer that runs at
// the same time.
func (d *Disk) openWorkspace() error {
	w := workspace{dir: d.o.WorkDir}
	d.paths = w
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return fmt.Errorf("making the directory of the workspace: %w", err)
	}
	tmpfs := mounts.Options{Source: "installer", FSType: "tmpfs", Target: w.dir, Data: []string{"mode=0700", "size=16m"}}
	if err := mounts.Make(tmpfs); err != nil {
		return fmt.Errorf("mounting the workspace: %w", err)
	}
	d.workspace = d.journal.Add("unmounted the workspace "+w.dir, func() error { return w.close() })
	for _, dir := range []string{w.root(), w.nodes()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("making the workspace: %w", err)
		}
	}
	return nil
}

func (w workspace) close() error {
	if err := unmountAt(w.dir); err != nil {
		return fmt.Errorf("unmounting the workspace: %w", err)
	}
	return nil
}

// unmountAt unmounts the file system on path, by one call.
func unmountAt(path string) error {
	m, err := mounts.At(path)
	if err != nil {
		return err
	}
	return mounts.Unmount(m)
}
