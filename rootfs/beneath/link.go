package beneath

import (
	"errors"
	"fmt"
	"io"
	"path"

	"golang.org/x/sys/unix"
)

// Link makes to, with missing directories above it, another name of the file from in fromDir. Where
// the two are not on one file system, or the file has as many names as it can have, to becomes a
// copy.
func (d *Dir) Link(fromDir *Dir, from, to string) error {
	if err := d.MkdirAll(path.Dir(to), 0o755); err != nil {
		return err
	}
	err := fromDir.At(from, func(source int, sourceName string) error {
		return d.At(to, func(dest int, destName string) error {
			return d.FailIf("link", to, unix.Linkat(source, sourceName, dest, destName, 0))
		})
	})
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EMLINK) {
		return d.copyFile(fromDir, from, to)
	}
	return err
}

// copyFile copies content, owner and mode.
func (d *Dir) copyFile(fromDir *Dir, from, to string) error {
	in, err := fromDir.OpenInside(from)
	if err != nil {
		return err
	}
	defer in.Close()
	var st unix.Stat_t
	if err := unix.Fstat(in.fd, &st); err != nil {
		return fromDir.Fail("stat", from, err)
	}
	fd, closeFD, err := d.Open(to, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600, NoLinks)
	if err != nil {
		return err
	}
	err = copyContent(fd, in, int(st.Uid), int(st.Gid), st.Mode&0o7777)
	if err = errors.Join(err, closeFD()); err != nil {
		return fmt.Errorf("copying /%s to /%s: %w", fromDir.Full(from), d.Full(to), err)
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
