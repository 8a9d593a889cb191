package config

import (
	"io/fs"
	"slices"
)

// architectures maps Go's names of architectures to those in configuration files, which are Rust's
// (std::env::consts::ARCH).
var architectures = map[string]string{
	"386": "x86", "amd64": "x86_64", "arm": "arm", "arm64": "aarch64", "loong64": "loongarch64",
	"ppc64": "powerpc64", "ppc64le": "powerpc64", "riscv64": "riscv64", "s390x": "s390x",
}

// matches reports whether a file is for an architecture; nil is for all. A name that is another
// system's is noted: it will never match.
func (l *Loaded) matches(f fragment, only []string, arch string) bool {
	for _, name := range only {
		if here, known := architectures[name]; known && here != name {
			l.note(f, "match-architectures has %q, which matches nothing: the name here is %q", name, here)
		}
	}
	return only == nil || slices.Contains(only, architectures[arch])
}

// LoadKargs reads the kernel arguments of an image from KargsDir: the files' in the order of their
// names. Kargs of the result has them, each entry with one or more arguments.
func LoadKargs(arch string, fsys fs.FS) (*Loaded, error) {
	files, _, err := dropIns(fsys, KargsDir)
	if err != nil {
		return nil, err
	}
	l := &Loaded{}
	for _, f := range files {
		var c struct {
			Kargs                []string `toml:"kargs"`
			MatchArchitectures   []string `toml:"match-architectures"`
			MatchArchitecturesUS []string `toml:"match_architectures"`
		}
		if err := l.decode(f, &c); err != nil {
			return nil, &FileError{f.path, err}
		}
		only := c.MatchArchitectures
		if only == nil {
			only = c.MatchArchitecturesUS
		}
		if c.Kargs == nil {
			l.note(f, "it has no kargs")
		}
		if l.matches(f, only, arch) {
			l.Kargs = append(l.Kargs, c.Kargs...)
		}
	}
	return l, nil
}
