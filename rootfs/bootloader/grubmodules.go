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

// linuxModule defines the commands linux and initrd, which would win over the functions of the same
// names that read a boot entry. It is loaded from the memory disk when an entry is started.
const linuxModule = "linux"

// lateModules define commands that act. They are in the memory disk and are loaded after all boot
// entries have been read, since an entry is read by running it. Of the others in the memory disk,
// GRUB's configuration needs the first two.
func lateModules() []string {
	return []string{"echo", "eval", "sleep", "reboot", "halt", "minicmd", "cat", "ls"}
}

// requiredModules are the modules without which the configuration does not run or does not find the
// root.
func requiredModules(target, filesystem string) []string {
	want := []string{"memdisk", "tar", "normal", "configfile", "test", "true", "search", "search_fs_uuid", "regexp", "part_gpt", "fat"}
	if !strings.HasSuffix(target, "-efi") {
		want = append(want, "biosdisk")
	}
	switch filesystem {
	case "ext4":
		want = append(want, "ext2")
	case "xfs", "btrfs":
		want = append(want, filesystem)
	}
	return append(want, lateModules()[:2]...)
}

// usefulModules are taken where GRUB's version has them: consoles, and file systems and tables for
// repairs by hand.
func usefulModules(target string) []string {
	want := []string{"search_label", "search_fs_file", "part_msdos", "ext2", "xfs", "btrfs", "terminal", "serial", "gzio"}
	if strings.HasSuffix(target, "-efi") {
		want = append(want, "efi_gop", "efi_uga")
	}
	return want
}

// maxModuleList bounds moddep.lst, in bytes.
const maxModuleList = 1 << 20

// CheckedFiles returns the paths of the files whose content Check reads.
func CheckedFiles() []string {
	var names []string
	for _, arch := range []string{"amd64", "arm64"} {
		if p, err := platformOf(arch); err == nil {
			names = append(names, systemdBootPath(p))
		}
	}
	for _, target := range []string{"x86_64-efi", "i386-pc", "arm64-efi"} {
		names = append(names, path.Join(grubDir(target), "moddep.lst"))
	}
	return names
}

// grubDir returns the directory of GRUB's files for one platform.
func grubDir(target string) string { return path.Join("usr/lib/grub", target) }

// modules are the modules of one GRUB image.
type modules struct {
	core []string // in the image itself, sorted
	late []string // in its memory disk
}

// chooseModules returns the modules of a GRUB image for target: the required ones, the useful ones
// that the tree has, and all that those in the memory disk depend on, as GRUB's own moddep.lst
// says.
func chooseModules(tree fs.FS, target, filesystem string) (modules, error) {
	deps, err := readModuleDeps(tree, target)
	if err != nil {
		return modules{}, err
	}
	missing := func(m string) string {
		for _, name := range append(dependencies(deps, m), m) {
			_, listed := deps[name]
			info, err := fs.Stat(tree, path.Join(grubDir(target), name+".mod"))
			if !listed || err != nil || !info.Mode().IsRegular() {
				return name
			}
		}
		return ""
	}
	required := append(requiredModules(target, filesystem), linuxModule)
	for _, m := range required {
		if name := missing(m); name != "" {
			return modules{}, &ModuleError{Target: target, Module: name}
		}
	}
	chosen := modules{}
	for _, m := range append([]string{linuxModule}, lateModules()...) {
		if missing(m) == "" {
			chosen.late = append(chosen.late, m)
			chosen.core = append(chosen.core, dependencies(deps, m)...)
		}
	}
	for _, m := range append(required, usefulModules(target)...) {
		if missing(m) == "" {
			chosen.core = append(append(chosen.core, m), dependencies(deps, m)...)
		}
	}
	slices.Sort(chosen.core)
	chosen.core = slices.DeleteFunc(slices.Compact(chosen.core), func(m string) bool { return slices.Contains(chosen.late, m) })
	return chosen, nil
}

// ModuleError reports that the image's GRUB lacks a module that the boot needs.
type ModuleError struct {
	Target string // GRUB's name of the platform
	Module string
}

func (e *ModuleError) Error() string {
	return fmt.Sprintf("the image's GRUB for %s has no module %q, without which it cannot start the system", e.Target, e.Module)
}

// readModuleDeps parses moddep.lst: a line "module: dependency dependency ..." for each module.
func readModuleDeps(tree fs.FS, target string) (map[string][]string, error) {
	name := path.Join(grubDir(target), "moddep.lst")
	data, err := readFile(tree, name, maxModuleList)
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
