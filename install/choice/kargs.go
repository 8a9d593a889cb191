package choice

import (
	"strings"

	"installer/rootfs/deploy"
)

// kargSources are the kernel arguments of an installation by where they come
// from. Each entry may hold several arguments, as a kernel command line does.
type kargSources struct {
	root    []string // what the root file system needs
	config  []string // install configuration
	image   []string // kargs.d of the image
	deletes []string // karg-deletes of the configuration, then --karg-delete
	flags   []string // --karg
}

// assemble makes the command line in the order that bootc documents: the
// root's, the configuration's, the image's; then what is to be deleted goes;
// last come those of the command line, which nothing deletes. An argument that
// is there already, value and all, is not added again.
func (s kargSources) assemble() []string {
	var line []string
	for _, group := range [][]string{s.root, s.config, s.image} {
		line = addKargs(line, group)
	}
	for _, name := range s.deletes {
		for _, arg := range splitKargs(name) {
			line = deleteKarg(line, arg)
		}
	}
	return addKargs(line, s.flags)
}

// addKargs appends the arguments that line does not have.
func addKargs(line, group []string) []string {
	for _, entry := range group {
	next:
		for _, arg := range splitKargs(entry) {
			for _, old := range line {
				if sameKarg(old, arg) {
					continue next
				}
			}
			line = append(line, arg)
		}
	}
	return line
}

// deleteKarg takes out arguments: with "key=value" those that are the same,
// with "key" all of that key.
func deleteKarg(line []string, arg string) []string {
	kept := line[:0:0]
	for _, old := range line {
		if strings.Contains(arg, "=") && !sameKarg(old, arg) || kargKey(old) != kargKey(arg) {
			kept = append(kept, old)
		}
	}
	return kept
}

// sameKarg compares two arguments; the kernel takes - and _ in keys for the same.
func sameKarg(a, b string) bool {
	_, valueA, hasA := strings.Cut(a, "=")
	_, valueB, hasB := strings.Cut(b, "=")
	return kargKey(a) == kargKey(b) && hasA == hasB && valueA == valueB
}

func kargKey(arg string) string {
	key, _, _ := strings.Cut(arg, "=")
	return strings.ReplaceAll(key, "-", "_")
}

// splitKargs takes a command line apart at blanks outside of double quotes.
func splitKargs(line string) []string {
	var args []string
	start, quoted := -1, false
	for i, c := range line {
		quoted = quoted != (c == '"')
		switch blank := c == ' ' && !quoted; {
		case !blank && start < 0:
			start = i
		case blank && start >= 0:
			args = append(args, line[start:i])
			start = -1
		}
	}
	if start >= 0 {
		args = append(args, line[start:])
	}
	return args
}

// checkKargs refuses arguments that no boot entry can hold.
func checkKargs(entries []string) error {
	for _, entry := range entries {
		args := splitKargs(entry)
		if len(args) == 0 {
			args = []string{entry} // which says what is wrong with it
		}
		for _, arg := range args {
			if err := deploy.CheckKarg(arg); err != nil {
				return err
			}
		}
	}
	return nil
}
