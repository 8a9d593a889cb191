package kernel

// locked is MNT_LOCKED of linux/mount.h: such a mount goes with the one that it stands on alone.
const locked = 0x800000

// follows reports whether a mount goes when another one of its superblock is unmounted: it stands
// at the same place of a mount that receives from the other's, see mount_namespaces(7).
func (t *tables) follows(at, other uint64) (bool, error) {
	if at == other {
		return false, nil
	}
	for _, same := range []field{t.mount.root, t.mount.point} {
		here, err := t.value(at, same)
		if err != nil {
			return false, err
		}
		if there, err := t.value(other, same); err != nil || here != there {
			return false, err
		}
	}
	flags, err := t.value(at, t.mount.flags)
	if err != nil || flags&locked != 0 {
		return false, err
	}
	if children, err := t.list(at+t.mount.children.offset, t.mount.sibling.offset); err != nil || len(children) > 0 {
		return false, err
	}
	below, err := t.value(other, t.mount.parent)
	if err != nil {
		return false, err
	}
	group, err := t.value(below, t.mount.group)
	if err != nil || group == 0 {
		return false, err
	}
	carrier, err := t.value(at, t.mount.parent)
	if err != nil {
		return false, err
	}
	return t.receives(carrier, group)
}

// mostMasters bounds a chain of masters.
const mostMasters = 1024

// receives reports whether an event in a peer group reaches a mount: as a peer, or as a slave, over
// any number of groups between.
func (t *tables) receives(at, group uint64) (bool, error) {
	for range mostMasters {
		own, err := t.value(at, t.mount.group)
		if err != nil || own == group {
			return err == nil, err
		}
		if at, err = t.value(at, t.mount.master); err != nil || at == 0 {
			return false, err
		}
	}
	return false, errChanged
}
