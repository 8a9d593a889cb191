package faultdisk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Requests of <linux/fuse.h>, protocol 7.31.
const (
	opLookup    = 1
	opForget    = 2
	opGetattr   = 3
	opSetattr   = 4
	opOpen      = 14
	opRead      = 15
	opWrite     = 16
	opStatfs    = 17
	opRelease   = 18
	opFsync     = 20
	opFlush     = 25
	opInit      = 26
	opOpendir   = 27
	opReleaseD  = 29
	opInterrupt = 36
	opDestroy   = 38
	opForgets   = 42
	opFallocate = 43
)

const (
	protocolMajor, protocolMinor = 7, 31

	flagAsyncRead = 1 << 0
	flagBigWrites = 1 << 5
	flagMaxPages  = 1 << 22

	setSize = 1 << 3 // FATTR_SIZE

	inHeader, outHeader = 40, 16
	maxWrite            = 1 << 20 // bytes
	pageSize            = 4096
	attrTime            = 1 << 20 // seconds that the kernel may keep attributes and names for: nobody else changes them

	rootNode, fileNode = 1, 2
)

var order = binary.NativeEndian

// request is one message of the kernel.
type request struct {
	op     uint32
	unique uint64
	node   uint64
	body   []byte
}

func parseRequest(b []byte) (request, error) {
	if len(b) < inHeader || int(order.Uint32(b)) != len(b) {
		return request{}, fmt.Errorf("a FUSE request of %d bytes", len(b))
	}
	return request{op: order.Uint32(b[4:]), unique: order.Uint64(b[8:]), node: order.Uint64(b[16:]), body: b[inHeader:]}, nil
}

// serve answers the kernel until the file system is unmounted.
func (d *Disk) serve() error {
	buf := make([]byte, maxWrite+pageSize)
	for {
		n, err := unix.Read(d.device, buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAGAIN):
			continue
		case errors.Is(err, unix.ENODEV): // unmounted
			return nil
		case err != nil:
			return fmt.Errorf("reading FUSE requests: %w", err)
		}
		q, err := parseRequest(buf[:n])
		if err != nil {
			return err
		}
		if err := d.reply(q); err != nil {
			return err
		}
	}
}

func (d *Disk) reply(q request) error {
	if q.op == opForget || q.op == opForgets || q.op == opInterrupt {
		return nil // these have no answer
	}
	body, errno := d.answer(q)
	if errno != 0 {
		body = nil
	}
	out := make([]byte, outHeader, outHeader+len(body))
	order.PutUint32(out, uint32(outHeader+len(body)))
	order.PutUint32(out[4:], uint32(-int32(errno)))
	order.PutUint64(out[8:], q.unique)
	_, err := unix.Write(d.device, append(out, body...))
	if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: who asked was killed meanwhile
		return fmt.Errorf("answering FUSE request %d: %w", q.op, err)
	}
	return nil
}

func (d *Disk) answer(q request) ([]byte, unix.Errno) {
	switch q.op {
	case opInit:
		return initReply(), 0
	case opLookup:
		if q.node != rootNode || string(q.body) != fileName+"\x00" {
			return nil, unix.ENOENT
		}
		return d.entry(), 0
	case opGetattr:
		return d.attrReply(q.node), 0
	case opSetattr:
		return d.setattr(q)
	case opOpen, opOpendir:
		return make([]byte, 16), 0
	case opStatfs:
		return statfsReply(), 0
	case opRead, opWrite, opFallocate, opFsync:
		return d.io(q)
	case opFlush, opRelease, opReleaseD, opDestroy:
		return nil, 0
	}
	return nil, unix.ENOSYS
}

func initReply() []byte {
	b := make([]byte, 64)
	order.PutUint32(b, protocolMajor)
	order.PutUint32(b[4:], protocolMinor)
	order.PutUint32(b[8:], maxWrite)
	order.PutUint32(b[12:], flagAsyncRead|flagBigWrites|flagMaxPages)
	order.PutUint16(b[16:], 64) // requests in the background
	order.PutUint16(b[18:], 48)
	order.PutUint32(b[20:], maxWrite)
	order.PutUint32(b[24:], 1)
	order.PutUint16(b[28:], maxWrite/pageSize)
	return b
}

// attr is struct fuse_attr.
func (d *Disk) attr(node uint64) []byte {
	b := make([]byte, 88)
	mode, size := uint32(unix.S_IFDIR|0o700), int64(0)
	if node == fileNode {
		mode, size = unix.S_IFREG|0o600, d.size
	}
	order.PutUint64(b, node)
	order.PutUint64(b[8:], uint64(size))
	order.PutUint64(b[16:], uint64(size/512))
	order.PutUint32(b[60:], mode)
	order.PutUint32(b[64:], 1)
	order.PutUint32(b[80:], pageSize)
	return b
}

func (d *Disk) attrReply(node uint64) []byte {
	b := make([]byte, 16, 104)
	order.PutUint64(b, attrTime)
	return append(b, d.attr(node)...)
}

func (d *Disk) entry() []byte {
	b := make([]byte, 40, 128)
	order.PutUint64(b, fileNode)
	order.PutUint64(b[16:], attrTime)
	order.PutUint64(b[24:], attrTime)
	return append(b, d.attr(fileNode)...)
}

// setattr takes times and modes for granted; a disk does not change its size.
func (d *Disk) setattr(q request) ([]byte, unix.Errno) {
	if order.Uint32(q.body)&setSize != 0 && int64(order.Uint64(q.body[16:])) != d.size {
		return nil, unix.EPERM
	}
	return d.attrReply(q.node), 0
}

func statfsReply() []byte {
	b := make([]byte, 80)
	for i := range 3 { // blocks, free, available
		order.PutUint64(b[8*i:], 1<<30)
	}
	order.PutUint32(b[40:], pageSize)
	order.PutUint32(b[44:], 255)
	order.PutUint32(b[48:], pageSize)
	return b
}

// io carries a request out that concerns the content.
func (d *Disk) io(q request) ([]byte, unix.Errno) {
	body := q.body
	switch q.op {
	case opFsync:
		return nil, d.do(Op{Kind: Flush}, nil)
	case opRead:
		b := make([]byte, order.Uint32(body[16:]))
		off := int64(order.Uint64(body[8:]))
		b = b[:max(0, min(int64(len(b)), d.size-off))]
		return b, d.do(Op{Kind: Read, Off: off, Len: int64(len(b))}, b)
	case opWrite:
		data := body[40:]
		data = data[:order.Uint32(body[16:])]
		out := make([]byte, 8)
		order.PutUint32(out, uint32(len(data)))
		return out, d.do(Op{Kind: Write, Off: int64(order.Uint64(body[8:])), Len: int64(len(data))}, data)
	}
	mode := order.Uint32(body[24:])
	if mode&^(unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 ||
		mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) == 0 {
		return nil, unix.EOPNOTSUPP
	}
	off, n := int64(order.Uint64(body[8:])), int64(order.Uint64(body[16:]))
	return nil, d.do(Op{Kind: Zero, Off: off, Len: min(n, d.size-off)}, nil)
}

// mountFUSE mounts the file system on dir and returns the device by which it is served.
func mountFUSE(dir string) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,allow_other,max_read=%d", fd, unix.S_IFDIR, maxWrite)
	if err := unix.Mount("faultdisk", dir, "fuse.faultdisk", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("mounting a FUSE file system on %s: %w", dir, err)
	}
	return fd, nil
}
