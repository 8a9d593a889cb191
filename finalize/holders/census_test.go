package holders

import (
	"slices"
	"testing"

	"installer/disk/mounts"
	"installer/finalize/kernel"
)

// TestCensus has tables of every kind: a copy of a mount uses no file, and keeps the superblock.
func TestCensus(t *testing.T) {
	own := placed{mounts.Namespace{Own: true}, mounts.Mount{ID: 5, Point: "/mnt"}}
	other := placed{mounts.Namespace{Inode: 7}, mounts.Mount{ID: 6, Unique: 60, Point: "/mnt"}}
	idle := []kernel.Mount{{ID: 5, Unique: 50, Namespace: 3}, {ID: 6, Unique: 60, Namespace: 7}}
	with := func(m kernel.Mount) []kernel.Mount { return append(slices.Clone(idle), m) }
	for name, c := range map[string]struct {
		super            kernel.Superblock
		uses, references []string
	}{
		"idle":                 {kernel.Superblock{Mounts: idle}, nil, nil},
		"used here":            {kernel.Superblock{Mounts: []kernel.Mount{{ID: 5, Uses: 2}}}, []string{"2 to the mount on /mnt"}, []string{"2 to the mount on /mnt"}},
		"used there":           {kernel.Superblock{Mounts: []kernel.Mount{{ID: 9, Unique: 60, Uses: 1}}}, []string{"1 to the mount on /mnt in mnt:[7]"}, []string{"1 to the mount on /mnt in mnt:[7]"}},
		"a reused id":          {kernel.Superblock{Mounts: []kernel.Mount{{ID: 6, Unique: 61}}}, []string{"mount 6, which is in no mount namespace"}, []string{"mount 6, which is in no mount namespace"}},
		"an overlay's":         {kernel.Superblock{Mounts: with(kernel.Mount{ID: 8})}, []string{"mount 8, which is in no mount namespace"}, []string{"mount 8, which is in no mount namespace"}},
		"out of sight":         {kernel.Superblock{Mounts: with(kernel.Mount{ID: 8, Namespace: 9})}, nil, []string{"mount 8 in mnt:[9]"}},
		"goes along":           {kernel.Superblock{Mounts: with(kernel.Mount{ID: 8, Namespace: 9, Follows: true})}, nil, nil},
		"used out of sight":    {kernel.Superblock{Mounts: with(kernel.Mount{ID: 8, Namespace: 9, Uses: 1})}, []string{"1 to mount 8 in mnt:[9]"}, []string{"1 to mount 8 in mnt:[9]", "mount 8 in mnt:[9]"}},
		"frozen, or a context": {kernel.Superblock{Mounts: idle, Others: 1}, []string{"1 to the superblock itself"}, []string{"1 to the superblock itself"}},
	} {
		x := census{c.super, []placed{own, other}}
		if uses, references := x.uses(), x.references(); !slices.Equal(uses, c.uses) || !slices.Equal(references, c.references) {
			t.Errorf("%s: uses %q, references %q", name, uses, references)
		}
	}
}
