package bootloader

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// runOnHost stands for the confined run in the deployment: the host has the same packages at the
// same paths. Files are put into a directory of the test, and the arguments that name /tmp are
// redirected there.
func runOnHost(t *testing.T) RunInTree {
	return func(ctx context.Context, argv []string, files map[string][]byte) ([]byte, error) {
		dir := t.TempDir()
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				return nil, err
			}
		}
		args := make([]string, len(argv))
		for i, arg := range argv {
			args[i] = strings.Replace(arg, "/tmp/", dir+"/", 1)
		}
		out, err := os.Create(filepath.Join(dir, "stdout"))
		if err != nil {
			return nil, err
		}
		defer out.Close()
		var stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = out, &stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, stderr.String())
		}
		return os.ReadFile(out.Name())
	}
}

// dirESP is an EFI system partition kept in a directory, to be copied into a FAT file system later.
type dirESP struct {
	fs.FS
	dir string
}

func newDirESP(t *testing.T) *dirESP {
	dir := t.TempDir()
	return &dirESP{FS: os.DirFS(dir), dir: dir}
}

func (e *dirESP) MkdirAll(name string) error { return os.MkdirAll(filepath.Join(e.dir, name), 0o755) }

func (e *dirESP) WriteFile(name string, size int64, r io.Reader) error {
	file, err := os.Create(filepath.Join(e.dir, name))
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := io.CopyN(file, r, size); err != nil {
		return err
	}
	return nil
}

// must runs a program of the host and returns its output.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
