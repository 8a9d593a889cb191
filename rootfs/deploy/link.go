package deploy

import (
	"errors"
	"fmt"
	"io"
	"path"

	"golang.org/x/sys/unix"
)

// linkFile makes to, with missing directories above it, another name of the file from; where the two are not on one
// file system, or the file has as many names as it can have, a copy of it.
func linkFile(fromDir *dir, from string, toDir *dir, to string) error {
	if err := toDir.mkdirAll(path.Dir(to), 0o755); err != nil {
		return err
	}
	err := fromDir.at(from, func(source int, sourceName string) error {
		return toDir.at(to, func(dest int, destName string) error {
			return toDir.failIf("link", to, unix.Linkat(source, sourceName, dest, destName, 0))
		})
	})
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EMLINK) {
		return copyFile(fromDir, from, toDir, to)
	}
	return err
}

// copyFile copies content, owner and mode.
func copyFile(fromDir *dir, from string, toDir *dir, to string) error {
	in, err := fromDir.openInside(from)
	if err != nil {
		return err
	}
	defer in.Close()
	var st unix.Stat_t
	if err := unix.Fstat(in.fd, &st); err != nil {
		return fromDir.fail("stat", from, err)
	}
	fd, closeFD, err := toDir.openat2(to, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600, noLinks)
	if err != nil {
		return err
	}
	err = copyContent(fd, in, int(st.Uid), int(st.Gid), st.Mode&0o7777)
	if err = errors.Join(err, closeFD()); err != nil {
		return fmt.Errorf("copying /%s to /%s: %w", fromDir.full(from), toDir.full(to), err)
	}
	return nil
}

func copyContent(fd int, in io.Reader, uid, gid int, mode uint32) error {
	if _, err := io.Copy(fdWriter(fd), in); err != nil {
		return err
	}
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return err
	}
	return unix.Fchmod(fd, mode) // after the owner, whose change takes bits away
}

// fdWriter writes to a plain descriptor.
type fdWriter int

func (w fdWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(int(w), p[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}
