package efi

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// Program is one link of a chain.
type Program struct {
	Name  string // such as "shim", for messages
	Path  string // in the image or on the disk, for messages
	Image *Image // nil where Err is set
	Err   error  // for which there is no image, such as [ErrMissing]
}

// Chain is the programs that start each other under Secure Boot.
type Chain struct {
	Firmware Trust     // certificates that the firmware trusts
	Machine  uint16    // type of processor that all are for
	Shim     Program   // which the firmware starts
	Loaders  []Program // which shim starts: GRUB, MokManager, fallback
	Kernels  []Program // which a loader starts, and shim checks
}

// LinkError reports the first program of a chain that would not be started.
type LinkError struct {
	Program Program
	Err     error
}

func (e *LinkError) Error() string {
	if errors.Is(e.Err, ErrMissing) {
		return fmt.Sprintf("the Secure Boot chain lacks %s", e.Program.Name)
	}
	return fmt.Sprintf("the Secure Boot chain is broken at %s (%s): %v", e.Program.Name, e.Program.Path, e.Err)
}

// Unwrap returns the reason.
func (e *LinkError) Unwrap() error { return e.Err }

// ErrMissing is the error of a link that is not there.
var ErrMissing = errors.New("it is missing")

// ErrNoSBAT is the error of a program without the metadata that shim asks for.
var ErrNoSBAT = errors.New("it has no SBAT metadata, without which shim does not start it")

// MachineError reports a program for another type of processor.
type MachineError struct{ Has, Want uint16 }

func (e *MachineError) Error() string {
	return fmt.Sprintf("it is for machine type %#x instead of %#x", e.Has, e.Want)
}

// Verified is a chain that firmware starts.
type Verified struct {
	Authorities []*x509.Certificate // of the firmware, one for each signature of shim that leads to one
	Vendor      []*x509.Certificate // of the distribution, in shim
}

// Verify checks that the firmware starts the shim, and the shim all others. The error is a
// [*LinkError] for the first that it would not start.
func (c Chain) Verify() (*Verified, error) {
	chains, err := c.check(c.Shim, c.Firmware)
	if err != nil {
		return nil, &LinkError{c.Shim, err}
	}
	shim, err := c.Shim.Image.Shim()
	if err != nil {
		return nil, &LinkError{c.Shim, err}
	}
	if err := shim.allows(c.Shim.Image, chains, true); err != nil {
		return nil, &LinkError{c.Shim, err}
	}
	trusted := Trust{
		Certificates: slices.Concat(shim.Vendor.Certificates, c.Firmware.Certificates),
		Pins:         c.Firmware.Pins,
	}
	for n, p := range slices.Concat(c.Loaders, c.Kernels) {
		chains, err := c.check(p, trusted)
		if err == nil {
			err = shim.allows(p.Image, chains, n < len(c.Loaders))
		}
		if err != nil {
			return nil, &LinkError{p, err}
		}
	}
	verified := &Verified{Vendor: shim.Vendor.Certificates}
	for _, chain := range chains {
		verified.Authorities = append(verified.Authorities, chain[len(chain)-1])
	}
	return verified, nil
}

// check checks the form and the signatures of a link.
func (c Chain) check(p Program, trusted Trust) ([][]*x509.Certificate, error) {
	switch {
	case p.Err != nil:
		return nil, p.Err
	case p.Image == nil:
		return nil, ErrMissing
	case p.Image.Machine != c.Machine:
		return nil, &MachineError{p.Image.Machine, c.Machine}
	}
	return p.Image.Verify(trusted)
}

// allows checks a verified program by the shim's revocations. A program that shim starts itself
// must have SBAT metadata; a kernel, which it checks for a loader, need not.
func (s *Shim) allows(i *Image, chains [][]*x509.Certificate, started bool) error {
	if err := s.denied.check(i, chains); err != nil {
		return err
	}
	if i.sbatErr != nil {
		return i.sbatErr
	}
	if i.sbat == nil && started {
		return ErrNoSBAT
	}
	return i.sbat.check(s.Level)
}

// Microsoft is the authorities that machines are sold with. Both sign shims; a machine may trust
// one of them alone.
func Microsoft() Trust {
	return Trust{Pins: []Pin{
		pin("Microsoft Corporation UEFI CA 2011", "48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507"),
		pin("Microsoft UEFI CA 2023", "f6124e34125bee3fe6d79a574eaa7b91c0e7bd9d929c1a321178efd611dad901"),
	}}
}

func pin(name, sum string) Pin {
	p := Pin{Name: name}
	if n, err := hex.Decode(p.SHA256[:], []byte(sum)); err != nil || n != sha256.Size {
		panic("the fingerprint of " + name)
	}
	return p
}
