package size

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const k, m, g = 1 << 10, 1 << 20, 1 << 30
	for text, want := range map[string]int64{
		"10G": 10 * g, "0.5G": g / 2, "1.5g": 3 * g / 2, "512": 512 * m, "0.5": m / 2, "100k": 100 * k, "3T": 3 << 40,
		"2GiB": 2 * g, "2Gi": 2 * g, "2GB": 2 * g, " 7M ": 7 * m, "0.3G": 322121728, "0.0625M": 64 * k, "2097152T": 1 << 61,
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "cannot be read", "G": "cannot be read", "-1G": "cannot be read", "+1G": "cannot be read", "1,5G": "cannot be read", "10P": "cannot be read", "0x10": "cannot be read",
		"1e3": "cannot be read", "10GG": "cannot be read", ".5G": "cannot be read", "5.G": "cannot be read", "512B": "cannot be read", "NaN": "cannot be read", "10 000": "cannot be read",
		"0": "is nothing", "0.0G": "is nothing", "0.3K": "is nothing", "4194304T": "too large", "9999999999999999999T": "too large",
	} {
		if got, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "such as 10G or 0.5G") {
			t.Errorf("%q: %d, %v, want %q", text, got, err, want)
		}
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 1536: "1.5 KiB", 10 << 30: "10.0 GiB", 3 << 40: "3.0 TiB"} {
		if got := Format(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 faults", 1: "1 fault", 2: "2 faults"} {
		if got := Count(n, "fault"); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	if got := Count(2, "process"); got != "2 processes" {
		t.Errorf("%q", got)
	}
}
