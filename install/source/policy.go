package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"

	"installer/rootfs/image"
	"installer/rootfs/label"
)

// Policy is the SELinux policy that an image brings.
type Policy struct {
	*label.Policy
	Checksum string // SHA-256 of the binary policy, in hex
}

// policySum is the checksum of a binary policy.
type policySum string

// sumPolicy has the scan add up a binary policy.
func sumPolicy(content io.Reader) (any, error) {
	h := sha256.New()
	_, err := io.Copy(h, content)
	return policySum(hex.EncodeToString(h.Sum(nil))), err
}

// Label gives the files of a scanned image the labels of its own SELinux policy. It returns nil for
// an image without one.
func (s *Source) Label(inv *image.Inventory) (*Policy, error) {
	p, err := s.policy(inv.FS())
	if missing := (*label.MissingError)(nil); errors.As(err, &missing) {
		s.log.Note("the image is installed without labels: %v; its system must start with selinux=0 (--disable-selinux)", missing)
		err = nil
	}
	if err != nil {
		return nil, err
	}
	before, err := s.basePolicy(inv)
	if err != nil || p == nil && before == nil {
		return nil, err
	}
	stored, objects := inv.Stored, inv.Objects
	inv.Relabel(of(p), of(before))
	if s.o.Survey != nil && inv.Bound { // the figures are those of labelled files
		inv.Stored, inv.Objects = stored, objects
	}
	if p == nil {
		return nil, nil
	}
	sum, _ := inv.Seen(p.Binary).(policySum)
	return &Policy{Policy: p, Checksum: string(sum)}, nil
}

// policy reads the policy of a tree, nil for none.
func (s *Source) policy(tree fs.FS) (*label.Policy, error) {
	p, err := label.Load(tree)
	if fault := (*label.Error)(nil); errors.As(err, &fault) {
		return nil, &image.SourceError{Ref: s.o.Ref.String(), Entry: fault.File, Err: err}
	}
	return p, err
}

// basePolicy reads the policy of the image's ostree commit. It is nil where that of the merged tree
// is the same.
func (s *Source) basePolicy(inv *image.Inventory) (*label.Policy, error) {
	if inv.Tree.Base == nil {
		return nil, nil
	}
	before := inv.Tree.Layers[0].Lookup("usr/etc/selinux")
	if before == nil || before == inv.Tree.Lookup("usr/etc/selinux") {
		return nil, nil
	}
	p, err := s.policy(inv.BaseFS())
	if errors.As(err, new(*label.MissingError)) {
		return nil, nil
	}
	return p, err
}

// of returns the labels of a policy, which may be nil.
func of(p *label.Policy) image.Labeller {
	if p == nil {
		return func(string, uint32) string { return "" }
	}
	return p.Of
}
