package disk

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk/fsinfo"
	"installer/tests/kit"
)

func TestMake(t *testing.T) {
	const id = "0f1e2d3c-4b5a-4697-8877-665544332211"
	check := map[Filesystem][]string{
		XFS:   {"xfs_repair", "-n"},
		Ext4:  {"e2fsck", "-fn"},
		Btrfs: {"btrfs", "check", "--readonly"},
	}
	for fs, checker := range check {
		for _, label := range []string{"", "root"} {
			d := opened(t, rawFile(t, 1200*mib))
			v := root(t, d)
			if err := fs.Make(context.Background(), runner, v.Path(), MakeOptions{UUID: id, Label: label}); err != nil {
				t.Fatal(err)
			}
			out := kit.Run(t, "blkid", "-p", "-o", "export", v.Path())
			for _, want := range []string{"TYPE=" + string(fs), "UUID=" + id} {
				if !strings.Contains("\n"+out, "\n"+want+"\n") {
					t.Errorf("blkid does not say %s:\n%s", want, out)
				}
			}
			readByGRUB(t, v.Path(), fs)
			kit.Run(t, checker[0], append(checker[1:], v.Path())...)
			if err := v.Detach(); err != nil {
				t.Error(err)
			}
			// The same superblock must be seen through the disk, at the partition.
			r := io.NewSectionReader(d, v.Partition().Start, v.Partition().Size)
			sb, err := fsinfo.ReadRoot(r)
			if err != nil || Filesystem(sb.Type) != fs || sb.UUID != id || sb.Label != label {
				t.Errorf("%s: superblock %+v (%v)", fs, sb, err)
			}
		}
	}
}

// readByGRUB puts a directory on a file system by the kernel and looks for it by GRUB's own code.
func readByGRUB(t *testing.T, device string, fs Filesystem) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(device, dir, string(fs), 0, ""); err != nil {
		t.Fatal(err)
	}
	err := os.Mkdir(filepath.Join(dir, "seen-by-grub"), 0o755)
	if err := errors.Join(err, unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)); err != nil {
		t.Fatal(err)
	}
	if out := kit.Run(t, "grub-fstest", device, "ls", "/"); !strings.Contains(out, "seen-by-grub/") {
		t.Errorf("GRUB cannot read %s: %q", fs, out)
	}
}

func TestExt4HasVerity(t *testing.T) {
	d := opened(t, rawFile(t, 1200*mib))
	v := root(t, d)
	if err := Ext4.Make(context.Background(), runner, v.Path(), MakeOptions{UUID: "0f1e2d3c-4b5a-4697-8877-665544332211"}); err != nil {
		t.Fatal(err)
	}
	out := kit.Run(t, "dumpe2fs", "-h", v.Path())
	if !strings.Contains(out, "verity") || strings.Contains(out, "metadata_csum_seed") || !strings.Contains(out, "Block size:               4096") {
		t.Error(out)
	}
}

// Make must not take a program's word: the superblock must agree with the options.
func TestMakeReadsBack(t *testing.T) {
	d := opened(t, rawFile(t, 1200*mib))
	v := root(t, d)
	lazy := func(context.Context, []string) error { return nil }
	if err := Ext4.Make(context.Background(), lazy, v.Path(), MakeOptions{}); !errors.Is(err, fsinfo.ErrNoRoot) {
		t.Errorf("a program that did nothing: %v", err)
	}
	other := func(ctx context.Context, argv []string) error {
		return runner(ctx, []string{"mkfs.ext4", "-q", "-F", argv[len(argv)-1]})
	}
	if err := Btrfs.Make(context.Background(), other, v.Path(), MakeOptions{}); err == nil {
		t.Error("another file system than the one asked for was accepted")
	}
	if err := Ext4.Make(context.Background(), other, v.Path(), MakeOptions{UUID: "0f1e2d3c-4b5a-4697-8877-665544332211"}); err == nil {
		t.Error("another UUID than the one asked for was accepted")
	}
	seeded := func(ctx context.Context, argv []string) error {
		return runner(ctx, []string{"mkfs.ext4", "-q", "-F", "-O", "metadata_csum_seed", "-U", argv[len(argv)-2], argv[len(argv)-1]})
	}
	if err := Ext4.Make(context.Background(), seeded, v.Path(), MakeOptions{UUID: "0f1e2d3c-4b5a-4697-8877-665544332211", GRUB: true}); err == nil || !strings.Contains(err.Error(), "GRUB") {
		t.Errorf("a feature that GRUB cannot read: %v", err)
	}
	if err := Ext4.Make(context.Background(), seeded, v.Path(), MakeOptions{UUID: "0f1e2d3c-4b5a-4697-8877-665544332211"}); err != nil {
		t.Errorf("the same feature for another boot loader: %v", err)
	}
}

func TestMissingProgram(t *testing.T) {
	for fs, pkg := range map[Filesystem]string{XFS: "xfsprogs", Ext4: "e2fsprogs", Btrfs: "btrfs-progs"} {
		gone := func(context.Context, []string) error {
			return &exec.Error{Name: fs.Program(), Err: exec.ErrNotFound}
		}
		var missing *MissingProgramError
		if err := fs.Make(context.Background(), gone, "/dev/null", MakeOptions{}); !errors.As(err, &missing) || missing.Package != pkg {
			t.Errorf("%s: %v", fs, err)
		}
		look := func(string) (string, error) { return "", exec.ErrNotFound }
		if err := fs.Require(look); !errors.As(err, &missing) || missing.Program != "mkfs."+string(fs) || !errors.Is(err, exec.ErrNotFound) {
			t.Errorf("%s: %v", fs, err)
		}
	}
	if _, err := ParseFilesystem("reiserfs"); err == nil {
		t.Error("reiserfs was accepted")
	}
}

// The options must be those that each generation of mkfs.xfs knows; the texts are from its usage.
func TestReadableXFS(t *testing.T) {
	for usage, want := range map[string]string{
		"[-i projid32bit=0|1,sparse=0|1]": "",
		"[-i projid32bit=0|1,sparse=0|1,nrext64=0|1]\n[-n size=num,version=2|ci,ftype=0|1]": "-i nrext64=0",
		"[-i sparse=0|1,nrext64=0|1,exchange=0|1]\n[-n version=2|ci,ftype=0|1,parent=0|1]]": "-i nrext64=0 -i exchange=0 -n parent=0",
	} {
		say := func(context.Context, []string) error { return errors.New("exit status 1: Usage: mkfs.xfs " + usage) }
		got, err := XFS.readableXFS(context.Background(), say)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %q (%v)", usage, got, err)
		}
	}
}

func TestMissingProgramSaysWhereItIsMissing(t *testing.T) {
	look := func(name string) (string, error) { return "", exec.ErrNotFound }
	for want, err := range map[string]error{
		"mkfs.xfs is missing on this machine; to do: install the package xfsprogs": XFS.Require(look),
		"mkfs.btrfs is missing in the image; to do: add the package btrfs-progs":   Btrfs.RequireInImage(look),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
