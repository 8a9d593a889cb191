package ostree

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// Checksum is the SHA-256 that names an object.
type Checksum [32]byte

// ParseChecksum reads 64 lower-case hexadecimal digits, the only spelling that the format allows.
func ParseChecksum(s string) (Checksum, error) {
	var c Checksum
	if !isHexName(s) {
		return c, fmt.Errorf("parsing checksum %.80q: want 64 lower-case hexadecimal digits", s)
	}
	_, err := hex.Decode(c[:], []byte(s))
	return c, err
}

func isHexName(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// String returns the 64 lower-case hexadecimal digits.
func (c Checksum) String() string { return hex.EncodeToString(c[:]) }

// IsZero reports whether c is the zero value, which stands for "none".
func (c Checksum) IsZero() bool { return c == Checksum{} }

func checksumFromBytes(b []byte) (Checksum, error) {
	var c Checksum
	if len(b) != len(c) {
		return c, formatErrorf("a checksum has %d bytes, want %d", len(b), len(c))
	}
	copy(c[:], b)
	return c, nil
}

// ObjectType is the kind of an object; its String is the file name's suffix.
type ObjectType uint8

// The object types of a bare repository. A commitmeta is detached metadata: it bears the checksum
// of its commit, not its own.
const (
	TypeFile ObjectType = iota + 1
	TypeDirTree
	TypeDirMeta
	TypeCommit
	TypeCommitMeta
)

// String returns the suffix of the object's file name, without the dot.
func (t ObjectType) String() string {
	switch t {
	case TypeFile:
		return "file"
	case TypeDirTree:
		return "dirtree"
	case TypeDirMeta:
		return "dirmeta"
	case TypeCommit:
		return "commit"
	case TypeCommitMeta:
		return "commitmeta"
	}
	return fmt.Sprintf("ObjectType(%d)", uint8(t))
}

func (t ObjectType) isMetadata() bool { return t > TypeFile && t <= TypeCommitMeta }

// objectKey identifies an object: contents of different types may be crafted to share a checksum,
// so the checksum alone is not enough.
type objectKey struct {
	sum Checksum
	typ ObjectType
}

const hexDigits = "0123456789abcdef"

// appendName appends the object's name inside its prefix folder, 62 digits, a dot and the type.
func (k objectKey) appendName(b []byte) []byte {
	for _, x := range k.sum[1:] {
		b = append(b, hexDigits[x>>4], hexDigits[x&15])
	}
	b = append(b, '.')
	return append(b, k.typ.String()...)
}

func (k objectKey) name() string { return string(k.appendName(make([]byte, 0, 80))) }

func prefixName(i byte) string { return string([]byte{hexDigits[i>>4], hexDigits[i&15]}) }

// ledgerName is the object's path relative to the physical root.
func (k objectKey) ledgerName() string {
	b := append(make([]byte, 0, 112), repoPath+"/objects/"...)
	b = append(b, hexDigits[k.sum[0]>>4], hexDigits[k.sum[0]&15], '/')
	return string(k.appendName(b))
}

// ContentPath returns the path of a file object relative to the folder of objects.
func ContentPath(c Checksum) string {
	b := append(make([]byte, 0, 80), hexDigits[c[0]>>4], hexDigits[c[0]&15], '/')
	return string(objectKey{c, TypeFile}.appendName(b))
}

// Sentinel errors, to be tested with errors.Is.
var (
	// ErrClosed is returned by every use of a repository or object after Close.
	ErrClosed = errors.New("already closed")
	// ErrNotFound says that an object or ref does not exist.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt says that an object does not have the checksum of its name, or is not in the
	// format's normal form.
	ErrCorrupt = errors.New("corrupt")
	// ErrExists is returned by Create where a repository stands already.
	ErrExists = errors.New("a repository exists already")
	// ErrLocked is returned by Lock when another process or handle holds the repository's lock.
	ErrLocked = errors.New("repository is locked by another process")
)

// ObjectError names the object that an error is about.
type ObjectError struct {
	Type     ObjectType
	Checksum Checksum
	Err      error
}

func (e *ObjectError) Error() string {
	return fmt.Sprintf("object %s.%s: %v", e.Checksum, e.Type, e.Err)
}

// Unwrap returns the cause.
func (e *ObjectError) Unwrap() error { return e.Err }

func (k objectKey) wrap(err error) error {
	if err == nil {
		return nil
	}
	return &ObjectError{Type: k.typ, Checksum: k.sum, Err: err}
}

// FormatError says how bytes differ from the format's normal form, or why a value cannot be stored
// in it. It is an ErrCorrupt.
type FormatError struct{ Reason string }

func (e *FormatError) Error() string { return e.Reason }

// Is makes a FormatError an ErrCorrupt.
func (e *FormatError) Is(target error) bool { return target == ErrCorrupt }

func formatErrorf(format string, args ...any) error {
	return &FormatError{Reason: fmt.Sprintf(format, args...)}
}

// FileTypeError refuses a file that the format cannot hold: a device, fifo or socket.
type FileTypeError struct{ Mode uint32 }

func (e *FileTypeError) Error() string {
	return fmt.Sprintf("mode %#o is neither a regular file nor a symbolic link; devices, fifos and sockets cannot be stored in a repository", e.Mode)
}

// SizeError says that content did not have the length it was announced with.
type SizeError struct {
	Want int64 // bytes announced
	Got  int64 // bytes seen; Want+1 stands for "more"
}

func (e *SizeError) Error() string {
	if e.Got > e.Want {
		return fmt.Sprintf("content is longer than the %d bytes announced", e.Want)
	}
	return fmt.Sprintf("content ends after %d of the %d bytes announced", e.Got, e.Want)
}

// Ledger accounts for open handles. Opened records that a handle is now held; released is called
// exactly once when it is given back. The kinds used here are "fd" (a descriptor), "map" (a mapping
// of an object's file), "lock" (the repository's lock) and "object" (an object handed out as a copy
// in memory, which pins nothing but must be closed all the same). Opened is called concurrently.
type Ledger interface {
	Opened(kind, name string) (released func())
}

type noLedger struct{}

func (noLedger) Opened(string, string) func() { return func() {} }
