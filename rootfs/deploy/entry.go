package deploy

import (
	"path"
	"slices"
	"strings"
)

// bootEntry holds the values of the boot entry of a first deployment.
type bootEntry struct {
	title, version string // of the system; version may be ""
	kargs          []string
	ostree         string // value of the kernel argument ostree=
	initProgram    string // value of init=, for a system without initramfs; "" is none
	at             string // directory of the kernel's files as the entry names it, such as /boot/ostree/default-...
	kernel         KernelInfo
	devicetree     string // line of the device tree, "" is none
}

// arguments returns the kernel arguments: those that were given, in order, and ostree= in the place
// where it was given, or at the end.
func (e bootEntry) arguments() []string {
	kargs := slices.Clone(e.kargs)
	kargs = setArgument(kargs, "ostree=", e.ostree)
	if e.initProgram != "" {
		kargs = setArgument(kargs, "init=", e.initProgram)
	}
	return kargs
}

// setArgument puts key and value in place of the first argument with that key, takes out the
// others, or appends it.
func setArgument(kargs []string, key, value string) []string {
	done := false
	out := kargs[:0]
	for _, arg := range kargs {
		if !strings.HasPrefix(arg, key) {
			out = append(out, arg)
			continue
		}
		if !done {
			out = append(out, key+value)
			done = true
		}
	}
	if !done {
		out = append(out, key+value)
	}
	return out
}

// text renders the entry, its keys in ostree's order. The entry's own version is its number, by
// which ostree orders deployments.
func (e bootEntry) text() string {
	title := e.title
	if e.version != "" && !strings.Contains(title, e.version) {
		title += " " + e.version
	}
	lines := []string{
		"title " + title + " (ostree:0)",
		"version 1",
		"options " + strings.Join(e.arguments(), " "),
	}
	if e.devicetree != "" {
		lines = append(lines, e.devicetree)
	}
	lines = append(lines, "linux "+path.Join(e.at, e.kernel.VmlinuzPath))
	if e.kernel.InitramfsPath != "" {
		lines = append(lines, "initrd "+path.Join(e.at, e.kernel.InitramfsPath))
	}
	return strings.Join(lines, "\n") + "\n"
}
