//go:build faults

package system

import "installer/rootfs/ostree"

// Repo returns the repository, for a fault to leak a part of it.
func (s *System) Repo() *ostree.Repo { return s.repo }
