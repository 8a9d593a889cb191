package mounts

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The structures and numbers below are those of linux/mount.h and linux/nsfs.h, which
// golang.org/x/sys does not carry.
const (
	nsMountInfo = 0x8010b70a // NS_MNT_GET_INFO
	nsMountNext = 0x8010b70b // NS_MNT_GET_NEXT
	nsMountPrev = 0x8010b70c // NS_MNT_GET_PREV

	listRoot = ^uint64(0) // LSMT_ROOT

	statmountSuper         = 0x1
	statmountMount         = 0x2
	statmountPropagateFrom = 0x4
	statmountRoot          = 0x8
	statmountPoint         = 0x10
	statmountType          = 0x20
	statmountOptions       = 0x80
	statmountSource        = 0x200

	statmountAll = statmountSuper | statmountMount | statmountPropagateFrom | statmountRoot |
		statmountPoint | statmountType | statmountOptions | statmountSource

	statmountHeader = 512 // the strings begin here
)

type nsInfo struct {
	size, nrMounts uint32
	id             uint64
}

type mountIDRequest struct {
	size, spare    uint32
	mountID, param uint64
	namespaceID    uint64
}

// namespaceID returns the number of a mount namespace that is never reused.
func namespaceID(fd int) (uint64, error) {
	info := nsInfo{size: uint32(unsafe.Sizeof(nsInfo{}))}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nsMountInfo, uintptr(unsafe.Pointer(&info)))
	if errno == 0 {
		return info.id, nil
	}
	var id uint64 // kernels before 6.12 know only this one
	_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.NS_GET_MNTNS_ID, uintptr(unsafe.Pointer(&id)))
	if errno != 0 {
		return 0, fmt.Errorf("asking for the id of a mount namespace: %w", errno)
	}
	return id, nil
}

// neighbour opens the next namespace in the kernel's order, or returns ENOENT.
func neighbour(fd int, direction uintptr) (int, error) {
	info := nsInfo{size: uint32(unsafe.Sizeof(nsInfo{}))}
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), direction, uintptr(unsafe.Pointer(&info)))
	if errno != 0 {
		return -1, errno
	}
	unix.CloseOnExec(int(r))
	return int(r), nil
}

// listIDs returns the unique ids of all mounts of a namespace.
func listIDs(ns uint64) ([]uint64, error) {
	var all []uint64
	buf := make([]uint64, 512)
	request := mountIDRequest{size: uint32(unsafe.Sizeof(mountIDRequest{})), mountID: listRoot, namespaceID: ns}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_LISTMOUNT, uintptr(unsafe.Pointer(&request)),
			uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
		if errno != 0 {
			return nil, fmt.Errorf("listing the mounts of namespace %d: %w", ns, errno)
		}
		all = append(all, buf[:n]...)
		if int(n) < len(buf) {
			return all, nil
		}
		request.param = buf[n-1]
	}
}

// statmount asks for one mount; buf is reused and returned, grown when needed.
func statmount(ns, id uint64, buf []byte) (Mount, []byte, error) {
	request := mountIDRequest{size: uint32(unsafe.Sizeof(mountIDRequest{})), mountID: id, param: statmountAll, namespaceID: ns}
	for {
		_, _, errno := unix.Syscall6(unix.SYS_STATMOUNT, uintptr(unsafe.Pointer(&request)),
			uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
		if errno == unix.EOVERFLOW && len(buf) < 1<<22 {
			buf = make([]byte, 2*len(buf))
			continue
		}
		if errno != 0 {
			return Mount{}, buf, fmt.Errorf("asking for mount %d: %w", id, errno)
		}
		m, err := decodeStatmount(buf)
		return m, buf, err
	}
}

// decodeStatmount reads struct statmount.
func decodeStatmount(buf []byte) (Mount, error) {
	if len(buf) < statmountHeader {
		return Mount{}, errors.New("reading struct statmount: too short")
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(buf[at:]) }
	u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(buf[at:]) }
	mask := u64(8)
	text := func(bit uint64, at int) string {
		if mask&bit == 0 {
			return ""
		}
		return stringAt(buf, u32(at))
	}
	m := Mount{
		ID: int(u32(56)), Unique: u64(40), Parent: int(u32(60)), Dev: DevNum{Major: u32(16), Minor: u32(20)},
		Root: text(statmountRoot, 104), Point: text(statmountPoint, 108),
		Options: mountOptions(u64(64)), SuperOptions: superOptions(u32(32), text(statmountOptions, 4)),
		PropagateFrom: u64(96), FSType: text(statmountType, 36), Source: text(statmountSource, 124),
	}
	m.setPropagation(u64(72), u64(80), u64(88))
	return m, nil
}

func (m *Mount) setPropagation(kind, peer, master uint64) {
	if kind&unix.MS_SHARED != 0 {
		m.Shared = peer
	}
	if kind&unix.MS_SLAVE != 0 {
		m.Master = master
	}
	m.Unbindable = kind&unix.MS_UNBINDABLE != 0
}

func stringAt(buf []byte, offset uint32) string {
	start := statmountHeader + int(offset)
	if start < 0 || start >= len(buf) {
		return ""
	}
	text, _, _ := bytes.Cut(buf[start:], []byte{0})
	return string(text)
}

func mountOptions(attr uint64) string {
	options := "rw"
	if attr&unix.MOUNT_ATTR_RDONLY != 0 {
		options = "ro"
	}
	for _, f := range []struct {
		bit  uint64
		name string
	}{
		{unix.MOUNT_ATTR_NOSUID, "nosuid"}, {unix.MOUNT_ATTR_NODEV, "nodev"}, {unix.MOUNT_ATTR_NOEXEC, "noexec"},
		{unix.MOUNT_ATTR_NOATIME, "noatime"}, {unix.MOUNT_ATTR_NODIRATIME, "nodiratime"},
		{unix.MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"},
	} {
		if attr&f.bit != 0 {
			options += "," + f.name
		}
	}
	if attr&unix.MOUNT_ATTR__ATIME == 0 {
		options += ",relatime"
	}
	return options
}

func superOptions(flags uint32, rest string) string {
	options := "rw"
	if flags&unix.MS_RDONLY != 0 {
		options = "ro"
	}
	if rest != "" {
		options += "," + rest
	}
	return options
}
