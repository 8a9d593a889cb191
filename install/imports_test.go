package install

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rooms are the folders of the program in the order in which they build on each other: a room may
// import itself and the folders that it names, which belong to rooms before it. A folder that no
// line names belongs to the one above it.
var rooms = []struct {
	name, may string
}{
	{"disk/block", ""},
	{"disk/stack", ""},
	{"disk/mounts", "disk/block"},
	{"disk", "disk"},
	{"finalize/kernel", "disk/mounts"},
	{"finalize/holders", "finalize/kernel disk/mounts disk/block disk/fsinfo disk/stack"},
	{"finalize", "finalize/holders disk/mounts disk/block disk/fsinfo"},
	{"rootfs", "rootfs"},
	{"install/printable", ""},
	{"install/hostprog", "install/printable"},
	{"install/schema", ""},
	{"install/size", ""},
	{"install/place", ""},
	{"install/outfile", "disk/mounts"},
	{"install/confine", "install/hostprog install/printable"},
	{"install/journal", "finalize"},
	{"install/choice", "disk rootfs"},
	{"install/source", "install/choice install/journal disk rootfs"},
	{"install/target", "install/choice install/confine install/hostprog install/journal install/size disk finalize rootfs/beneath rootfs/bootloader"},
	{"install/system", "install/choice install/confine install/journal finalize rootfs"},
	{"install/verify", "install/hostprog install/outfile install/size disk finalize rootfs"},
	{"install", "install/choice install/confine install/journal install/place install/size install/source install/system install/target disk finalize rootfs"},
	{"install/vm", "install install/verify disk finalize rootfs"},
	{"cmd", "install disk finalize rootfs"},
}

// TestImports holds the rooms apart.
func TestImports(t *testing.T) {
	known := map[string]int{}
	for n, room := range rooms {
		known[room.name] = n
		for _, may := range strings.Fields(room.may) {
			if before, ok := known[roomOf(may)]; !ok || before > n {
				t.Errorf("%s may import %s, which does not come before it", room.name, may)
			}
		}
	}
	seen := map[string]bool{}
	for folder, imports := range imports(t) {
		name := roomOf(folder)
		if name == "" {
			t.Errorf("%s is in no room", folder)
			continue
		}
		seen[name] = true
		may := strings.Fields(rooms[known[name]].may)
		for _, imported := range imports {
			if roomOf(imported) != name && !slices.ContainsFunc(may, func(f string) bool { return below(imported, f) }) {
				t.Errorf("%s imports %s; the room %s may import %s", folder, imported, name, strings.Join(may, ", "))
			}
		}
	}
	for _, room := range rooms {
		if !seen[room.name] {
			t.Errorf("there is no room %s", room.name)
		}
	}
}

func below(folder, room string) bool { return folder == room || strings.HasPrefix(folder, room+"/") }

// roomOf returns the room with the longest name that a folder is in, "" if it is in none.
func roomOf(folder string) string {
	found := ""
	for _, room := range rooms {
		if below(folder, room.name) && len(room.name) > len(found) {
			found = room.name
		}
	}
	return found
}

// imports returns the folders of the program that each folder imports, whatever the build tags.
// Tests are free.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	const module, top = "installer/", ".."
	found := map[string][]string{}
	err := filepath.WalkDir(top, func(file string, entry fs.DirEntry, err error) error {
		folder := strings.TrimPrefix(path.Dir(filepath.ToSlash(file)), top+"/")
		name := entry.Name()
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (name == "tests" || name == "testdata" || name != top && strings.HasPrefix(name, ".")):
			return filepath.SkipDir
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		var own []string
		for _, i := range parsed.Imports {
			if path, err := strconv.Unquote(i.Path.Value); err == nil && strings.HasPrefix(path, module) {
				own = append(own, strings.TrimPrefix(path, module))
			}
		}
		found[folder] = append(found[folder], own...)
		return nil
	})
	if err != nil || len(found) < 20 {
		t.Fatalf("reading the imports of %d folders: %v", len(found), err)
	}
	return found
}
