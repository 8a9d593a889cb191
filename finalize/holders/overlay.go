package holders

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"installer/disk/block"
	"installer/disk/mounts"
)

// findOverlays finds overlays with a layer on the target. The overlay has a device of its own, and
// its clones of the layers' mounts are in no list: its options show them, as they were written
// when it was mounted. Where these lead nowhere, the kernel's own table of the target's mounts says
// whether one of them is such a clone.
func findOverlays(ctx context.Context, s *scan) error {
	var others overlays
	for ns, m := range s.snapshot.All {
		if m.FSType != "overlay" || s.own[m.ID] {
			continue
		}
		layers, relative := overlayDirs(m.SuperOptions)
		at := slices.IndexFunc(layers, func(dir string) bool { return s.pathInNamespace(ns, dir) })
		switch {
		case at >= 0:
			s.add(Holder{Class: Overlay, Path: m.Point, Namespace: namespaceName(ns),
				Evidence: fmt.Sprintf("layer %s; mountinfo: %s", layers[at], m.Line()),
				Remedy:   fmt.Sprintf("unmount the overlay at %s%s first", m.Point, inNamespace(ns))})
		case relative:
			others = append(others, placed{ns, m})
		}
	}
	return others.find(ctx, s)
}

// overlays are those that name a layer by a path from a directory that nobody remembers.
type overlays []placed

// find finds out whether one of the overlays has a layer on the target. Which of several it is
// remains open.
func (o overlays) find(ctx context.Context, s *scan) error {
	if len(o) == 0 || slices.ContainsFunc(s.holders, func(h Holder) bool { return h.Class == DetachedMount || h.Class == Overlay }) {
		return nil // explained already, or as soon as that one is gone
	}
	seen := map[mounts.DevNum]bool{}
	for _, m := range s.snapshot.Own().Mounts {
		if seen[m.Dev] || !s.own[m.ID] || !s.target.onDevice(m.Dev) {
			continue
		}
		seen[m.Dev] = true
		c, err := takeCensus(ctx, s.snapshot, m)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.notSeen(Tables, "layers of the overlay on "+o[0].mount.Point, m.Point, err)
			continue
		}
		for _, hidden := range c.hidden() {
			if hidden.Namespace == 0 {
				s.add(o.holder(hidden.ID))
				break
			}
		}
	}
	return nil
}

func (o overlays) holder(mount int) Holder {
	first := o[0]
	h := Holder{Class: Overlay, Path: first.mount.Point, Namespace: namespaceName(first.ns),
		Evidence: fmt.Sprintf("the kernel's own table: mount %d of the file system is in no mount namespace; an overlay whose layer has a relative path: mountinfo: %s", mount, first.mount.Line()),
		Remedy:   fmt.Sprintf("unmount the overlay at %s%s first", first.mount.Point, inNamespace(first.ns))}
	if more := len(o) - 1; more > 0 {
		h.Evidence += fmt.Sprintf(" (or one of %d more)", more)
		h.Remedy = "unmount the overlay with a layer on it first: " + first.mount.Point + ", or another one with relative paths (findmnt -t overlay)"
	}
	return h
}

// overlayDirs returns the absolute directories among an overlay's options, and whether there are
// relative ones; see the kernel's documentation of overlayfs. Blanks and the like are escaped in
// octal, and colons within a name by a backslash.
func overlayDirs(options string) (absolute []string, relative bool) {
	for option := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir":
			for _, dir := range splitLayers(block.Unescape(value)) {
				if strings.HasPrefix(dir, "/") {
					absolute = append(absolute, dir)
				} else {
					relative = true
				}
			}
		}
	}
	return absolute, relative
}

// splitLayers splits a list of layers. Data layers come after an empty one.
func splitLayers(value string) []string {
	var dirs []string
	var dir strings.Builder
	flush := func() {
		if dir.Len() > 0 {
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
