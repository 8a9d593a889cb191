package block

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Number is a device number as sysfs, mountinfo, maps and locks show it. In mountinfo, a btrfs has
// the anonymous number of its superblock, which stat(2) does not return.
type Number struct {
	Major uint32
	Minor uint32
}

// String writes the number as mountinfo does: decimal, "major:minor".
func (n Number) String() string { return fmt.Sprintf("%d:%d", n.Major, n.Minor) }

// MarshalJSON writes the number as the string "major:minor".
func (n Number) MarshalJSON() ([]byte, error) { return json.Marshal(n.String()) }

// UnmarshalJSON reads the string "major:minor".
func (n *Number) UnmarshalJSON(b []byte) error {
	var s string
	err := json.Unmarshal(b, &s)
	if err != nil {
		return fmt.Errorf("reading a device number: %w", err)
	}
	*n, err = ParseNumber(s)
	return err
}

// ParseNumber reads "major:minor" in decimal.
func ParseNumber(s string) (Number, error) {
	major, minor, ok := strings.Cut(strings.TrimSpace(s), ":")
	a, errA := strconv.ParseUint(major, 10, 32)
	b, errB := strconv.ParseUint(minor, 10, 32)
	if !ok || errA != nil || errB != nil {
		return Number{}, fmt.Errorf("reading the device number %q: want MAJOR:MINOR", s)
	}
	return Number{uint32(a), uint32(b)}, nil
}

// Split returns the number that the kernel encodes as rdev.
func Split(rdev uint64) Number { return Number{unix.Major(rdev), unix.Minor(rdev)} }

// NumberOf returns the number of the block device that an absolute path leads to; false for every
// other path, and for one that cannot be looked at.
func NumberOf(path string) (Number, bool) {
	var st unix.Stat_t
	if !filepath.IsAbs(path) || unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Number{}, false
	}
	return Split(st.Rdev), true
}
