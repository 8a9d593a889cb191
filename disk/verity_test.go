package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk/fsinfo"
	"installer/tests/kit"
)

// The verdicts on file systems are those of fsverity, which tries to enable it.
func TestVerityIsThatOfFsverity(t *testing.T) {
	for name, c := range map[string]struct {
		mkfs []string
		made bool   // the file system has the feature
		want string // advice, where it has not
	}{
		"ext4":        {[]string{"mkfs.ext4", "-q", "-b", "4096", "-O", "verity"}, true, ""},
		"ext4 plain":  {[]string{"mkfs.ext4", "-q", "-b", "4096"}, false, "tune2fs -O verity"},
		"ext4 blocks": {[]string{"mkfs.ext4", "-q", "-b", "1024", "-O", "verity"}, false, "-b 4096"},
		"btrfs":       {[]string{"mkfs.btrfs", "-q"}, true, ""},
		"xfs":         {[]string{"mkfs.xfs", "-q"}, false, "a btrfs"},
	} {
		t.Run(name, func(t *testing.T) {
			image := kit.Sparse(t, 512<<20)
			kit.Run(t, c.mkfs[0], append(c.mkfs[1:], image)...)
			f, err := os.Open(image)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			super, err := fsinfo.ReadRoot(f)
			if err != nil {
				t.Fatal(err)
			}
			err = CheckMadeVerity("/dev/x", super)
			var refused *VerityError
			if (err == nil) != c.made || err != nil && (!errors.As(err, &refused) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("CheckMadeVerity: %v", err)
			}
			enabled := enableVerity(t, string(super.Type), image)
			system := Filesystem(super.Type)
			allowed := errors.Join(CheckMadeVerity("/dev/x", super), system.CheckVerity(), system.CheckKernelVerity())
			if (allowed == nil) != (enabled == nil) && name != "ext4 blocks" { // which newer kernels take
				t.Errorf("the checks say %v, and fsverity %v", allowed, enabled)
			}
		})
	}
}

// enableVerity mounts a file system and has fsverity enable fs-verity on a file in it.
func enableVerity(t *testing.T, kind, image string) error {
	t.Helper()
	at := t.TempDir()
	kit.Run(t, "mount", "-t", kind, "-o", "loop", image, at)
	defer func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	}()
	file := filepath.Join(at, "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := kit.TryOracle(t, nil, "fsverity", "enable", file)
	return err
}

func TestVerityAdvice(t *testing.T) {
	if err := XFS.CheckVerity(); err == nil || !strings.Contains(err.Error(), "--filesystem ext4") {
		t.Error(err)
	}
	if err := Filesystem("nothing").CheckKernelVerity(); err == nil || !strings.Contains(err.Error(), "is unknown") {
		t.Error(err)
	}
	if err := errors.Join(Ext4.CheckVerity(), Btrfs.CheckVerity()); err != nil {
		t.Error(err)
	}
}
