// Package hostprog finds the programs of this machine that the installer runs, and prepares their
// start.
//
// PATH alone is not enough: su, cron and env -i leave the sbin directories out, and file system
// makers stand there. Out of scope: running the programs, and programs inside an image.
package hostprog

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// standard are the directories that are searched after those of PATH.
var standard = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// NotFoundError is a program that this machine does not have. It is [exec.ErrNotFound].
type NotFoundError struct {
	Program string
	Dirs    []string // the directories that were searched
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("%s is missing on this machine (searched %s)", e.Program, strings.Join(e.Dirs, ":"))
}

func (e *NotFoundError) Unwrap() error { return exec.ErrNotFound }

// Find returns the absolute path of a program: name itself where it has a slash, else the first one
// in the directories of PATH and then in the standard ones. Its error is a [*NotFoundError].
func Find(name string) (string, error) {
	if strings.Contains(name, "/") {
		path, err := exec.LookPath(name)
		if err != nil {
			return "", &NotFoundError{name, []string{filepath.Dir(name)}}
		}
		return filepath.Abs(path)
	}
	dirs := directories()
	for _, dir := range dirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", &NotFoundError{name, dirs}
}

// Path returns the value of PATH for a child, so that the programs that it runs are found like
// itself.
func Path() string { return strings.Join(directories(), ":") }

// directories lists where programs are searched. A relative directory of PATH is passed over, as
// [exec.LookPath] does: its meaning depends on the working directory.
func directories() []string {
	var dirs []string
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), standard...) {
		if filepath.IsAbs(dir) && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
