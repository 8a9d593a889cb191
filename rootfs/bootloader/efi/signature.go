package efi

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	_ "crypto/sha512" // of digests
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/smallstep/pkcs7"
)

// ErrUnsigned is the error of a program without a signature.
var ErrUnsigned = errors.New("it is not signed")

// ErrChanged is the error of a program that differs from the one that was signed.
var ErrChanged = errors.New("it was changed after it was signed: its digest is not the signed one")

// UntrustedError reports a program that none of the trusted certificates signed.
type UntrustedError struct {
	Signers []string // subjects of the certificates that signed
	Trusted []string // subjects or fingerprints of the certificates that had to
}

func (e *UntrustedError) Error() string {
	return fmt.Sprintf("it is signed by %s, which does not lead to %s",
		strings.Join(e.Signers, " and "), strings.Join(e.Trusted, " or "))
}

// Trust is a set of certificates that a signature has to lead to.
type Trust struct {
	Certificates []*x509.Certificate
	Pins         []Pin // certificates that a signature brings along itself
}

// Pin names a certificate by its SHA-256.
type Pin struct {
	Name   string
	SHA256 [sha256.Size]byte
}

func (t Trust) has(c *x509.Certificate) bool {
	sum := sha256.Sum256(c.Raw)
	return slices.ContainsFunc(t.Certificates, c.Equal) ||
		slices.ContainsFunc(t.Pins, func(p Pin) bool { return p.SHA256 == sum })
}

func (t Trust) names() []string {
	var names []string
	for _, c := range t.Certificates {
		names = append(names, subject(c))
	}
	for _, p := range t.Pins {
		names = append(names, p.Name)
	}
	return names
}

// subject names a certificate, for messages.
func subject(c *x509.Certificate) string {
	if c.Subject.CommonName != "" {
		return fmt.Sprintf("%q", c.Subject.CommonName)
	}
	return fmt.Sprintf("%q", c.Subject.String())
}

// signature is one signature of a program.
type signature struct {
	message *pkcs7.PKCS7
	hash    crypto.Hash
	digest  []byte // of the program that was signed
	matches bool   // the program has that digest
}

// Types and revisions of a WIN_CERTIFICATE, UEFI specification 2.10 section 32.2.4.
const (
	certificateHeader = 8
	pkcsSignedData    = 0x0002
)

// signatures returns the signatures of the program, of which there may be several.
func (p *program) signatures() ([]signature, error) {
	var found []signature
	for rest := p.data[uint32(len(p.data))-p.table.Size:]; len(rest) > 0; {
		if len(rest) < certificateHeader {
			return nil, fmt.Errorf("a damaged table of signatures: %d bytes at its end", len(rest))
		}
		size, kind := binary.LittleEndian.Uint32(rest), binary.LittleEndian.Uint16(rest[6:])
		if size < certificateHeader || uint64(size) > uint64(len(rest)) {
			return nil, fmt.Errorf("a damaged table of signatures: one of %d bytes in %d", size, len(rest))
		}
		if kind == pkcsSignedData {
			s, err := parseSignature(bytes.Clone(rest[certificateHeader:size]))
			if err != nil {
				return nil, fmt.Errorf("reading signature %d: %w", len(found)+1, err)
			}
			s.matches = bytes.Equal(s.digest, p.digest(s.hash))
			found = append(found, s)
		}
		rest = rest[min(uint64(len(rest)), (uint64(size)+7)&^7):]
	}
	return found, nil
}

// digestInfo is the second part of the signed content of Authenticode, a DigestInfo of PKCS#7.
type digestInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Digest    []byte
}

// parseSignature reads a PKCS#7 message, which padding may follow.
func parseSignature(data []byte) (signature, error) {
	var der asn1.RawValue
	if _, err := asn1.Unmarshal(data, &der); err != nil {
		return signature{}, err
	}
	message, err := pkcs7.Parse(der.FullBytes)
	if err != nil {
		return signature{}, err
	}
	var kind asn1.RawValue
	var info digestInfo
	rest, err := asn1.Unmarshal(message.Content, &kind)
	if err == nil {
		_, err = asn1.Unmarshal(rest, &info)
	}
	if err != nil {
		return signature{}, fmt.Errorf("the signed content is not of Authenticode: %w", err)
	}
	for _, h := range []struct {
		id   asn1.ObjectIdentifier
		hash crypto.Hash
	}{
		{pkcs7.OIDDigestAlgorithmSHA256, crypto.SHA256},
		{pkcs7.OIDDigestAlgorithmSHA384, crypto.SHA384},
		{pkcs7.OIDDigestAlgorithmSHA512, crypto.SHA512},
	} {
		if info.Algorithm.Algorithm.Equal(h.id) {
			return signature{message: message, hash: h.hash, digest: info.Digest}, nil
		}
	}
	return signature{}, fmt.Errorf("the digest's algorithm %s is not known", info.Algorithm.Algorithm)
}

// Verify checks the program's signatures, and returns for each that leads to a trusted certificate
// the certificates from the signer to the trusted one. As firmware does, it passes over the dates
// of certificates. The error is [ErrUnsigned], [ErrChanged], an [*UntrustedError], or of a damaged
// signature.
func (i *Image) Verify(trusted Trust) ([][]*x509.Certificate, error) {
	if len(i.signatures) == 0 {
		return nil, ErrUnsigned
	}
	untrusted := &UntrustedError{Trusted: trusted.names()}
	var chains [][]*x509.Certificate
	for n, s := range i.signatures {
		if !s.matches {
			return nil, ErrChanged
		}
		signer := s.message.GetOnlySigner()
		if signer == nil {
			return nil, fmt.Errorf("signature %d has %d signers, or no certificate of its signer", n+1, len(s.message.Signers))
		}
		if err := s.message.Verify(); err != nil {
			return nil, fmt.Errorf("checking signature %d by %s: %w", n+1, subject(signer), err)
		}
		if chain := path(signer, s.message.Certificates, trusted, nil); chain != nil {
			chains = append(chains, chain)
		}
		untrusted.Signers = append(untrusted.Signers, subject(signer))
	}
	if chains == nil {
		return nil, untrusted
	}
	return chains, nil
}

// maxChain is the most certificates in a row that are followed.
const maxChain = 8

// path returns the certificates from c to a trusted one, each signed by the next, nil if there are
// none. It is not x509's Verify, which minds the dates of certificates.
func path(c *x509.Certificate, others []*x509.Certificate, trusted Trust, before []*x509.Certificate) []*x509.Certificate {
	chain := append(slices.Clone(before), c)
	if trusted.has(c) {
		return chain
	}
	if len(chain) == maxChain {
		return nil
	}
	for _, issuer := range slices.Concat(trusted.Certificates, others) {
		if !bytes.Equal(issuer.RawSubject, c.RawIssuer) || slices.ContainsFunc(chain, issuer.Equal) || c.CheckSignatureFrom(issuer) != nil {
			continue
		}
		if found := path(issuer, others, trusted, chain); found != nil {
			return found
		}
	}
	return nil
}
