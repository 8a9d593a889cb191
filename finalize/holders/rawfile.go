package holders

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// The calls that a search makes most. They bypass the Go scheduler, which costs more than the calls
// themselves: the kernel makes the content of these files at once. Files that may keep a reader
// waiting (maps, whose lock the process may hold) are not read in this way.

func rawOpen(dir int, name []byte, flags uintptr) (int, error) {
	flags |= unix.O_CLOEXEC
	fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), flags, 0, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func rawRead(fd int, buf []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func rawEntries(fd int, buf []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_GETDENTS64, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func rawReadLink(dir int, name, buf []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func rawStatx(dir int, name []byte, mask uintptr, st *unix.Statx_t) error {
	const flags = unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT
	_, _, errno := unix.RawSyscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), flags,
		mask, uintptr(unsafe.Pointer(st)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func rawClose(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// quick returns the text of a small file of /proc that the kernel hands out in one piece: a text
// that leaves room in the buffer is complete.
func (p *procFile) quick(dir int, prefix string, number int) ([]byte, error) {
	fd, err := rawOpen(dir, p.numbered(prefix, number), unix.O_RDONLY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer rawClose(fd)
	p.grow()
	n, err := rawRead(fd, p.buf)
	if err != nil {
		return nil, err
	}
	if n < seqPage-1 {
		return p.buf[:n], nil
	}
	return p.rest(fd, n)
}

// numbered makes a path, ended as the kernel wants it.
func (p *procFile) numbered(prefix string, number int) []byte {
	p.name = append(p.name[:0], prefix...)
	p.name = appendDecimal(p.name, number)
	p.name = append(p.name, 0)
	return p.name
}

// named is numbered without a number.
func (p *procFile) named(name string) []byte {
	p.name = append(p.name[:0], name...)
	p.name = append(p.name, 0)
	return p.name
}

// where follows a link of /proc, whose name is ended as the kernel wants it, to the very object it
// stands for. It asks for the mount alone, which a hung file system need not be consulted about.
// Kernels without mount ids give an error.
func (p *procFile) where(dir int, name []byte) (location, error) {
	if err := rawStatx(dir, name, unix.STATX_MNT_ID, &p.stat); err != nil {
		return location{}, err
	}
	if p.stat.Mask&unix.STATX_MNT_ID == 0 {
		return location{}, unix.EOPNOTSUPP
	}
	return location{int(p.stat.Mnt_id), mounts.DevNum{Major: p.stat.Dev_major, Minor: p.stat.Dev_minor}}, nil
}

// link returns a link's text, valid until the next call.
func (p *procFile) link(dir int, name []byte) ([]byte, error) {
	p.grow()
	n, err := rawReadLink(dir, name, p.buf)
	return p.buf[:n], err
}

// seqPage is the least that the kernel's buffer for such files holds; a file with less in it comes
// in one read.
const seqPage = 4096

func appendDecimal(b []byte, n int) []byte {
	if n >= 10 {
		b = appendDecimal(b, n/10)
	}
	return append(b, byte('0'+n%10))
}
