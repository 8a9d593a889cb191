package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"installer/disk/block"

	"golang.org/x/sys/unix"
)

// deviceNode returns a path that leads to a device: the one in /dev if it is right, else one made
// in the private directory. It also returns the nodes that it made, for the caller to remove.
func (s *loopSet) deviceNode(name string, kind uint32, dev block.Number) (path string, made []string, err error) {
	path = filepath.Join(s.host.Dev, name)
	if isDevice(path, kind, dev) {
		return path, nil, nil
	}
	if s.nodeDir == "" {
		return "", nil, fmt.Errorf("%s is missing or is another device than %s, and no directory was given to make a node in", path, dev)
	}
	path = filepath.Join(s.nodeDir, name)
	err = unix.Mknod(path, kind|0o600, int(unix.Mkdev(dev.Major, dev.Minor)))
	if errors.Is(err, fs.ErrExist) && isDevice(path, kind, dev) {
		return path, nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("making device node %s for %s: %w", path, dev, err)
	}
	return path, []string{path}, nil
}

// isDevice reports whether a path is the device of a kind and number.
func isDevice(path string, kind uint32, dev block.Number) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == kind && block.Split(st.Rdev) == dev
}

// removeAll unlinks nodes that deviceNode made. A leftover harms nobody: the directory is private.
func removeAll(paths []string) {
	for _, p := range paths {
		os.Remove(p)
	}
}

// openers lists the mounts and processes that have a block device open, for a message.
func (h host) openers(dev block.Number) string {
	s := subject{nodes: []node{{dev: dev, name: dev.String()}}}
	var list []string
	if uses, err := h.mounts(s); err == nil {
		for _, u := range uses {
			list = append(list, "the kernel, "+u.Why)
		}
	}
	users, err := h.Openers(dev)
	if err != nil {
		return "programs that cannot be listed: " + err.Error()
	}
	for _, user := range users {
		list = append(list, user.String())
	}
	if len(list) == 0 {
		return "no process that /proc shows; the kernel, or a mount that cannot be seen, holds it"
	}
	return strings.Join(list, ", ")
}
