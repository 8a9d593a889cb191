package holders

import "fmt"

// fsContext names an fs context. It may hold a superblock with no mount of it left; the kernel does
// not show of which file system it is, so that it is a suspect at most: when its process is where
// it could have reached the target.
func (w *walker) fsContext(t task, fd int, _ fdInfo) {
	if w.target.canReach(t) {
		w.record.hit(t, Holder{Class: FSContext, Suspect: true, Path: "anon_inode:[fscontext]",
			Evidence: fmt.Sprintf("%s/fd/%d -> anon_inode:[fscontext] (the kernel does not show of which file system)", t.path(), fd),
			Remedy:   "close this file descriptor, or end the process, if it was made for the target"})
	}
}

// canReach reports whether a task is in a namespace with a mount of the target. When there is none
// any more, it may have been in one.
func (c *comparison) canReach(t task) bool {
	if len(c.scan.holding) == 0 {
		return true
	}
	link, err := readLink(t.dir, "ns/mnt")
	if err != nil {
		return true // it cannot be excluded
	}
	inode, _ := namespaceInode(link)
	return c.scan.holding[inode]
}
