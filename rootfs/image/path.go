package image

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	maxName = 255  // NAME_MAX in <linux/limits.h>
	maxPath = 4095 // PATH_MAX without its final NUL
)

const (
	whiteoutPrefix = ".wh."         // OCI image specification, layer.md, "Whiteouts"
	opaqueMarker   = ".wh..wh..opq" // the same, "Opaque Whiteout"

	aufsPrefix = ".wh..wh." // of the names in which AUFS keeps its own records
	plnkDir    = ".wh..wh.plnk"
)

// splitPath takes a path of a layer apart: leading slashes, empty and "." components do not count.
// The root directory has no components.
func splitPath(path string) ([]string, error) {
	if err := checkText(path); err != nil {
		return nil, err
	}
	if len(path) > maxPath {
		return nil, fmt.Errorf("the path has %d bytes, more than the %d that Linux takes", len(path), maxPath)
	}
	parts := make([]string, 0, strings.Count(path, "/")+1)
	for part := range strings.SplitSeq(path, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return nil, errors.New(`the path has a ".." component`)
		case len(part) > maxName:
			return nil, fmt.Errorf("a path component has %d bytes, more than the %d that Linux takes", len(part), maxName)
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// checkText refuses text that a GVariant string, and so an OSTree object, cannot hold.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("the name is not valid UTF-8")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return errors.New("the name contains a NUL byte")
	}
	return nil
}

// isDropped reports whether an entry is left out: everything below the directories that a running
// system mounts over. The directories themselves are kept.
func isDropped(parts []string) bool {
	return len(parts) > 1 && isVolatile(parts[0])
}

func isVolatile(topLevel string) bool {
	switch topLevel {
	case "run", "tmp", "proc", "sys", "dev":
		return true
	}
	return false
}

// isAUFS reports whether an entry is a record of AUFS, or lies below one. Images have them that
// were built on it, and no container engine extracts them. The opaque marker is none.
func isAUFS(parts []string) bool {
	for i, name := range parts {
		if strings.HasPrefix(name, aufsPrefix) && (name != opaqueMarker || i < len(parts)-1) {
			return true
		}
	}
	return false
}

// whiteoutTarget returns the name that a whiteout file removes.
func whiteoutTarget(name string) (target string, is bool) {
	return strings.CutPrefix(name, whiteoutPrefix)
}

// checkWhiteoutName refuses a whiteout that would remove its own directory or the one above.
func checkWhiteoutName(name string) error {
	if target, is := whiteoutTarget(name); is && (target == "" || target == "." || target == "..") {
		return fmt.Errorf("%q is not the name of a whiteout", name)
	}
	return nil
}
