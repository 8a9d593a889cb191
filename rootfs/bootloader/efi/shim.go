package efi

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// Shim is the content of a shim by which it decides about the programs that it starts.
type Shim struct {
	Vendor Trust       // the distribution's certificates
	Level  Generations // of SBAT that shim sets by itself; nil in a shim without one
	denied denied
}

// denied is a list of revocations.
type denied struct {
	digests      [][]byte // SHA-256 of programs, by Authenticode
	certificates []*x509.Certificate
	bodies       [][]byte // SHA-256 of the signed part of certificates
}

// ErrNotShim is the error of a program that has no certificate for the programs that it starts.
var ErrNotShim = errors.New("it is not a shim: it has no section .vendor_cert")

// readShim reads the certificates, the revocations and the level of a shim.
func (p *program) readShim() (*Shim, error) {
	table := bytes.Clone(p.section(".vendor_cert"))
	if table == nil {
		return nil, ErrNotShim
	}
	authorized, err := part(table, 0, 8)
	if err != nil {
		return nil, err
	}
	deauthorized, err := part(table, 4, 12)
	if err != nil {
		return nil, err
	}
	shim := &Shim{}
	if shim.Vendor, err = vendor(authorized); err != nil {
		return nil, fmt.Errorf("reading shim's certificate: %w", err)
	}
	if shim.denied, err = parseLists(deauthorized); err != nil {
		return nil, fmt.Errorf("reading shim's list of revocations: %w", err)
	}
	if shim.Level, err = p.level(); err != nil {
		return nil, fmt.Errorf("reading shim's SBAT level: %w", err)
	}
	return shim, nil
}

// part returns the bytes of shim's certificate table whose size and offset stand at two places in
// it.
func part(table []byte, size, offset int) ([]byte, error) {
	const header = 16
	if len(table) < header {
		return nil, fmt.Errorf("reading shim's certificate table: it has %d bytes", len(table))
	}
	n, at := binary.LittleEndian.Uint32(table[size:]), binary.LittleEndian.Uint32(table[offset:])
	if uint64(at)+uint64(n) > uint64(len(table)) {
		return nil, fmt.Errorf("reading shim's certificate table: %d bytes at %d in %d", n, at, len(table))
	}
	return table[at:][:n], nil
}

// vendor reads one certificate, or signature lists of several.
func vendor(data []byte) (Trust, error) {
	if len(data) == 0 {
		return Trust{}, nil
	}
	if one, err := x509.ParseCertificate(data); err == nil {
		return Trust{Certificates: []*x509.Certificate{one}}, nil
	}
	lists, err := parseLists(data)
	if err != nil {
		return Trust{}, fmt.Errorf("neither a certificate nor signature lists: %w", err)
	}
	return Trust{Certificates: lists.certificates}, nil
}

// Types of signatures, UEFI specification 2.10 section 32.4.1.
var (
	listSHA256 = uuid.MustParse("c1c41626-504c-4092-aca9-41f936934328")
	listX509   = uuid.MustParse("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
	listBody   = uuid.MustParse("3bd2a492-96c0-4079-b420-fcf98ef103ed")
)

// parseLists reads signature lists (EFI_SIGNATURE_LIST), one after the other.
func parseLists(data []byte) (denied, error) {
	const header, owner = 28, 16
	var found denied
	for len(data) > 0 {
		if len(data) < header {
			return found, fmt.Errorf("%d bytes after the last signature list", len(data))
		}
		size := uint64(binary.LittleEndian.Uint32(data[16:]))
		extra := uint64(binary.LittleEndian.Uint32(data[20:]))
		each := uint64(binary.LittleEndian.Uint32(data[24:]))
		if size > uint64(len(data)) || header+extra > size || each <= owner {
			return found, fmt.Errorf("a signature list of %d bytes in %d, with entries of %d", size, len(data), each)
		}
		kind := listType(data)
		for rest := data[header+extra : size]; uint64(len(rest)) >= each; rest = rest[each:] {
			if err := found.add(kind, rest[owner:each]); err != nil {
				return found, err
			}
		}
		data = data[size:]
	}
	return found, nil
}

// listType returns the type at the beginning of a list: the first three fields of a GUID have the
// byte order of the machine.
func listType(data []byte) uuid.UUID {
	u := uuid.UUID(data[:16])
	slices.Reverse(u[0:4])
	slices.Reverse(u[4:6])
	slices.Reverse(u[6:8])
	return u
}

func (d *denied) add(kind uuid.UUID, entry []byte) error {
	switch kind {
	case listSHA256:
		d.digests = append(d.digests, entry)
	case listBody:
		d.bodies = append(d.bodies, entry[:min(len(entry), sha256.Size)])
	case listX509:
		c, err := x509.ParseCertificate(entry)
		if err != nil {
			return fmt.Errorf("a certificate in a signature list: %w", err)
		}
		d.certificates = append(d.certificates, c)
	default:
		return fmt.Errorf("a signature list of unknown type %s", kind)
	}
	return nil
}

// level reads the SBAT level that shim sets where none is set: the first of the two in its section.
func (p *program) level() (Generations, error) {
	data := p.section(".sbatlevel")
	if data == nil {
		return nil, nil
	}
	const version = 4 // bytes; offsets count from behind them
	if len(data) < version+8 || binary.LittleEndian.Uint32(data) != 0 {
		return nil, errors.New("the section .sbatlevel has a form that is not known")
	}
	at := uint64(binary.LittleEndian.Uint32(data[version:])) + version
	if at >= uint64(len(data)) {
		return nil, fmt.Errorf("the section .sbatlevel has %d bytes, and the level begins at %d", len(data), at)
	}
	return parseGenerations(data[at:])
}

// check reports whether the list has the program or a certificate that its signature leads over.
func (d denied) check(i *Image, chains [][]*x509.Certificate) error {
	if slices.ContainsFunc(d.digests, func(b []byte) bool { return bytes.Equal(b, i.digest) }) {
		return &RevokedError{Reason: "shim's list of revocations has its digest"}
	}
	for _, c := range slices.Concat(chains...) {
		sum := sha256.Sum256(c.RawTBSCertificate)
		if slices.ContainsFunc(d.certificates, c.Equal) ||
			slices.ContainsFunc(d.bodies, func(b []byte) bool { return bytes.Equal(b, sum[:]) }) {
			return &RevokedError{Reason: "shim's list of revocations has the certificate " + subject(c)}
		}
	}
	return nil
}
