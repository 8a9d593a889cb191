package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"

	"installer/rootfs/bootable"
	"installer/rootfs/image"
	"installer/rootfs/label"
)

// Policy is the SELinux policy that an image brings.
type Policy struct {
	*label.Policy
	Checksum string // SHA-256 of the binary policy, in hex
}

// lookAt has the scan look at the kernel, at programs, and at the binary SELinux policy.
func lookAt(name string, mode uint32) func(io.Reader) (any, error) {
	if label.IsBinary(name) {
		return func(content io.Reader) (any, error) {
			h := sha256.New()
			_, err := io.Copy(h, content)
			return policySum(hex.EncodeToString(h.Sum(nil))), err
		}
	}
	return bootable.Looker(name, mode)
}

// policySum is the checksum of a binary policy.
type policySum string

// Label gives the files of a scanned image the labels of its own SELinux policy. It returns nil for
// an image without one.
func (s *Source) Label(inv *image.Inventory) (*Policy, error) {
	p, err := label.Load(inv.FS())
	if missing := (*label.MissingError)(nil); errors.As(err, &missing) {
		s.log.Note("the image is installed without labels: %v; its system must start with selinux=0 (--disable-selinux)", missing)
		return nil, nil
	}
	if fault := (*label.Error)(nil); errors.As(err, &fault) {
		return nil, &image.SourceError{Ref: s.o.Ref.String(), Entry: fault.File, Err: err}
	}
	if p == nil || err != nil {
		return nil, err
	}
	stored, objects := inv.Stored, inv.Objects
	inv.Relabel(p.Of)
	if s.o.Survey != nil && inv.Bound { // the figures are those of labelled files
		inv.Stored, inv.Objects = stored, objects
	}
	sum, _ := inv.Seen(p.Binary).(policySum)
	return &Policy{Policy: p, Checksum: string(sum)}, nil
}
