package mounted

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// on is the file system that is mounted, or not, on a directory.
func on(dir string) Filesystem {
	return Filesystem{Role: Root, Mount: mounts.Mount{Point: dir}}
}

func fill(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(at, 0o755)
		} else {
			err = os.WriteFile(at, nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// tmpfs mounts one for the time of the test.
func tmpfs(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestContents(t *testing.T) {
	for name, c := range map[string]struct {
		files  []string
		mounts []string
		want   []string
	}{
		"nothing":                      {},
		"what is there from the start": {files: []string{"lost+found/x", "boot/", "efi/", "boot/efi/"}},
		"mount points":                 {mounts: []string{"boot", "boot/efi"}},
		"a mount point in boot":        {mounts: []string{"boot/efi"}},
		"files":                        {files: []string{"etc/x", "a", "usr/", "efi/x"}, want: []string{"a", "efi", "etc", "usr"}},
		"a file in boot":               {files: []string{"boot/x"}, mounts: []string{"boot/efi"}, want: []string{"boot"}},
		"lost+found deeper":            {files: []string{"boot/lost+found/x"}, want: []string{"boot"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, c.files...)
			for _, m := range c.mounts {
				tmpfs(t, filepath.Join(dir, m))
			}
			got, err := Contents(on(dir))
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
	dir := t.TempDir()
	if err := os.Symlink("/", filepath.Join(dir, "boot")); err != nil {
		t.Fatal(err)
	}
	if got, err := Contents(on(dir)); err != nil || !slices.Equal(got, []string{"boot"}) {
		t.Errorf("a link instead of boot: %q, %v", got, err)
	}
}

func TestClear(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	fill(t, outside, "precious")
	fill(t, dir, "a", "etc/deep/er/file", "lost+found/keep", "usr/lost+found/x", "boot/old", "immutable", "locked/")
	tmpfs(t, filepath.Join(dir, "boot/efi"))
	fill(t, dir, "boot/efi/EFI/x")
	if err := os.Symlink(outside, filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"immutable", "locked"} {
		if out, err := exec.Command("chattr", "+i", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := Clear(t.Context(), on(dir), ""); err != nil {
		t.Fatal(err)
	}
	want := []string{".", "boot", "boot/efi", "boot/efi/EFI", "boot/efi/EFI/x", "lost+found", "lost+found/keep"}
	if got := everything(t, dir); !slices.Equal(got, want) {
		t.Errorf("left: %q, want %q", got, want)
	}
	if got := everything(t, outside); len(got) != 2 {
		t.Errorf("what a link leads to was deleted: %q", got)
	}
}

func TestClearBelow(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, "etc/keep", "boot/loader/x")
	for range 2 {
		if err := Clear(t.Context(), on(dir), "boot"); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := everything(t, dir), []string{".", "boot", "etc", "etc/keep"}; !slices.Equal(got, want) {
		t.Errorf("left: %q, want %q", got, want)
	}
	if err := os.Remove(filepath.Join(dir, "boot")); err != nil {
		t.Fatal(err)
	}
	if err := Clear(t.Context(), on(dir), "boot"); err != nil {
		t.Errorf("no boot: %v", err)
	}
	if err := os.Symlink("etc", filepath.Join(dir, "boot")); err != nil {
		t.Fatal(err)
	}
	if err := Clear(t.Context(), on(dir), "boot"); err == nil {
		t.Error("a link was followed")
	}
	if err := os.Remove(filepath.Join(dir, "boot")); err != nil {
		t.Fatal(err)
	}
	tmpfs(t, filepath.Join(dir, "boot"))
	fill(t, dir, "boot/keep")
	if err := Clear(t.Context(), on(dir), "boot"); err != nil {
		t.Errorf("boot is a mount point: %v", err)
	}
	if got, want := everything(t, dir), []string{".", "boot", "boot/keep", "etc", "etc/keep"}; !slices.Equal(got, want) {
		t.Errorf("left: %q, want %q", got, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Clear(ctx, on(dir), ""); err == nil {
		t.Error("it went on after it was told to stop")
	}
}

func everything(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		names = append(names, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
