package place

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// good is a place that has everything.
func good() Facts {
	return Facts{Root: true, Capabilities: 1<<41 - 1, Proc: true, Sys: true, Null: true, OpenFiles: 1024, CPUs: 2, Memory: 1 << 30}
}

func TestMissing(t *testing.T) {
	without := func(change func(*Facts)) Facts {
		f := good()
		change(&f)
		return f
	}
	for _, c := range []struct {
		name  string
		facts Facts
		want  string // of both jobs
	}{
		{"all", good(), ""},
		{"unknown memory", without(func(f *Facts) { f.Memory = -1 }), ""},
		{"/proc", without(func(f *Facts) { f.Proc, f.Capabilities = false, 0 }), "/proc is not mounted"},
		{"/sys", without(func(f *Facts) { f.Sys = false }), "/sys is not mounted"},
		{"/dev/null", without(func(f *Facts) { f.Null = false }), "/dev/null is missing"},
		{"user namespace", without(func(f *Facts) { f.UserNamespace = true }), "root of a user namespace"},
		{"capabilities", without(func(f *Facts) { f.Capabilities &^= 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SETFCAP }), "lacks CAP_SYS_ADMIN, CAP_SETFCAP"},
		{"system calls", without(func(f *Facts) { f.Denied = []string{"mount"} }), "refuses the system calls mount"},
		{"namespaces", without(func(f *Facts) { f.Namespaces = unix.ENOSPC }), "no namespaces can be made for helper programs: no space left"},
		{"open files", without(func(f *Facts) { f.OpenFiles = 256 }), "may have 256 files open, and the installation needs 320"},
		{"more CPUs", without(func(f *Facts) { f.OpenFiles, f.CPUs = 1024, 128 }), "needs 1328"},
		{"memory", without(func(f *Facts) { f.Memory = 64 << 20 }), "64 MiB of memory are available, and the installation needs 96"},
	} {
		for _, job := range []Job{ToDisk, ToFilesystem} {
			lacks := c.facts.Missing(job)
			if c.want == "" {
				if len(lacks) > 0 {
					t.Errorf("%s: %v", c.name, lacks)
				}
				continue
			}
			if len(lacks) != 1 || !strings.Contains(lacks[0].Text, c.want) || lacks[0].Remedy == "" {
				t.Errorf("%s: %q, want %q and a remedy", c.name, lacks, c.want)
			}
		}
	}
	node := without(func(f *Facts) { f.Capabilities &^= 1 << unix.CAP_MKNOD })
	if len(node.Missing(ToDisk)) != 1 || len(node.Missing(ToFilesystem)) != 0 {
		t.Error("CAP_MKNOD is needed for a disk alone")
	}
}

func TestUnfitError(t *testing.T) {
	err := error(&UnfitError{[]Lack{{"a is missing", "make a"}, {"b is missing", "make b"}, {"c is missing", "make a"}}})
	var advice interface{ Advice() string }
	if !errors.As(err, &advice) || advice.Advice() != "make a; make b" || err.Error() != "an installation cannot run here: a is missing; b is missing; c is missing" {
		t.Error(err)
	}
}

// The machine of the tests has everything.
func TestRead(t *testing.T) {
	f := Read()
	if lacks := f.Missing(ToDisk); len(lacks) > 0 {
		t.Errorf("missing: %v", lacks)
	}
	if f.Memory < leastMemory || f.CPUs < 1 {
		t.Errorf("%+v", f)
	}
}

func TestCgroupMemory(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string) {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	put("list", "1:memory:/old\n0::/a/b\n")
	put("a/memory.max", "1000\n")
	put("a/memory.current", "900\n")
	put("a/memory.stat", "anon 500\nfile 400\n")
	put("a/b/memory.max", "max\n")
	put("a/b/memory.current", "800\n")
	if got := cgroupMemory(filepath.Join(root, "list"), root); got != 500 {
		t.Errorf("%d bytes, want 500", got)
	}
	put("a/memory.max", "max\n")
	if got := cgroupMemory(filepath.Join(root, "list"), root); got != -1 {
		t.Errorf("%d bytes, want no bound", got)
	}
}

func TestParsers(t *testing.T) {
	if got := effective("Name:\tx\nCapEff:\t00000000a80425fb\n"); got != 0xa80425fb {
		t.Errorf("%#x", got)
	}
	if got := available("MemTotal: 8 kB\nMemAvailable:   7 kB\n"); got != 7<<10 {
		t.Errorf("%d", got)
	}
	if got := []int64{least(-1, 5), least(5, -1), least(3, 5), least(-1, -1)}; !slices.Equal(got, []int64{5, 5, 3, -1}) {
		t.Errorf("%d", got)
	}
}
