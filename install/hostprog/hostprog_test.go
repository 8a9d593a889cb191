package hostprog

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func program(t *testing.T, dir, name string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFind(t *testing.T) {
	first, second, fallback := t.TempDir(), t.TempDir(), t.TempDir()
	own := standard
	standard = []string{fallback}
	t.Cleanup(func() { standard = own })
	inPath := program(t, second, "mkfs.xfs", 0o755)
	program(t, first, "mkfs.xfs", 0o644) // not executable
	sbin := program(t, fallback, "mkfs.ext4", 0o755)
	program(t, fallback, "mkfs.xfs", 0o755)
	t.Chdir(first)
	program(t, first, "mkfs.btrfs", 0o755)
	for _, c := range []struct{ path, name, want string }{
		{first + ":" + second, "mkfs.xfs", inPath},
		{first + ":" + second, "mkfs.ext4", sbin},
		{"", "mkfs.ext4", sbin},
		{".:", "mkfs.btrfs", ""}, // the working directory is no place to find a program that root runs
		{second, "no-such-program", ""},
		{"", sbin, sbin},
		{"", "./mkfs.btrfs", filepath.Join(first, "mkfs.btrfs")},
		{"", "/no/such/program", ""},
	} {
		t.Setenv("PATH", c.path)
		got, err := Find(c.name)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("PATH=%q %s: %q, %v; want %q", c.path, c.name, got, err, c.want)
		}
		if err != nil && (!errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "on this machine")) {
			t.Errorf("PATH=%q %s: %v", c.path, c.name, err)
		}
	}
}

func TestPathHasTheStandardDirectoriesOnce(t *testing.T) {
	t.Setenv("PATH", "/opt/bin:/usr/bin:relative:")
	if got, want := Path(), "/opt/bin:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/bin"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
