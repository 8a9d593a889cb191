package efi

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Image holds the facts of an EFI program by which a chain is judged. It does not hold the program.
type Image struct {
	Machine uint16            // type of processor, Microsoft PE format section "Machine Types"
	Sum     [sha256.Size]byte // of the file

	digest     []byte // SHA-256 by Authenticode
	signatures []signature
	sbat       Generations
	sbatErr    error
	shim       *Shim
	shimErr    error
	grub       *GRUB
	grubErr    error
}

// GRUB returns the content of a GRUB.
func (i *Image) GRUB() (*GRUB, error) { return i.grub, i.grubErr }

// Shim returns the content of a shim.
func (i *Image) Shim() (*Shim, error) { return i.shim, i.shimErr }

// Parse reads an EFI program. The image does not keep data.
func Parse(data []byte) (*Image, error) {
	p, err := parse(data)
	if err != nil {
		return nil, err
	}
	return p.image()
}

// image reads the facts of a program.
func (p *program) image() (*Image, error) {
	i := &Image{Machine: p.file.Machine, Sum: sha256.Sum256(p.data), digest: p.digest(crypto.SHA256)}
	var err error
	if i.signatures, err = p.signatures(); err != nil {
		return nil, err
	}
	i.sbat, i.sbatErr = p.readSBAT()
	i.shim, i.shimErr = p.readShim()
	i.grub, i.grubErr = p.readGRUB()
	return i, nil
}

// Look reads a signed EFI program. err is that of the reader; the fault of a program that is not
// signed, or none, is in Program.Err.
func Look(content io.Reader) (p Program, err error) {
	data, err := readSigned(content)
	fault := (*contentError)(nil)
	switch {
	case errors.As(err, &fault):
		p.Err = fault.err
	case err != nil:
		return p, err
	default:
		parsed, err := parse(data)
		if err == nil {
			p.Image, err = parsed.image()
		}
		p.Err = err
	}
	return p, nil
}

// contentError is a fault of a program, not of its reader.
type contentError struct{ err error }

func (e *contentError) Error() string { return e.err.Error() }

// Bounds of programs, in bytes: the headers are at the beginning, and a kernel is the largest.
const (
	maxHeaders = 4 << 10
	maxProgram = 256 << 20
)

// readSigned reads a program whose headers say that it is signed, to its end.
func readSigned(content io.Reader) ([]byte, error) {
	head := make([]byte, maxHeaders)
	n, err := io.ReadFull(content, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	head = head[:n]
	size, err := signedSize(head)
	if err != nil {
		return nil, &contentError{err}
	}
	if size < uint64(n) {
		return nil, &contentError{fmt.Errorf("a damaged EFI program: its signatures end at %d, and it has more bytes", size)}
	}
	data := make([]byte, size)
	read, err := io.ReadFull(content, data[copy(data, head):])
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return nil, &contentError{fmt.Errorf("a damaged EFI program: its signatures end at %d, and it has %d bytes", size, n+read)}
	case err != nil:
		return nil, err
	}
	if more, err := io.CopyN(io.Discard, content, 1); err == nil && more > 0 {
		return nil, &contentError{fmt.Errorf("a damaged EFI program: its signatures end at %d, and it has more bytes", size)}
	} else if err != io.EOF {
		return nil, err
	}
	return data, nil
}

// signedSize returns the size of a signed program: its signatures are the end of the file. The
// error is [ErrUnsigned] if it has none.
func signedSize(head []byte) (uint64, error) {
	const optional, pe32, pe64 = 24, 0x10b, 0x20b // offset behind the signature of the header; its magic numbers
	le := binary.LittleEndian
	short := errors.New("not an EFI program: it has no headers")
	if !bytes.HasPrefix(head, []byte("MZ")) {
		return 0, errors.New("not an EFI program: it does not begin with MZ")
	}
	if len(head) < 0x40 {
		return 0, short
	}
	at := uint64(le.Uint32(head[0x3c:])) + optional
	if at+2 > uint64(len(head)) {
		return 0, short
	}
	directories := at + 112
	switch le.Uint16(head[at:]) {
	case pe64:
	case pe32:
		directories = at + 96
	default:
		return 0, short
	}
	entry := directories + pe.IMAGE_DIRECTORY_ENTRY_SECURITY*8
	if entry+8 > uint64(len(head)) {
		return 0, short
	}
	count := le.Uint32(head[directories-4:])
	size := le.Uint32(head[entry+4:])
	if count <= pe.IMAGE_DIRECTORY_ENTRY_SECURITY || size == 0 {
		return 0, ErrUnsigned
	}
	end := uint64(le.Uint32(head[entry:])) + uint64(size)
	if end > maxProgram {
		return 0, fmt.Errorf("it has more than %d bytes", maxProgram)
	}
	return end, nil
}
