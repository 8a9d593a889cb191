// Package size reads and writes numbers, of bytes and of things, as people do.
package size

import (
	"fmt"
	"math/big"
	"regexp"
	"strings"
)

// sizeUnits are the binary units of --root-size and of messages.
var sizeUnits = []struct {
	letter string
	bytes  int64
}{{"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}}

// block is the size of the largest blocks of disks, in bytes.
const block = 4096

// form is a number, which may have a fraction, and its unit.
var form = regexp.MustCompile(`^([0-9]{1,19}(?:\.[0-9]{1,19})?)(?:([KMGT])(?:IB|I|B)?)?$`)

// Parse reads a size: a number with one of the suffixes K, M, G, T (powers of 1024, in either case;
// "MiB" and the like are accepted), or a bare number of mebibytes, as bootc reads --root-size. It
// returns bytes; a fraction is cut to whole blocks of a disk.
func Parse(s string) (int64, error) {
	wrong := func(why string) error {
		return fmt.Errorf("size %q %s: want a positive number with the suffix K, M, G or T, such as 10G or 0.5G", s, why)
	}
	parts := form.FindStringSubmatch(strings.ToUpper(strings.TrimSpace(s)))
	if parts == nil {
		return 0, wrong("cannot be read")
	}
	unit := int64(1 << 20)
	for _, u := range sizeUnits {
		if u.letter == parts[2] {
			unit = u.bytes
		}
	}
	number, ok := new(big.Rat).SetString(parts[1])
	if !ok {
		return 0, wrong("cannot be read")
	}
	number.Mul(number, new(big.Rat).SetInt64(unit))
	bytes := new(big.Int).Quo(number.Num(), number.Denom())
	if bytes.BitLen() > 62 {
		return 0, wrong("is too large")
	}
	n := bytes.Int64()
	if strings.Contains(parts[1], ".") {
		n -= n % block
	}
	if n == 0 {
		return 0, wrong("is nothing")
	}
	return n, nil
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

// Count writes a number of things, whose name takes -s or -es in the plural: "1 fault", "2 faults",
// "3 processes".
func Count(n int, thing string) string {
	switch {
	case n == 1:
		return "1 " + thing
	case strings.HasSuffix(thing, "s"):
		return fmt.Sprintf("%d %ses", n, thing)
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
