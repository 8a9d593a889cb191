package kernel

import (
	"fmt"
	"strings"
)

// mostNames bounds the depth of a path.
const mostNames = 1024

// path returns the path of a directory entry from the root of its file system.
func (t *tables) path(entry uint64) (string, error) {
	hashed, err := t.value(entry, t.entry.hashed)
	if err != nil {
		return "", err
	}
	var names []string
	for at := entry; len(names) < mostNames; {
		parent, err := t.value(at, t.entry.parent)
		if err != nil {
			return "", err
		}
		if parent == at {
			path := "/" + strings.Join(names, "/")
			if hashed == 0 && len(names) > 0 {
				path += " (deleted)"
			}
			return path, nil
		}
		name, err := t.text(at, t.entry.name)
		if err != nil {
			return "", err
		}
		names, at = append([]string{name}, names...), parent
	}
	return "", fmt.Errorf("reading a path: %w", errChanged)
}

// text reads the text that a pointer leads to.
func (t *tables) text(at uint64, f field) (string, error) {
	text, err := t.memory.follow(at, f.offset)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for b.Len() < mostBlock {
		// eight bytes at a time: they are aligned, so that no page is read that has no part of it
		block, err := t.memory.bytes(text&^7, 8)
		if err != nil {
			return "", err
		}
		for _, c := range block[text&7:] {
			if c == 0 {
				return b.String(), nil
			}
			b.WriteByte(c)
		}
		text = text&^7 + 8
	}
	return b.String(), nil
}
