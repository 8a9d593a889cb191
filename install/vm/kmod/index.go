package kmod

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// maxIndex bounds an index file, in bytes; those of distributions have a megabyte.
const maxIndex = 16 << 20

// Opener opens a file by its path in a kernel's directory of modules. The caller closes a reader
// that is an io.Closer.
type Opener func(name string) (io.Reader, error)

// Index knows the modules of one kernel.
type Index struct {
	files   map[string]string   // of a module
	needs   map[string][]string // files that must be loaded before a file, as modules.dep lists them: the nearest first
	builtin map[string]bool
	before  map[string][]string // names or aliases that a module wants loaded before it
	aliases map[string][]string // modules that go by another name; without patterns
}

// MissingError is a module that the kernel neither has built in nor brings along.
type MissingError struct{ Module string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("the kernel has no %s: it is neither built in (modules.builtin) nor among its modules (modules.dep)", e.Module)
}

// ReadIndex reads a kernel's indexes. modules.dep must be there: a kernel
// without modules has an empty one.
func ReadIndex(open Opener) (*Index, error) {
	x := &Index{
		files: map[string]string{}, needs: map[string][]string{}, builtin: map[string]bool{},
		before: map[string][]string{}, aliases: map[string][]string{},
	}
	for _, file := range []struct {
		name     string
		required bool
		line     func(fields []string)
	}{
		{"modules.dep", true, x.dependency},
		{"modules.builtin", false, func(f []string) { x.builtin[moduleName(f[0])] = true }},
		{"modules.softdep", false, x.softDependency},
		{"modules.alias", false, x.alias},
	} {
		err := eachLine(open, file.name, file.line)
		if err != nil && (file.required || !errors.Is(err, fs.ErrNotExist)) {
			return nil, fmt.Errorf("reading the index of kernel modules %s: %w", file.name, err)
		}
	}
	return x, nil
}

// eachLine calls fn with the words of every line that is no comment.
func eachLine(open Opener, name string, fn func(fields []string)) error {
	r, err := open(name)
	if err != nil {
		return err
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	lines := bufio.NewScanner(io.LimitReader(r, maxIndex))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 0 && !strings.HasPrefix(fields[0], "#") {
			fn(fields)
		}
	}
	return lines.Err()
}

// dependency takes "FILE: FILE …".
func (x *Index) dependency(f []string) {
	file := strings.TrimSuffix(f[0], ":")
	x.files[moduleName(file)] = file
	x.needs[file] = f[1:]
}

// softDependency takes "softdep NAME pre: NAME … post: NAME …".
func (x *Index) softDependency(f []string) {
	if len(f) < 3 || f[0] != "softdep" {
		return
	}
	name, pre := canonical(f[1]), false
	for _, word := range f[2:] {
		switch {
		case strings.HasSuffix(word, ":"):
			pre = word == "pre:"
		case pre:
			x.before[name] = append(x.before[name], word)
		}
	}
}

// alias takes "alias NAME MODULE".
func (x *Index) alias(f []string) {
	if len(f) == 3 && f[0] == "alias" && !strings.ContainsAny(f[1], "*?[") {
		x.aliases[canonical(f[1])] = append(x.aliases[canonical(f[1])], f[2])
	}
}

// moduleName is the name of the module in a file such as kernel/fs/xfs/xfs.ko.xz.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return canonical(name)
}

// canonical spells a name as the kernel does: the two dashes are one.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Resolve lists the files to load for the modules named, each after what it
// needs. A required module that is not there is a [*MissingError], an optional
// one is passed by.
func (x *Index) Resolve(required, optional []string) ([]string, error) {
	r := resolver{index: x, begun: map[string]bool{}}
	for _, name := range required {
		if !r.add(name) {
			return nil, &MissingError{Module: name}
		}
	}
	for _, name := range optional {
		r.add(name)
	}
	return r.files, nil
}

type resolver struct {
	index *Index
	files []string
	begun map[string]bool // by file; also ends circles of soft dependencies
}

// add takes in a module by its name or alias; false if there is none.
func (r *resolver) add(name string) bool {
	name = canonical(name)
	if r.index.builtin[name] {
		return true
	}
	if file, ok := r.index.files[name]; ok {
		r.addFile(file)
		return true
	}
	found := false
	for _, module := range r.index.aliases[name] {
		if canonical(module) != name && r.add(module) {
			found = true
		}
	}
	return found
}

func (r *resolver) addFile(file string) {
	if r.begun[file] {
		return
	}
	r.begun[file] = true
	// A soft dependency that is not there is not missed: it may be built in
	// under a name that no index has.
	for _, name := range r.index.before[moduleName(file)] {
		r.add(name)
	}
	for _, need := range slices.Backward(r.index.needs[file]) {
		r.addFile(need)
	}
	r.files = append(r.files, file)
}
