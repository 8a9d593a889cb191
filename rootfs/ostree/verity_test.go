package ostree

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/tests/kit"
)

func TestConfigSurvives(t *testing.T) {
	for _, want := range []Config{{}, {Bootloader: "none", BootPrefix: true, ReadOnly: true}, {Verity: true}} {
		data, err := want.encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseConfig(data); err != nil || got != want {
			t.Errorf("%+v comes back as %+v, %v", want, got, err)
		}
		// libostree reads the same setting.
		dir := t.TempDir()
		kit.Oracle(t, "ostree", "init", "--mode=bare", "--repo="+dir)
		if err := os.WriteFile(filepath.Join(dir, "config"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := kit.TryOracle(t, nil, "ostree", "config", "--repo="+dir, "get", "ex-integrity.fsverity")
		if (strings.TrimSpace(out) == "true") != want.Verity || (err == nil) != want.Verity {
			t.Errorf("%+v: ostree reads %q, %v", want, out, err)
		}
	}
}

// Digests are those of fsverity, for contents that are read at once and in pieces; without fs-verity
// they are computed from the objects, and with it the kernel's is demanded.
func TestVerity(t *testing.T) {
	repo := createRepo(t)
	for _, size := range []int{0, 1, 5000, smallContent, smallContent + 1, 3<<20 + 17} {
		data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		sum, err := repo.WriteContent(t.Context(), FileHeader{Mode: modeRegular | 0o644}, int64(size), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(repo.path, "objects", ContentPath(sum))
		want := strings.TrimSpace(kit.Oracle(t, "fsverity", "digest", "--compact", file))
		if d, protected, err := repo.Verity(sum); err != nil || protected || d.String() != want {
			t.Errorf("%d bytes: %s, %v, %v; fsverity has %s", size, d, protected, err, want)
		}
		if d := digestOf(data); d.String() != want {
			t.Errorf("%d bytes in memory: %s; fsverity has %s", size, d, want)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := Measure(f); err == nil {
			t.Errorf("the kernel measures %s of a file without fs-verity", d)
		}
		f.Close()
		if err := repo.Protect(unix.AT_FDCWD, file, "x", digestOf(data)); err != nil {
			t.Errorf("in a repository without fs-verity: %v", err)
		}
	}
}

func TestVerityError(t *testing.T) {
	err := error(&VerityError{Path: "ostree/repo/config", Err: unix.ENOTTY})
	if !errors.Is(err, unix.ENOTTY) || !strings.Contains(err.Error(), "/ostree/repo/config") || !strings.Contains(err.Error(), "CONFIG_FS_VERITY") {
		t.Error(err)
	}
}
