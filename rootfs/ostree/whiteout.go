package ostree

import (
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// QuotedWhiteout returns the name of the whiteout that a regular file of this name stands for: a
// character device 0:0 by which an overlay file system hides a file, and which a repository cannot
// hold. Systems that carry the storage of containers have them.
func QuotedWhiteout(name string) (whiteout string, quoted bool) {
	whiteout, quoted = strings.CutPrefix(name, ".ostree-wh.")
	return whiteout, quoted && whiteout != ""
}

// makeWhiteout makes a whiteout with the owner, mode and attributes of an object, unless that is a
// symbolic link.
func (o *objects) makeWhiteout(k objectKey, dir int, name string) (made bool, err error) {
	err = o.readContent(k, func(h FileHeader, _ int64, _ io.Reader) error {
		if made = !h.IsSymlink(); !made {
			return nil
		}
		mode := h.Mode & modePermMask
		if err := unix.Mknodat(dir, name, unix.S_IFCHR|mode, 0); err != nil {
			return fmt.Errorf("making the whiteout %q: %w", name, err)
		}
		if err := setLinkMetadata(dir, name, &h); err != nil {
			return err
		}
		if err := unix.Fchmodat(dir, name, mode, 0); err != nil { // the umask, and the change of owner
			return fmt.Errorf("setting mode %#o: %w", mode, err)
		}
		return nil
	})
	return made, err
}
