package system

import "testing"

func TestFstabWithBoot(t *testing.T) {
	for name, c := range map[string]struct{ old, want, replaced string }{
		"none":         {"", "UUID=1 /boot auto ro 0 0\n", ""},
		"others":       {"# /boot\nLABEL=x /home xfs defaults 0 0", "# /boot\nLABEL=x /home xfs defaults 0 0\nUUID=1 /boot auto ro 0 0\n", ""},
		"another boot": {"LABEL=b /boot/ ext4 rw 0 0\n\nx /bootx y\n", "\nx /bootx y\nUUID=1 /boot auto ro 0 0\n", "LABEL=b /boot/ ext4 rw 0 0"},
	} {
		if text, replaced := fstabWithBoot(c.old, "UUID=1"); text != c.want || replaced != c.replaced {
			t.Errorf("%s: %q and %q, want %q and %q", name, text, replaced, c.want, c.replaced)
		}
	}
}
