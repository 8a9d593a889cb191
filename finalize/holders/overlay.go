package holders

import (
	"context"
	"fmt"
	"strings"

	"installer/disk/block"
)

// findOverlays finds overlays with a layer on the target. The overlay has a device of its own, and
// its clones of the layers' mounts are in no list: its options are all that shows them, as they
// were written when it was mounted.
func findOverlays(_ context.Context, s *scan) error {
	for ns, m := range s.snapshot.All {
		if m.FSType != "overlay" || s.own[m.ID] {
			continue
		}
		for _, dir := range overlayDirs(m.SuperOptions) {
			if s.pathInNamespace(ns, dir) {
				s.add(Holder{Class: Overlay, Path: m.Point, Namespace: namespaceName(ns),
					Evidence: fmt.Sprintf("layer %s; mountinfo: %s", dir, m.Line()),
					Remedy:   fmt.Sprintf("unmount the overlay at %s%s first", m.Point, inNamespace(ns))})
				break
			}
		}
	}
	return nil
}

// overlayDirs returns the absolute directories among an overlay's options, see the kernel's
// documentation of overlayfs. Blanks and the like are escaped in octal, and colons within a name by
// a backslash.
func overlayDirs(options string) []string {
	var dirs []string
	for option := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir":
			dirs = append(dirs, splitLayers(block.Unescape(value))...)
		}
	}
	return dirs
}

func splitLayers(value string) []string {
	var dirs []string
	var dir strings.Builder
	flush := func() {
		if strings.HasPrefix(dir.String(), "/") {
			dirs = append(dirs, dir.String())
		}
		dir.Reset()
	}
	for i := 0; i < len(value); i++ {
		switch {
		case value[i] == '\\' && i+1 < len(value):
			i++
			dir.WriteByte(value[i])
		case value[i] == ':':
			flush()
		default:
			dir.WriteByte(value[i])
		}
	}
	flush()
	return dirs
}

// findFileImages finds file systems that are mounted straight from a file, with no loop device
// between: the source is the file.
func findFileImages(_ context.Context, s *scan) error {
	for ns, m := range s.snapshot.All {
		if m.FSType != "erofs" || m.Dev.Major != 0 || !strings.HasPrefix(m.Source, "/") {
			continue
		}
		if s.pathInNamespace(ns, m.Source) {
			s.add(Holder{Class: FileImage, Path: m.Source, Namespace: namespaceName(ns),
				Evidence: "mountinfo: " + m.Line(), Remedy: fmt.Sprintf("unmount %s%s", m.Point, inNamespace(ns))})
		}
	}
	return nil
}
