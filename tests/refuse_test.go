package tests

import (
	"archive/tar"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"installer/tests/kit"
	"installer/tests/layout"
)

// refused runs the installer and wants it to end with a status, to match every expression in its
// message, to claim no success and to leave nothing.
func refused(t *testing.T, status int, args []string, wants ...string) {
	t.Helper()
	checkRefusal(t, Run(t, args...), status, wants...)
}

func checkRefusal(t *testing.T, r Result, status int, wants ...string) {
	t.Helper()
	checkMessage(t, r, status, wants...)
	nothingLeft(t, filepath.Dir(t.TempDir()))
}

// checkMessage looks at how a run ended that was refused or failed.
func checkMessage(t *testing.T, r Result, status int, wants ...string) {
	t.Helper()
	if r.Code != status {
		t.Errorf("exit status %d, want %d", r.Code, status)
	}
	for _, want := range wants {
		if !regexp.MustCompile(want).MatchString(r.Stderr) {
			t.Errorf("the message does not match %s", want)
		}
	}
	if !strings.Contains(r.Stderr, "installer: error: ") || strings.Contains(r.Stdout, "complete") || strings.Contains(r.Stderr, "goroutine ") {
		t.Errorf("no error, or success, or a crash in:\n%s", r.Stdout)
	}
	if t.Failed() {
		t.Logf("standard error:\n%s", r.Stderr)
	}
}

// rawFile makes an empty disk file and fails the test at its end if it was written.
func rawFile(t *testing.T, size int64) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, size)
	unchanged(t, raw)
	return raw
}

// unchanged fails the test at its end if a file was written since: each write sets the time.
func unchanged(t *testing.T, name string) {
	t.Helper()
	before, err := os.Stat(name)
	must(t, err)
	t.Cleanup(func() {
		after, err := os.Stat(name)
		must(t, err)
		b, a := before.Sys().(*syscall.Stat_t), after.Sys().(*syscall.Stat_t)
		if b.Mtim != a.Mtim || b.Blocks != a.Blocks || b.Size != a.Size {
			t.Errorf("%s was written", name)
		}
	})
}

func TestRefusedUsage(t *testing.T) {
	raw := rawFile(t, tinySize)
	ref := TinyImage(t)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no source":          {[]string{"to-disk", "--via-loopback", raw}, `name the image to install by --source-imgref`},
		"unknown transport":  {installArgs("floppy:image", raw), `unknown transport; known are .*oci-archive`},
		"no name":            {installArgs("oci:", raw), `names no image`},
		"unknown filesystem": {installArgs(ref, raw, "--filesystem", "vfat"), `--filesystem: .*xfs, ext4 or btrfs`},
		"unknown loader":     {installArgs(ref, raw, "--bootloader", "lilo"), `--bootloader: .*grub`},
		"bad size":           {installArgs(ref, raw, "--root-size", "10X"), `--root-size: .*10X`},
		"bad karg":           {installArgs(ref, raw, "--karg", "a\nb"), `a\\nb`},
		"bad stateroot":      {installArgs(ref, raw, "--stateroot", "../x"), `\.\./x`},
		"bad target":         {installArgs(ref, raw, "--target-imgref", "docker://"), `--target-imgref: `},
		"quiet and verbose":  {installArgs(ref, raw, "-q", "-v"), `exclude each other`},
		"unknown progress":   {installArgs(ref, raw, "--progress", "bar"), `--progress: .*auto, plain, tty or json`},
		"unknown flag":       {installArgs(ref, raw, "--nonsense"), `--nonsense`},
		"two disks":          {installArgs(ref, raw, raw), `takes DEVICE`},
		"no disk":            {[]string{"to-disk", "--source-imgref", ref}, `takes DEVICE`},
		"report nowhere":     {installArgs(ref, raw, "--report", "/nonexistent/r.json"), `--report: .*/nonexistent`},
		"no command":         {nil, `no command`},
	} {
		t.Run(name, func(t *testing.T) { refused(t, 2, c.args, c.want, `--help`) })
	}
}

func TestRefusedNotRoot(t *testing.T) {
	raw := rawFile(t, tinySize)
	checkRefusal(t, unprivileged(t, installArgs(TinyImage(t), raw)...), 1, `not root.*sudo`)
}

func TestRefusedSource(t *testing.T) {
	for name, c := range map[string]struct {
		ref   func(*testing.T) string
		wants []string
	}{
		"none there":        {func(t *testing.T) string { return "oci:" + t.TempDir() + "/none" }, []string{`no such file`}},
		"no layout":         {func(t *testing.T) string { return "oci:" + t.TempDir() }, []string{`no OCI image layout`}},
		"no such tag":       {func(t *testing.T) string { dir, _ := splitRef(TinyImage(t)); return "oci:" + dir + ":other" }, []string{`other`, `latest`}},
		"truncated archive": {truncatedArchive, []string{`truncated`}},
		"no archive":        {textFile, []string{`archive`}},
	} {
		t.Run(name, func(t *testing.T) {
			raw := rawFile(t, tinySize)
			refused(t, 5, installArgs(c.ref(t), raw), append(c.wants, `source image`)...)
		})
	}
}

// Faults that only show once the layers are read.
func TestRefusedContent(t *testing.T) {
	for name, c := range map[string]struct {
		ref   func(*testing.T) (ref, culprit string)
		wants []string
	}{
		"no kernel":             {withoutKernel, []string{`no kernel`}},
		"no system":             {withoutSystem, []string{`/usr/lib/os-release`}},
		"layer of wrong digest": {changedHeader, []string{`layer sha256:CULPRIT: the SHA-256 of the blob is .*, expected sha256:CULPRIT.*damaged or was changed`}},
		"layer damaged":         {changedMiddle, []string{`layer sha256:CULPRIT: `}},
		"layer of wrong diff":   {wrongDiffID, []string{`layer sha256:CULPRIT`, `diff`}},
	} {
		t.Run(name, func(t *testing.T) {
			raw := filepath.Join(t.TempDir(), "disk.raw")
			makeRaw(t, raw, tinySize)
			ref, culprit := c.ref(t)
			for i := range c.wants {
				c.wants[i] = strings.ReplaceAll(c.wants[i], "CULPRIT", culprit)
			}
			refused(t, 5, installArgs(ref, raw), append(c.wants, `undo: gave up the claim`)...)
		})
	}
}

func withoutKernel(t *testing.T) (string, string) {
	return Variant(t, TinyImage(t), func(w *tar.Writer) error { return writeFiles(w, "usr/lib/modules/.wh.6.1.0") }), ""
}

func withoutSystem(t *testing.T) (string, string) {
	return Variant(t, TinyImage(t), func(w *tar.Writer) error { return writeFiles(w, "usr/lib/.wh.os-release") }), ""
}

// changedHeader changes the layer's blob and not the tar in it: only the digest differs.
func changedHeader(t *testing.T) (string, string) {
	const timeStamp = 4 // in gzip's header, RFC 1952
	return changedLayer(t, func(int64) int64 { return timeStamp })
}

func changedMiddle(t *testing.T) (string, string) {
	return changedLayer(t, func(size int64) int64 { return size / 2 })
}

// changedLayer flips a bit of the layer.
func changedLayer(t *testing.T, where func(size int64) int64) (string, string) {
	t.Helper()
	dir, manifest := ownLayout(t)
	culprit := manifest.Layers[0].Digest.Encoded()
	f, err := os.OpenFile(filepath.Join(dir, "blobs/sha256", culprit), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	one := make([]byte, 1)
	at := where(manifest.Layers[0].Size)
	_, err = f.ReadAt(one, at)
	must(t, err)
	one[0] ^= 0x10
	_, err = f.WriteAt(one, at)
	must(t, err)
	return "oci:" + dir + ":latest", culprit
}

// wrongDiffID makes the configuration lie about the layer's uncompressed content.
func wrongDiffID(t *testing.T) (string, string) {
	dir := filepath.Join(t.TempDir(), "oci")
	src, _ := splitRef(TinyImage(t))
	culprit, err := layout.Forge(src, dir)
	must(t, err)
	return "oci:" + dir + ":latest", culprit.Encoded()
}

func truncatedArchive(t *testing.T) string {
	dir, _ := ownLayout(t)
	archive := filepath.Join(t.TempDir(), "image.tar")
	mustCommand(t, "tar", "-C", dir, "-cf", archive, "oci-layout", "index.json", "blobs")
	info, err := os.Stat(archive)
	must(t, err)
	must(t, os.Truncate(archive, info.Size()/2))
	return "oci-archive:" + archive
}

func textFile(t *testing.T) string {
	name := filepath.Join(t.TempDir(), "image.tar")
	must(t, os.WriteFile(name, []byte(strings.Repeat("this is no archive\n", 100)), 0o644))
	return "oci-archive:" + name
}

func TestRefusedTarget(t *testing.T) {
	ref := TinyImage(t)
	t.Run("too small", func(t *testing.T) {
		raw := rawFile(t, 600<<20)
		refused(t, 4, installArgs(ref, raw), `too small: .*needs a disk of \d+ bytes \(\d+ MiB\), it has 629145600 bytes \(600 MiB\)`)
	})
	t.Run("too small for the image", func(t *testing.T) {
		raw := rawFile(t, tinySize)
		refused(t, 4, installArgs(CacheImage(t), raw), `too small: .*needs a disk of \d{10} bytes`)
	})
	t.Run("root size too large", func(t *testing.T) {
		raw := rawFile(t, tinySize)
		refused(t, 4, installArgs(ref, raw, "--root-size", "2G"), `too small`)
	})
	t.Run("not there", func(t *testing.T) {
		refused(t, 4, installArgs(ref, filepath.Join(t.TempDir(), "none")), `none: no such file`)
	})
	t.Run("a directory", func(t *testing.T) {
		refused(t, 4, installArgs(ref, t.TempDir()), `neither a block device nor a regular file`)
	})
	t.Run("a file without --via-loopback", func(t *testing.T) {
		raw := rawFile(t, tinySize)
		refused(t, 4, []string{"to-disk", "--source-imgref", ref, raw}, `say --via-loopback`)
	})
	t.Run("not empty", func(t *testing.T) {
		raw := filepath.Join(t.TempDir(), "disk.raw")
		makeRaw(t, raw, tinySize)
		mustCommand(t, "sgdisk", "-n", "1:0:+300M", "-c", "1:precious", raw)
		mustCommand(t, "mkfs.ext4", "-q", "-E", "offset=1048576", raw, "300M")
		unchanged(t, raw)
		refused(t, 4, installArgs(ref, raw), `not empty: .*GPT partition table.*partition 1 \(precious\): ext\S* file system.*--wipe`)
	})
	t.Run("no file system maker", func(t *testing.T) {
		for fs, pkg := range map[string]string{"xfs": "xfsprogs", "ext4": "e2fsprogs", "btrfs": "btrfs-progs"} {
			raw := rawFile(t, tinySize)
			r := without("/usr/sbin/mkfs."+fs)(t, installArgs(ref, raw, "--filesystem", fs)...)
			checkRefusal(t, r, 1, `mkfs\.`+fs+` is missing on this machine; to do: install the package `+pkg)
		}
	})
}

// A target that somebody uses is refused before the first write, and it is said who uses it and how.
func TestRefusedBusyTarget(t *testing.T) {
	ref := TinyImage(t)
	for name, c := range map[string]struct {
		busy func(t *testing.T, raw, device string)
		want string
	}{
		"mounted": {func(t *testing.T, _, device string) {
			dir := t.TempDir()
			mustCommand(t, "mkfs.ext4", "-q", device)
			must(t, unix.Mount(device, dir, "ext4", 0, ""))
			t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
		}, `DEVICE: mounted at /\S+ \(umount it\)`},
		"swap": {func(t *testing.T, _, device string) {
			mustCommand(t, "mkswap", device)
			mustCommand(t, "swapon", device)
			t.Cleanup(func() { swapoff(t, device) })
		}, `DEVICE: used as swap \(swapoff DEVICE\)`},
		"claimed": {func(t *testing.T, _, device string) {
			f, err := os.OpenFile(device, os.O_RDWR|unix.O_EXCL, 0)
			must(t, err)
			t.Cleanup(func() { f.Close() })
		}, `DEVICE: claimed exclusively by another program`},
		"locked": {func(t *testing.T, _, device string) {
			f, err := os.OpenFile(device, os.O_RDWR, 0)
			must(t, err)
			t.Cleanup(func() { f.Close() })
			must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
		}, `DEVICE: locked by process \d+ \(tests\.test\)`},
	} {
		t.Run(name, func(t *testing.T) {
			raw := filepath.Join(t.TempDir(), "disk.raw")
			makeRaw(t, raw, tinySize)
			device := loopDevice(t, raw)
			c.busy(t, raw, device)
			r := Run(t, "to-disk", "--source-imgref", ref, "--bootloader", "none", "--wipe", device)
			want := regexp.MustCompile(strings.ReplaceAll(c.want, "DEVICE", device))
			if r.Code != 4 || !want.MatchString(r.Stderr) {
				t.Errorf("exit status %d, want 4 and %s:\n%s", r.Code, want, r.Stderr)
			}
			if parts, err := filepath.Glob("/sys/block/" + filepath.Base(device) + "/loop*p*"); err != nil || len(parts) > 0 {
				t.Errorf("partitions %v (%v)", parts, err)
			}
		})
	}
	t.Run("attached", func(t *testing.T) {
		raw := filepath.Join(t.TempDir(), "disk.raw")
		makeRaw(t, raw, tinySize)
		device := loopDevice(t, raw)
		unchanged(t, raw)
		r := Run(t, installArgs(ref, raw)...)
		if r.Code != 4 || !strings.Contains(r.Stderr, raw+": attached to "+device) || strings.Contains(r.Stderr, "stands on the target") {
			t.Errorf("exit status %d, want 4 and %s named:\n%s", r.Code, device, r.Stderr)
		}
	})
	t.Run("a device with --via-loopback, a partition", func(t *testing.T) {
		raw := rawFile(t, tinySize)
		device := loopDevice(t, raw)
		r := Run(t, installArgs(ref, device)...)
		if r.Code != 4 || !strings.Contains(r.Stderr, "leave that flag out") {
			t.Errorf("exit status %d, want 4:\n%s", r.Code, r.Stderr)
		}
		kit.AddPartition(t, device, 1, 1<<20, 10<<20)
		r = Run(t, "to-disk", "--source-imgref", ref, partitionNode(t, device, 1))
		if r.Code != 4 || !strings.Contains(r.Stderr, "it is partition 1 of "+device+"; to do: give the whole disk") {
			t.Errorf("exit status %d, want 4:\n%s", r.Code, r.Stderr)
		}
	})
}
