package label

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Types of files, as st_mode has them.
const (
	regular   = 0o100000
	directory = 0o040000
	link      = 0o120000
)

// typeNames are matchpathcon's words for the file types.
var typeNames = map[uint32]string{
	regular: "file", directory: "dir", link: "lnk_file", 0o020000: "chr_file", 0o060000: "blk_file", 0o010000: "pipe", 0o140000: "sock_file",
}

// byLibselinux returns the labels that libselinux gives paths of one type, by the contexts in file
// and in those beside it.
func byLibselinux(t *testing.T, file string, kind uint32, paths []string) []string {
	t.Helper()
	args := []string{"-f", file, "-n"}
	if kind != 0 {
		args = append(args, "-m", typeNames[kind])
	}
	cmd := exec.Command("matchpathcon", append(args, paths...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, faults bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &faults
	err := cmd.Run()
	for line := range strings.Lines(faults.String()) {
		// libselinux 3.8 has a remark on an expression that it does not simplify.
		if !strings.HasSuffix(line, " for literal matching, continuing using regex\n") {
			t.Fatalf("matchpathcon: %v: %s", err, faults.String())
		}
	}
	if err != nil {
		t.Fatalf("matchpathcon: %v", err)
	}
	labels := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(labels) != len(paths) {
		t.Fatalf("matchpathcon gave %d labels for %d paths", len(labels), len(paths))
	}
	for i, l := range labels {
		if l == none {
			labels[i] = ""
		}
	}
	return labels
}

// systemPaths returns the paths of this system below some directories, by their types.
func systemPaths(t testing.TB, tops ...string) map[uint32][]string {
	t.Helper()
	byKind := map[uint32][]string{}
	for _, top := range tops {
		err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
			if err != nil || strings.Contains(name, "\n") { // matchpathcon prints lines
				return nil
			}
			kind := uint32(regular)
			switch {
			case d.IsDir():
				kind = directory
			case d.Type()&fs.ModeSymlink != 0:
				kind = link
			}
			byKind[kind] = append(byKind[kind], name)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return byKind
}

func loadSystem(t testing.TB) *Policy {
	t.Helper()
	p, err := Load(os.DirFS("/"))
	if err != nil {
		t.Fatal(err)
	}
	if p == nil || p.Name != "default" || p.Version < 30 {
		t.Fatalf("this system has the policy %+v, not that of the package selinux-policy-default", p)
	}
	return p
}

// TestSystem compares the labels of a part of this system's paths with those of libselinux, which
// needs a millisecond for each.
func TestSystem(t *testing.T) {
	p := loadSystem(t)
	total, wrong := 0, 0
	check := func(kind uint32, paths []string) {
		want := byLibselinux(t, "/etc/selinux/default/contexts/files/file_contexts", kind, paths)
		for i, name := range paths {
			total++
			if got := p.Of(name, kind); got != want[i] {
				if wrong++; wrong <= 10 {
					t.Errorf("%s (%s) has the label %q, want %q", name, typeNames[kind], got, want[i])
				}
			}
		}
	}
	for kind, paths := range systemPaths(t, "/bin", "/boot", "/etc", "/lib", "/sbin", "/usr", "/var") {
		var some []string
		for i := 0; i < len(paths); i += 1 + len(paths)/800 {
			some = append(some, paths[i])
		}
		check(kind, some)
	}
	if total < 1000 || wrong > 0 {
		t.Errorf("%d of %d labels are wrong", wrong, total)
	}
}

// BenchmarkOf labels a path of a system.
func BenchmarkOf(b *testing.B) {
	p := loadSystem(b)
	var paths []string
	for _, some := range systemPaths(b, "/usr/bin", "/usr/share", "/usr/lib") {
		paths = append(paths, some...)
	}
	for i := 0; b.Loop(); i++ {
		p.Of(paths[i%len(paths)], regular)
	}
}
