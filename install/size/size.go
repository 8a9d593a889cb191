// Package size reads and writes numbers of bytes as people do.
package size

import (
	"fmt"
	"strconv"
	"strings"
)

// sizeUnits are the binary units of --root-size and of messages.
var sizeUnits = []struct {
	letter string
	bytes  int64
}{{"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}}

// Parse reads a size: a whole number with one of the suffixes K, M, G, T
// (powers of 1024; "MiB" and the like are accepted), or a bare number of
// mebibytes, as bootc reads --root-size. It returns bytes.
func Parse(s string) (int64, error) {
	number := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSpace(s), "B"), "i")
	unit := int64(1 << 20)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(number, u.letter); ok {
			number, unit = rest, u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > (1<<62)/unit {
		return 0, fmt.Errorf("size %q: want a positive number with the suffix M, G or T, such as 10G", s)
	}
	return n * unit, nil
}

// Format writes a number of bytes for a person.
func Format(n int64) string {
	for _, u := range sizeUnits {
		if n >= u.bytes {
			return fmt.Sprintf("%.1f %siB", float64(n)/float64(u.bytes), u.letter)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
