// Package label looks up SELinux labels, as libselinux does, in the policy that a tree has.
//
// It reads the policy's file contexts: which label a path gets, by its name and the type of its
// file. The binary policy, which the kernel loads, is only counted. Nothing here reads or writes a
// label of a file.
package label

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Attribute is the extended attribute that holds a file's label.
const Attribute = "security.selinux"

// Policy is the file contexts of one SELinux policy. Lookups may run concurrently.
type Policy struct {
	Name      string // SELINUXTYPE of the configuration, such as "targeted"
	Enforcing bool   // SELINUX of the configuration: enforcing, not permissive
	Version   int    // of the binary policy, which is policy.<Version>
	Binary    string // path of the binary policy in the tree

	contexts *contexts
}

// Patterns are the paths of a tree, as path.Match reads them, that [Load] reads.
func Patterns() []string {
	const files = "usr/etc/selinux/*/contexts/files/file_contexts"
	list := []string{"usr/etc/selinux/config", files}
	for _, s := range []string{suffixHomedirs, suffixLocal, suffixSubs, suffixSubsDist} {
		list = append(list, files+s)
	}
	return list
}

// IsBinary reports whether a path of a tree, or of a layer, is that of a binary policy.
func IsBinary(name string) bool {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	matched, err := path.Match("etc/selinux/*/policy/policy.*", strings.TrimPrefix(name, "usr/"))
	return err == nil && matched
}

// Error is a fault of a policy.
type Error struct {
	File string // of the tree
	Line int    // from 1; 0: no line of it
	Err  error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("SELinux policy: %s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("SELinux policy: %s, line %d: %v", e.File, e.Line, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// MissingError reports a tree whose configuration turns SELinux on, with a policy that is not there.
type MissingError struct{ Name string } // of the policy

// Error implements error.
func (e *MissingError) Error() string {
	return fmt.Sprintf("SELinux is on by the configuration, and the policy %s (SELINUXTYPE) is missing", e.Name)
}

// Load reads the policy of a tree. It returns nil for a tree whose configuration is missing or
// turns SELinux off. Faults of the policy are an [*Error], a policy that is missing altogether a
// [*MissingError].
func Load(tree fs.FS) (*Policy, error) {
	dir, err := configDir(tree)
	if err != nil || dir == "" {
		return nil, err
	}
	config := path.Join(dir, "config")
	text, err := fs.ReadFile(tree, config)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{File: config, Err: err}
	}
	p, on := parseConfig(string(text))
	if !on {
		return nil, nil
	}
	if p.Name != path.Base(p.Name) || strings.HasPrefix(p.Name, ".") || !fs.ValidPath(p.Name) {
		return nil, &Error{File: config, Err: fmt.Errorf("SELINUXTYPE=%s is not the name of a directory", p.Name)}
	}
	home := path.Join(dir, p.Name)
	if _, err := fs.Stat(tree, home); errors.Is(err, fs.ErrNotExist) {
		return nil, &MissingError{Name: p.Name}
	}
	if err := p.findBinary(tree, path.Join(home, "policy")); err != nil {
		return nil, err
	}
	p.contexts, err = loadContexts(tree, path.Join(home, "contexts/files/file_contexts"))
	if err != nil {
		return nil, err
	}
	return p, nil
}

// configDir returns the directory of the tree that configures SELinux, or "".
func configDir(tree fs.FS) (string, error) {
	for _, dir := range []string{"etc/selinux", "usr/etc/selinux"} {
		_, err := fs.Stat(tree, dir)
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", &Error{File: dir, Err: err}
		}
	}
	return "", nil
}

// parseConfig reads the file config; on is false where it does not turn SELinux on.
func parseConfig(text string) (p *Policy, on bool) {
	p = &Policy{Name: "targeted"} // libselinux's default
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if value, ok := strings.CutPrefix(line, "SELINUXTYPE="); ok {
			p.Name = strings.TrimSpace(value)
		} else if value, ok := strings.CutPrefix(line, "SELINUX="); ok {
			value = strings.ToLower(strings.TrimSpace(value))
			p.Enforcing = strings.HasPrefix(value, "enforcing")
			on = p.Enforcing || strings.HasPrefix(value, "permissive")
		}
	}
	return p, on
}

// findBinary finds the newest binary policy. A tree without one has no policy that a kernel could
// load, and libostree refuses it.
func (p *Policy) findBinary(tree fs.FS, dir string) error {
	entries, err := fs.ReadDir(tree, dir)
	if err != nil {
		return &Error{File: dir, Err: fmt.Errorf("looking for the binary policy of SELINUXTYPE=%s: %w", p.Name, err)}
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), "policy.")
		if v, err := strconv.Atoi(number); ok && err == nil && v > p.Version {
			p.Version, p.Binary = v, path.Join(dir, e.Name())
		}
	}
	if p.Version == 0 {
		return &Error{File: dir, Err: fmt.Errorf("SELINUXTYPE=%s has no binary policy (policy.<version>)", p.Name)}
	}
	return nil
}

// Of returns the label of an absolute path whose file has this mode, of which only the type counts;
// a mode of 0 stands for every type. There may be none, which is "". Like libostree it takes /proc
// for /mnt, since policies leave /proc to the kernel.
func (p *Policy) Of(name string, mode uint32) string {
	if name == "/proc" {
		name = "/mnt"
	}
	return p.contexts.lookup(name, mode)
}
