package verify

import (
	"strings"
	"testing"
)

// FuzzEntry: no boot entry makes the reader panic, and no path of one leads out of /boot or of the
// links of ostree.
func FuzzEntry(f *testing.F) {
	sum := strings.Repeat("0123456789abcdef", 4)
	f.Add("ostree-1.conf", "title A\nversion 1\noptions root=UUID=x rw ostree=/ostree/boot.1/default/"+sum+"/0\n"+
		"linux /boot/ostree/default-"+sum+"/vmlinuz-6.1\ninitrd /boot/ostree/default-"+sum+"/initramfs-6.1.img\n")
	f.Add("ostree-2-default+3-1.conf", "options a=\"b c\" ostree=/ostree/boot.0/os/"+sum+"/12\nlinux /../../x\ndevicetree /a\n")
	f.Fuzz(func(t *testing.T, name, text string) {
		e, _ := parseEntry(name, text)
		for _, file := range e.files() {
			if p := bootPath(file); p != "" && (strings.HasPrefix(p, "/") || strings.HasPrefix(p+"/", "../") || strings.Contains(p, "/../")) {
				t.Errorf("%q leads to %q", file, p)
			}
		}
		if link, err := parseLink(e.options); err == nil && (!strings.HasPrefix(link.path(), "ostree/boot.") || strings.Contains(link.path(), "..")) {
			t.Errorf("the link is %q", link.path())
		}
	})
}
