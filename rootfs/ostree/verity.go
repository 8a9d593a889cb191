package ostree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"installer/rootfs/composefs"
)

// VerityError reports that an object cannot have fs-verity.
type VerityError struct {
	Path string // relative to the physical root
	Err  error
}

func (e *VerityError) Error() string {
	text := fmt.Sprintf("enabling fs-verity on /%s: %v", e.Path, e.Err)
	if errors.Is(e.Err, unix.ENOTTY) || errors.Is(e.Err, unix.EOPNOTSUPP) {
		text += "; the file system must be a btrfs, or an ext4 that has the feature verity, and the kernel must have CONFIG_FS_VERITY"
	}
	return text
}

func (e *VerityError) Unwrap() error { return e.Err }

// verity is the fs-verity of a repository's objects.
type verity struct {
	wanted bool
	known  sync.Map // Checksum of a file object -> composefs.Digest
}

// Parameters of fs-verity, as libostree sets them.
const (
	verityVersion = 1
	veritySHA256  = 1 // FS_VERITY_HASH_ALG_SHA256
	verityBlock   = 4096
)

// enableArg is struct fsverity_enable_arg of <linux/fsverity.h>.
type enableArg struct {
	version, algorithm, blockSize, saltSize uint32
	salt                                    uint64
	signatureSize, reserved                 uint32
	signature                               uint64
	more                                    [11]uint64
}

// protect enables fs-verity on a finished file, which nobody has open for writing, and compares the
// kernel's digest with the one of what was written.
func (v *verity) protect(l Ledger, dir int, name, path string, want composefs.Digest) error {
	f, err := openAt(l, path, dir, name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.close()
	arg := enableArg{version: verityVersion, algorithm: veritySHA256, blockSize: verityBlock}
	if err := ioctl(f.fd, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg)); err != nil {
		return &VerityError{path, err}
	}
	got, err := measure(f.fd)
	switch {
	case err != nil:
		return &VerityError{path, err}
	case got != want:
		return &ReadBackError{Path: path, Reason: fmt.Sprintf("the kernel's fs-verity digest is %s, and the digest of what was written is %s", got, want)}
	}
	return f.close()
}

// ErrNoVerity says that a file has no fs-verity with the parameters of libostree.
var ErrNoVerity = errors.New("it has no fs-verity by SHA-256")

// Measure returns the kernel's fs-verity digest of an open file, or [ErrNoVerity].
func Measure(f *os.File) (composefs.Digest, error) {
	defer runtime.KeepAlive(f)
	return measure(int(f.Fd()))
}

func measure(fd int) (d composefs.Digest, err error) {
	var out struct {
		algorithm, size uint16
		digest          composefs.Digest
	}
	out.size = uint16(len(out.digest))
	err = ioctl(fd, unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&out))
	switch {
	case err == unix.ENODATA || err == unix.EOVERFLOW || err == nil && (out.algorithm != veritySHA256 || int(out.size) != len(d)):
		return d, ErrNoVerity
	case err != nil:
		return d, fmt.Errorf("asking for the fs-verity digest: %w", err)
	}
	return out.digest, nil
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// digestOf returns the fs-verity digest of bytes in memory.
func digestOf(data []byte) composefs.Digest {
	h := composefs.NewHash()
	h.Write(data)
	return composefs.Digest(h.Sum(nil))
}

// Verity returns the fs-verity digest of a file object, and reports whether the object has
// fs-verity. The digest of one that has none is computed from its content.
func (r *Repo) Verity(c Checksum) (d composefs.Digest, protected bool, err error) {
	if d, ok := r.writer.verity.known.Load(c); ok {
		return d.(composefs.Digest), true, nil
	}
	err = r.ReadContent(c, func(_ FileHeader, _ int64, content io.Reader) (err error) {
		if fd, ok := content.(fdReader); ok {
			if d, err = measure(int(fd)); err == nil {
				protected = true
				return nil
			}
		}
		h := composefs.NewHash()
		if _, err := io.Copy(h, content); err != nil {
			return err
		}
		d = composefs.Digest(h.Sum(nil))
		return nil
	})
	return d, protected, err
}

// markProtected enables fs-verity on the configuration, by which bootc knows that all file objects
// have it.
func (r *Repo) markProtected() error {
	data, err := r.config.encode()
	if err != nil {
		return err
	}
	return r.writer.verity.protect(r.folders.ledger, r.folders.repo.fd, "config", repoPath+"/config", digestOf(data))
}

// Protect enables fs-verity on a finished file of the repository's file system, if its objects have
// it. digest is that of the file's content, dir and name are where it is, and path names it in
// errors.
func (r *Repo) Protect(dir int, name, path string, digest composefs.Digest) error {
	if !r.config.Verity {
		return nil
	}
	if err := r.gate.enter(); err != nil {
		return err
	}
	defer r.gate.leave()
	return r.writer.verity.protect(r.folders.ledger, dir, name, path, digest)
}
