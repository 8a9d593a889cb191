package mounted

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"installer/finalize"
	"installer/install/target"
)

// Release has the file systems written out, read-only and free of holders, where they are. The
// mounts are the caller's, and stay.
func (m *Mounted) Release(ctx context.Context, handles []finalize.Handle, observe func(finalize.StageResult)) (*finalize.Report, error) {
	if m.skipFinalize {
		if err := writeOut(m.opened); err != nil {
			return nil, err
		}
	}
	return m.runStages(ctx, handles, m.stages(), observe)
}

// runStages runs stages of a release on the caller's mounts. Copies of them, such as a container's
// and the host's, are the caller's too; a file that is open through a copy is not.
func (m *Mounted) runStages(ctx context.Context, handles []finalize.Handle, stages []finalize.Stage, observe func(finalize.StageResult)) (report *finalize.Report, err error) {
	target, closeAll, err := finalize.Discover(filepath.Clean(m.o.Root))
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := closeAll(); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
	}()
	target.Handles, target.Copies = handles, finalize.CopiesStay
	if handles != nil {
		target.Ledger = m.ledger
	}
	return (&finalize.Pipeline{Stages: stages}).Run(ctx, target, observe)
}

// stages are those of the release.
func (m *Mounted) stages() []finalize.Stage {
	switch {
	case m.tree.Running:
		return []finalize.Stage{finalize.DropHandles}
	case m.skipFinalize:
		return []finalize.Stage{finalize.DropHandles, finalize.ProveSelfFree}
	}
	return finalize.MountedStages()
}

// writeOut makes written data durable, where no remount does.
func writeOut(opened []*os.File) error {
	for _, dir := range opened {
		if err := unix.Syncfs(int(dir.Fd())); err != nil {
			return fmt.Errorf("writing %s out (syncfs): a write was lost, the device may be failing or full: %w", dir.Name(), err)
		}
	}
	return nil
}

// HandOver implements target.Target: the caller has the file systems already.
func (m *Mounted) HandOver() []target.Step { return nil }

// Proven implements target.Target.
func (m *Mounted) Proven() bool { return !m.skipFinalize }

// Left implements target.Target.
func (m *Mounted) Left(released bool) string {
	switch {
	case !m.written:
		return ""
	case released:
		return fmt.Sprintf("on %s: the system is installed and complete; only the release failed, as described above", m.o.Root)
	}
	return fmt.Sprintf("left on %s: a part of the system, which does not start; --replace=%s deletes it, and all other files there", m.o.Root, ReplaceWipe)
}
