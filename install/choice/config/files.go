package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// installDirs are where install configurations lie, later ones over earlier.
var installDirs = []string{"usr/lib/bootc/install", "usr/local/lib/bootc/install", "etc/bootc/install", "run/bootc/install"}

// KargsDir is where an image has its kernel arguments.
const KargsDir = "usr/lib/bootc/kargs.d"

// ImageFiles lists the directories of an image whose files Load and LoadKargs read, as paths of a
// deployed tree, where /etc is usr/etc.
func ImageFiles() []string {
	return []string{KargsDir, "usr/lib/bootc/install", "usr/local/lib/bootc/install", "usr/etc/bootc/install"}
}

// FileError is a configuration file that cannot be used.
type FileError struct {
	Path string // in its file system
	Err  error
}

func (e *FileError) Error() string { return fmt.Sprintf("/%s: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// Loaded is a merged configuration and where it came from.
type Loaded struct {
	Config
	Files []string // that were read, in the order in which they were merged
	Notes []string // on settings without a meaning here, such as unknown keys
}

// Load reads and merges the install configuration of file systems, each with the directories of a
// root, later ones over earlier. As with systemd's drop-ins, files are merged in the order of their
// names wherever they lie; of files of one name the last counts alone, and a link to /dev/null
// hides those before it. arch is Go's name of the architecture.
func Load(arch string, roots ...fs.FS) (*Loaded, error) {
	files, err := fragments(roots)
	if err != nil {
		return nil, err
	}
	l := &Loaded{}
	var merged *Config
	for _, f := range files {
		c, err := l.read(f)
		if err != nil {
			return nil, &FileError{f.path, err}
		}
		if c == nil || !l.matches(f, c.MatchArchitectures, arch) {
			continue
		}
		if merged == nil {
			merged = c
			continue
		}
		merged.merge(c)
	}
	if merged != nil {
		merged.canonicalize()
		l.Config = *merged
	}
	return l, nil
}

// fragment is one file of a drop-in directory.
type fragment struct {
	fsys fs.FS
	path string
}

func (f fragment) name() string { return path.Base(f.path) }

// fragments finds the files that count, in the order of their names.
func fragments(roots []fs.FS) ([]fragment, error) {
	found := map[string]fragment{}
	for _, fsys := range roots {
		for _, dir := range installDirs {
			list, masked, err := dropIns(fsys, dir)
			if err != nil {
				return nil, err
			}
			for _, f := range list {
				found[f.name()] = f
			}
			for _, name := range masked {
				delete(found, name)
			}
		}
	}
	files := make([]fragment, 0, len(found))
	for _, f := range found {
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b fragment) int { return strings.Compare(a.name(), b.name()) })
	return files, nil
}

// dropIns lists the .toml files of one directory, which need not exist, and the names that are
// linked to /dev/null there.
func dropIns(fsys fs.FS, dir string) (files []fragment, masked []string, err error) {
	entries, err := fs.ReadDir(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, &FileError{dir, err}
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if path.Ext(name) != ".toml" || strings.HasPrefix(e.Name(), ".") || e.IsDir() {
			continue
		}
		if e.Type() == fs.ModeSymlink {
			if to, err := fs.ReadLink(fsys, name); err == nil && path.Clean(to) == "/dev/null" {
				masked = append(masked, e.Name())
				continue
			}
		}
		files = append(files, fragment{fsys, name})
	}
	return files, masked, nil
}

// read decodes one file; a file without the table [install] is nil.
func (l *Loaded) read(f fragment) (*Config, error) {
	var top struct {
		Install *Config `toml:"install"`
	}
	if err := l.decode(f, &top); err != nil || top.Install == nil {
		return nil, err
	}
	c := top.Install
	if c.MatchArchitectures == nil {
		c.MatchArchitectures = c.MatchArchitecturesUS
	}
	return c, c.check()
}

// decode reads a file and notes the keys that v has no place for.
func (l *Loaded) decode(f fragment, v any) error {
	l.Files = append(l.Files, "/"+f.path)
	data, err := readSmall(f.fsys, f.path)
	if err != nil {
		return err
	}
	meta, err := toml.Decode(string(data), v)
	if err != nil {
		return err
	}
	for _, key := range meta.Undecoded() {
		l.note(f, "unknown key %s is ignored", key)
	}
	return nil
}

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// readSmall reads a regular file, or one that a link leads to. A pipe would never end, nor perhaps
// begin.
func readSmall(fsys fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("it is no regular file (%s)", info.Mode().Type())
	case info.Size() > maxFile:
		return nil, fmt.Errorf("it has %d bytes, and a configuration file has at most %d", info.Size(), maxFile)
	}
	return fs.ReadFile(fsys, name)
}

func (l *Loaded) note(f fragment, format string, args ...any) {
	l.Notes = append(l.Notes, "/"+f.path+": "+fmt.Sprintf(format, args...))
}
