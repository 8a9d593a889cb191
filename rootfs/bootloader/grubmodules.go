package bootloader

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// linuxModule is kept out of the image and loaded from its memory disk when an entry is started. It defines the
// commands linux and initrd, which would win over the functions of the same names that read a boot entry.
const linuxModule = "linux"

// commonModules are wanted on every platform: file systems and tables, what the configuration uses, and enough to
// repair a system by hand.
func commonModules() []string {
	return []string{
		"memdisk", "tar", "normal", "configfile", "test", "true", "echo", "eval", "search", "search_fs_uuid",
		"search_label", "search_fs_file", "regexp", "part_gpt", "part_msdos", "fat", "ext2", "xfs", "btrfs", "minicmd",
		"ls", "cat", "reboot", "halt", "sleep", "terminal", "serial", "gzio",
	}
}

// platformModules are wanted on one platform.
func platformModules(target string) []string {
	if strings.HasSuffix(target, "-efi") {
		return []string{"efi_gop", "efi_uga"}
	}
	return []string{"biosdisk"}
}

// grubDir is where GRUB's files for one platform lie in the tree.
func grubDir(target string) string { return path.Join("usr/lib/grub", target) }

// moduleList returns the modules of a GRUB image for target: those named above, and what linux.mod depends on, as
// GRUB's own moddep.lst in the tree says. linux.mod itself is not among them.
func moduleList(tree fs.FS, target string) ([]string, error) {
	deps, err := readModuleDeps(tree, target)
	if err != nil {
		return nil, err
	}
	want := append(commonModules(), platformModules(target)...)
	want = append(want, dependencies(deps, linuxModule)...)
	slices.Sort(want)
	want = slices.Compact(want)
	for _, m := range want {
		if _, ok := deps[m]; !ok {
			return nil, fmt.Errorf("the image's GRUB for %s has no module %q: its version is not supported", target, m)
		}
	}
	return want, nil
}

// readModuleDeps parses moddep.lst: a line "module: dependency dependency ..." for each module.
func readModuleDeps(tree fs.FS, target string) (map[string][]string, error) {
	name := path.Join(grubDir(target), "moddep.lst")
	data, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, fmt.Errorf("reading the dependencies of GRUB's modules: %w", err)
	}
	deps := make(map[string][]string)
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		module, rest, ok := strings.Cut(lines.Text(), ":")
		if ok {
			deps[strings.TrimSpace(module)] = strings.Fields(rest)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("parsing /%s: %w", name, err)
	}
	return deps, nil
}

// dependencies returns everything that module needs, without module itself, in no particular order.
func dependencies(deps map[string][]string, module string) []string {
	seen := map[string]bool{module: true}
	var found []string
	for queue := deps[module]; len(queue) > 0; {
		next := queue[0]
		queue = queue[1:]
		if seen[next] {
			continue
		}
		seen[next] = true
		found = append(found, next)
		queue = append(queue, deps[next]...)
	}
	return found
}
