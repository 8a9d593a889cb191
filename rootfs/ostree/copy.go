package ostree

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// copy makes a new file or link from an object, with its owner, mode, attributes and content;
// with zeroTime also its time of modification. On failure nothing is left.
func (o *objects) copy(k objectKey, dir int, name string, zeroTime bool) error {
	return o.readContent(k, func(h FileHeader, size int64, content io.Reader) error {
		if h.IsSymlink() {
			return makeSymlink(dir, name, &h)
		}
		return copyFile(o.folders.ledger, dir, name, &h, int(content.(fdReader)), size, zeroTime)
	})
}

func copyFile(l Ledger, dir int, name string, h *FileHeader, from int, size int64, zeroTime bool) error {
	f, err := openAt(l, "a copy named "+name, dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = copyData(f.fd, from, size)
	if err == nil {
		err = setFileMetadata(f.fd, h)
	}
	if err == nil && zeroTime {
		err = zeroModTime(f.fd)
	}
	if err = errors.Join(err, f.close()); err != nil {
		return errors.Join(err, unix.Unlinkat(dir, name, 0))
	}
	return nil
}

// copyData copies size bytes inside the kernel, which shares the blocks where the file system can,
// and by hand where it cannot.
func copyData(to, from int, size int64) error {
	for left := size; left > 0; {
		n, err := unix.CopyFileRange(from, nil, to, nil, int(min(left, 1<<30)), 0)
		switch err {
		case nil:
		case unix.EINTR:
			continue
		case unix.EXDEV, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP:
			return copyByHand(to, from, left)
		default:
			return fmt.Errorf("copying %d bytes: %w", left, err)
		}
		if n == 0 {
			return fmt.Errorf("copying: the object ends %d bytes early: %w", left, ErrCorrupt)
		}
		left -= int64(n)
	}
	return nil
}

func copyByHand(to, from int, left int64) error {
	buf := make([]byte, min(left, chunkSize))
	for left > 0 {
		part := buf[:min(left, chunkSize)]
		if err := readAll(from, part); err != nil {
			return err
		}
		if err := writeAll(to, part); err != nil {
			return err
		}
		left -= int64(len(part))
	}
	return nil
}
