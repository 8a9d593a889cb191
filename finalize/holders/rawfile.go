package holders

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"installer/finalize/mounts"
)

// The three calls that a search makes most. They do not tell the Go scheduler,
// which costs more than the calls themselves: what they read from is made up by
// the kernel at once. Files that may keep a reader waiting (maps, whose lock the
// process may hold) are not read in this way.

func rawOpen(dir int, name []byte) (int, error) {
	const flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW
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

func rawClose(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// quick returns the text of a small file of /proc that the kernel hands out in
// one piece: what fits into the buffer with room to spare is all there is.
func (p *procFile) quick(dir int, prefix string, number int) ([]byte, error) {
	fd, err := rawOpen(dir, p.numbered(prefix, number))
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

// quickWhere is whereIs for a numbered link. Kernels that do not tell the mount
// give an error.
func (p *procFile) quickWhere(dir int, prefix string, number int) (location, error) {
	const flags = unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT
	name := p.numbered(prefix, number)
	_, _, errno := unix.RawSyscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), flags,
		unix.STATX_MNT_ID, uintptr(unsafe.Pointer(&p.stat)), 0)
	if errno != 0 {
		return location{}, errno
	}
	if p.stat.Mask&unix.STATX_MNT_ID == 0 {
		return location{}, unix.EOPNOTSUPP
	}
	return location{int(p.stat.Mnt_id), mounts.DevNum{Major: p.stat.Dev_major, Minor: p.stat.Dev_minor}}, nil
}

// seqPage is the least that the kernel's buffer for such files holds; a file with
// less in it comes in one read.
const seqPage = 4096

func appendDecimal(b []byte, n int) []byte {
	if n >= 10 {
		b = appendDecimal(b, n/10)
	}
	return append(b, byte('0'+n%10))
}
