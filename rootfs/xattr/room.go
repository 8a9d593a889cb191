package xattr

import (
	"fmt"
	"sort"
	"strings"
)

// Room is the space that a file system has for the attributes of one file.
type Room struct {
	fs    string
	block int // bytes of a block (ext4) or node (btrfs)
}

// RoomOf returns the room on a file system by the name of its type. block is the size of a block in
// bytes; 0 stands for the size that its mkfs chooses.
func RoomOf(fs string, block int) Room {
	switch {
	case fs == "btrfs":
		block = 16 << 10 // the size of a node, which no call returns: mkfs.btrfs(8)
	case block == 0:
		block = 4 << 10
	}
	return Room{fs: fs, block: block}
}

// Check reports why canonical attributes do not fit; nil if they do.
func (r Room) Check(attrs []Attr) error {
	list := 0
	for _, a := range attrs {
		list += len(a.Name) + 1
	}
	if list > maxList {
		return fmt.Errorf("the names of its %d extended attributes have %d bytes, and Linux lists %d", len(attrs), list, maxList)
	}
	switch r.fs {
	case "ext4":
		return r.checkExt4(attrs)
	case "btrfs":
		return r.checkBtrfs(attrs)
	case "xfs":
		return checkXFS(attrs)
	}
	return nil
}

// Shows reports why a regular file or link on the file system would show other attributes than
// these, with which its object has its name; nil if it shows them as they are.
func (r Room) Shows(mode uint32, attrs []Attr) error {
	shown, _, _, err := Canonical(mode, attrs)
	if err != nil {
		return err
	}
	if r.fs == "xfs" {
		shown = OnXFS(shown)
		sort.Slice(shown, func(i, j int) bool { return shown[i].Name < shown[j].Name })
	}
	for n := range max(len(shown), len(attrs)) {
		switch {
		case n >= len(shown) || n < len(attrs) && attrs[n].Name < shown[n].Name:
			return fmt.Errorf("a file on %s does not show its extended attribute %s; install on another file system", r.fs, quote(attrs[n].Name))
		case n >= len(attrs) || attrs[n].Name != shown[n].Name:
			return fmt.Errorf("a file on %s shows the extended attribute %s beside its own; install on another file system", r.fs, quote(shown[n].Name))
		case string(attrs[n].Value) != string(shown[n].Value):
			return fmt.Errorf("a file on %s shows its extended attribute %s with another value", r.fs, quote(attrs[n].Name))
		}
	}
	return nil
}

// checkExt4 demands that all attributes fit in the one block that ext4 has for them beside the
// inode (struct ext4_xattr_header and ext4_xattr_entry of the kernel's fs/ext4/xattr.h).
func (r Room) checkExt4(attrs []Attr) error {
	const header, entry, end = 32, 16, 4
	used := header + end
	for _, a := range attrs {
		_, name, _ := strings.Cut(a.Name, ".")
		value := len(a.Value)
		if a.Name == ACLAccess || a.Name == ACLDefault {
			name = "" // a number stands for all of it, and the list is not larger than here
		}
		used += entry + roundUp(len(name)) + roundUp(value)
	}
	if used > r.block {
		return fmt.Errorf("its extended attributes take %d bytes, and ext4 has one block of %d for them; install on xfs", used, r.block)
	}
	return nil
}

func roundUp(n int) int { return (n + 3) &^ 3 }

// checkBtrfs demands that each attribute fits in one node (BTRFS_MAX_XATTR_SIZE of the kernel's
// fs/btrfs/ctree.h).
func (r Room) checkBtrfs(attrs []Attr) error {
	const header, item, entry = 101, 25, 30
	most := r.block - header - item - entry
	for _, a := range attrs {
		if size := len(a.Name) + len(a.Value); size > most {
			return fmt.Errorf("extended attribute %s takes %d bytes, and btrfs has %d for it; install on xfs", quote(a.Name), size, most)
		}
	}
	return nil
}

// checkXFS demands that an access control list has no more entries than XFS keeps
// (XFS_ACL_MAX_ENTRIES of the kernel's fs/xfs/libxfs/xfs_format.h).
func checkXFS(attrs []Attr) error {
	const most = (maxValue - 4) / 12
	for _, a := range attrs {
		if a.Name != ACLAccess && a.Name != ACLDefault {
			continue
		}
		if n := (len(a.Value) - 4) / 8; n > most {
			return fmt.Errorf("its access control list has %d entries, and XFS keeps %d", n, most)
		}
	}
	return nil
}
