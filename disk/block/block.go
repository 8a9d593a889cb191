// Package block reads the kernel's accounts of block devices and of their users, in /sys and /proc:
// device numbers, attributes, swap spaces, loop devices, and the processes that have a device open.
// The survey of a disk before it is claimed and the search for holders both stand on it.
//
// Out of scope: mounts, and whether a use matters to the caller. Nothing is written, and no device
// is opened: opening a loop device would delay the automatic clearing that its owner counts on.
package block

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host holds the directories of the kernel's accounts, so that tests can hand in canned ones.
type Host struct{ Sys, Proc, Dev string }

// Live returns the host of the running kernel.
func Live() Host { return Host{Sys: "/sys", Proc: "/proc", Dev: "/dev"} }

// Attribute reads an attribute of sysfs without its newline.
func Attribute(dir, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSuffix(string(b), "\n"), err
}

// NumericAttribute reads a decimal attribute of sysfs.
func NumericAttribute(dir, name string) (int64, error) {
	s, err := Attribute(dir, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", filepath.Join(dir, name), err)
	}
	return n, nil
}

// Vanished reports whether err is that of an attribute which is gone, or going at this moment.
func Vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// Loop is a loop device that is attached.
type Loop struct {
	Name    string // the kernel's
	Dir     string // its directory in sysfs
	Backing string // path of its backing file, as the kernel shows it
}

// Attached reports whether the device is attached to the same backing file still.
func (l Loop) Attached() bool {
	now, err := Attribute(l.Dir, "loop/backing_file")
	return err == nil && now == l.Backing
}

// Loops lists the loop devices that are attached. The error names the first that could not be read;
// the list has the others.
func (h Host) Loops() ([]Loop, error) {
	files, err := filepath.Glob(filepath.Join(h.Sys, "block/loop*/loop/backing_file"))
	if err != nil {
		return nil, fmt.Errorf("listing loop devices: %w", err)
	}
	var loops []Loop
	var failed error
	for _, file := range files {
		dir := filepath.Dir(filepath.Dir(file))
		backing, err := Attribute(dir, "loop/backing_file")
		switch {
		case err == nil:
			loops = append(loops, Loop{Name: filepath.Base(dir), Dir: dir, Backing: backing})
		case !Vanished(err) && failed == nil:
			failed = fmt.Errorf("reading the backing file of a loop device: %w", err)
		}
	}
	return loops, failed
}

// Swap is a swap space in use.
type Swap struct {
	Path string
	Kind string // "partition" or "file"
	Line string // of /proc/swaps, with single blanks
}

// Swaps lists the swap spaces in use. A kernel without swap has no such file: [fs.ErrNotExist].
func (h Host) Swaps() ([]Swap, error) {
	text, err := os.ReadFile(filepath.Join(h.Proc, "swaps"))
	if err != nil {
		return nil, err
	}
	return ParseSwaps(string(text))
}

// ParseSwaps reads the text of /proc/swaps, see proc_swaps(5): a heading, then path and kind.
func ParseSwaps(text string) ([]Swap, error) {
	var list []Swap
	for i, line := range strings.Split(text, "\n") {
		fields := strings.Fields(line)
		if i == 0 || len(fields) == 0 {
			continue
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("reading /proc/swaps: line %q", line)
		}
		list = append(list, Swap{Path: Unescape(fields[0]), Kind: fields[1], Line: strings.Join(fields, " ")})
	}
	return list, nil
}

// Unescape undoes the kernel's octal escapes in a path, such as \040 for a blank.
func Unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
