package ostree

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// folders is the repository's layout: the open folders that reading and writing start from, and the
// temporary files.
type folders struct {
	ledger  Ledger
	xfs     bool   // the repository is on XFS; see asShown
	repo    handle // ostree/repo
	objects handle
	tmp     handle
	tmpSeed string
	tmpSeq  atomic.Uint64
}

func (f *folders) init(l Ledger) {
	f.ledger, f.repo.fd, f.objects.fd, f.tmp.fd = l, -1, -1, -1
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails on Linux
	f.tmpSeed = "write-" + hex.EncodeToString(seed[:]) + "-"
}

func (f *folders) create(root *os.File, cfg Config) error {
	if _, err := makeDir(int(root.Fd()), "ostree", "ostree", 0o755); err != nil {
		return err
	}
	top, err := openDirAt(f.ledger, "ostree", int(root.Fd()), "ostree")
	if err != nil {
		return err
	}
	defer top.close()
	if _, err := makeDir(top.fd, "repo", repoPath, 0o755); err != nil {
		return err
	}
	if f.repo, err = openDirAt(f.ledger, repoPath, top.fd, "repo"); err != nil {
		return err
	}
	if err := f.createLayout(cfg); err != nil {
		return err
	}
	return f.openAll()
}

// createLayout makes the folders and the configuration. The folder of objects comes last, since its
// presence makes the directory a repository.
func (f *folders) createLayout(cfg Config) error {
	var st unix.Stat_t
	if err := unix.Fstatat(f.repo.fd, "objects", &st, unix.AT_SYMLINK_NOFOLLOW); err != unix.ENOENT {
		if err == nil {
			return ErrExists
		}
		return &os.PathError{Op: "stat", Path: repoPath + "/objects", Err: err}
	}
	for _, name := range []string{"tmp", "tmp/cache", "extensions", "state", "refs", "refs/heads", "refs/mirrors", "refs/remotes"} {
		if _, err := makeDir(f.repo.fd, name, repoPath+"/"+name, 0o755); err != nil {
			return err
		}
	}
	if err := f.writeConfig(cfg); err != nil {
		return err
	}
	isNew, err := makeDir(f.repo.fd, "objects", repoPath+"/objects", 0o755)
	if err == nil && !isNew {
		err = ErrExists
	}
	return err
}

func (f *folders) writeConfig(cfg Config) error {
	data, err := cfg.encode()
	if err != nil {
		return err
	}
	name := repoPath + "/config"
	h, err := openAt(f.ledger, name, f.repo.fd, "config", unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer h.close()
	if err := writeAll(h.fd, data); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := unix.Fchmod(h.fd, 0o644); err != nil {
		return &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	return h.close()
}

func (f *folders) open(root *os.File) (cfg Config, err error) {
	top, err := openDirAt(f.ledger, "ostree", int(root.Fd()), "ostree")
	if err != nil {
		return cfg, err
	}
	defer top.close()
	if f.repo, err = openDirAt(f.ledger, repoPath, top.fd, "repo"); err != nil {
		return cfg, err
	}
	data, err := readSmallFile(f.ledger, f.repo.fd, "config", repoPath+"/config", maxConfigSize)
	if err != nil {
		return cfg, err
	}
	if cfg, err = parseConfig(data); err != nil {
		return cfg, err
	}
	return cfg, f.openAll()
}

// openAll opens the folders that writing and reading start from.
func (f *folders) openAll() error {
	var err error
	if f.xfs, err = isXFS(f.repo.fd); err != nil {
		return fmt.Errorf("asking for the file system of %s: %w", repoPath, err)
	}
	if f.objects, err = openDirAt(f.ledger, repoPath+"/objects", f.repo.fd, "objects"); err != nil {
		return err
	}
	f.tmp, err = openDirAt(f.ledger, repoPath+"/tmp", f.repo.fd, "tmp")
	return err
}

func (f *folders) close() error {
	return errors.Join(f.objects.close(), f.tmp.close(), f.repo.close())
}

// tmpName returns a name in tmp that no other process uses.
func (f *folders) tmpName() string { return fmt.Sprintf("%s%d", f.tmpSeed, f.tmpSeq.Add(1)) }

// publish gives a finished temporary file its final name. An object that came into being meanwhile
// is as good.
func (f *folders) publish(tmp string, dir int, final string) error {
	err := unix.Renameat2(f.tmp.fd, tmp, dir, final, unix.RENAME_NOREPLACE)
	if err == nil {
		return nil
	}
	removed := unix.Unlinkat(f.tmp.fd, tmp, 0)
	if err == unix.EEXIST {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("renaming %s/tmp/%s into place: %w", repoPath, tmp, err)
	}
	return errors.Join(err, removed)
}

// writeTemp makes a file of mode 0644 in tmp.
func (f *folders) writeTemp(name string, data []byte) error {
	full := repoPath + "/tmp/" + name
	h, err := openAt(f.ledger, full, f.tmp.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = writeAll(h.fd, data)
	if err == nil {
		err = unix.Fchmod(h.fd, 0o644)
	}
	if err = errors.Join(err, h.close()); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", full, err), unix.Unlinkat(f.tmp.fd, name, 0))
	}
	return nil
}

// touch signals to other programs that refs have changed: they watch the repository directory's
// modification time.
func (f *folders) touch() error {
	now := unix.NsecToTimespec(time.Now().UnixNano())
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, now}
	if err := unix.UtimesNanoAt(f.repo.fd, ".", times, 0); err != nil {
		return &os.PathError{Op: "utimes", Path: repoPath, Err: err}
	}
	return nil
}
