package holders

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"installer/finalize/mounts"
)

// findSwaps finds swap files on the target, and the target's own device in use as swap space.
func findSwaps(_ context.Context, s *scan) error {
	f, err := os.Open("/proc/swaps")
	if err != nil {
		s.cannot("swap", "/proc/swaps", err)
		return nil
	}
	defer f.Close()
	entries, err := parseSwaps(f)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if s.pathOnTarget(e.path) || (e.kind == "partition" && s.isBlock(e.path)) {
			s.add(Holder{Class: Swap, Path: e.path, Evidence: "/proc/swaps: " + e.line, Remedy: "swapoff " + e.path})
		}
	}
	return nil
}

// isBlock reports whether a path is a node of the target's block device.
func (s *scan) isBlock(path string) bool {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return false
	}
	return slices.Contains(s.target.Blocks, mounts.DevNum{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)})
}

type swapEntry struct{ path, kind, line string }

// parseSwaps reads /proc/swaps, see proc_swaps(5): a heading, then path and kind; blanks in the
// path are escaped in octal.
func parseSwaps(r io.Reader) ([]swapEntry, error) {
	var list []swapEntry
	lines := bufio.NewScanner(r)
	for first := true; lines.Scan(); first = false {
		fields := strings.Fields(lines.Text())
		if first || len(fields) == 0 {
			continue
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("reading /proc/swaps: line %q", lines.Text())
		}
		list = append(list, swapEntry{path: unescape(fields[0]), kind: fields[1], line: strings.Join(fields, " ")})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading /proc/swaps: %w", err)
	}
	return list, nil
}

// unescape undoes the kernel's octal escapes, such as \040 for a blank.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c, ok := octal(s[i:]); ok {
			b.WriteByte(c)
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(s string) (byte, bool) {
	if len(s) < 4 || s[0] != '\\' {
		return 0, false
	}
	value := 0
	for _, c := range []byte(s[1:4]) {
		if c < '0' || c > '7' {
			return 0, false
		}
		value = value*8 + int(c-'0')
	}
	return byte(value), value < 256
}
