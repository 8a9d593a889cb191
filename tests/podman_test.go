package tests

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// podman is a store of containers of its own, with the image of the installer in it.
type podman struct {
	dir string
	run string // podman takes no path of more than 50 characters
}

// installerImage is the image that Containerfile makes of the bootable one.
const installerImage = "localhost/bootable-with-installer"

// newPodman copies the bootable image into a new store and builds on it by the Containerfile.
func newPodman(t *testing.T) podman {
	t.Helper()
	run, err := os.MkdirTemp("/run", "installer-podman-")
	must(t, err)
	p := podman{dir: t.TempDir(), run: run}
	t.Cleanup(func() { p.remove(t) })
	dir, tag := splitRef(CacheImage(t))
	mustCommand(t, "skopeo", "copy", "--quiet", "oci:"+dir+":"+tag,
		fmt.Sprintf("containers-storage:[overlay@%s+%s]localhost/bootable:latest", p.root(), p.run))
	build := t.TempDir()
	copyTo(t, BuildInstaller(t), filepath.Join(build, "installer"), 0o755)
	p.must(t, "build", "--quiet", "--pull=never", "--build-arg", "BASE=localhost/bootable:latest",
		"--tag", installerImage, "--file", filepath.Join(repoRoot(t), "Containerfile"), build)
	return p
}

func (p podman) root() string { return filepath.Join(p.dir, "root") }
func (p podman) flags(a ...string) []string {
	return append([]string{"--root", p.root(), "--runroot", p.run, "--tmpdir", filepath.Join(p.dir, "tmp"), "--runtime", "runc"}, a...)
}

func (p podman) must(t *testing.T, args ...string) {
	t.Helper()
	mustCommand(t, "podman", p.flags(args...)...)
}

// install runs the installer in a privileged container of its own image. The limits are what a container
// gets that may not raise its own.
func (p podman) install(t *testing.T, volumes []string, args ...string) Result {
	t.Helper()
	run := p.flags("run", "--rm", "--pull=never", "--privileged", "--pid=host", "--network=none",
		"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--volume", "/dev:/dev")
	for _, v := range volumes {
		run = append(run, "--volume", v)
	}
	return RunBinary(t, "podman", append(append(run, installerImage, "installer", "to-disk", "--generic-image"), args...)...)
}

// remove undoes the mount that the storage library leaves on its directory, and what no temporary
// directory of the test holds.
func (p podman) remove(t *testing.T) {
	t.Helper()
	must(t, os.RemoveAll(p.run))
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	if at := filepath.Join(p.root(), "overlay"); strings.Contains(string(mounts), " "+at+" ") {
		_, err := command(context.Background(), "umount", at)
		must(t, err)
	}
}

func copyTo(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	in, err := os.Open(from)
	must(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, err)
	must(t, out.Close())
}

// The image installs itself from inside a container: from a layout on a raw disk file, and from podman's
// store on a block device.
func TestPodman(t *testing.T) {
	p := newPodman(t)
	t.Run("layout to file", func(t *testing.T) {
		dir := t.TempDir()
		raw := filepath.Join(dir, "disk.raw")
		makeRaw(t, raw, diskSize)
		layoutDir, _ := splitRef(CacheImage(t))
		p.install(t, []string{layoutDir + ":/src:ro", dir + ":/out"}, "--via-loopback", "--source-imgref", "oci:/src",
			"--report", "/out/report.json", "/out/disk.raw").Must(t)
		nothingLeft(t, dir)
		if r := readReport(t, filepath.Join(dir, "report.json")); r.Outcome != "complete" || r.Finalize == nil || !r.Finalize.Released {
			t.Errorf("the report says %q", r.Outcome)
		}
		FsckAll(t, raw, "xfs")
		OstreeChecks(t, MountRootReadOnly(t, raw))
	})
	t.Run("store to device", func(t *testing.T) {
		raw := filepath.Join(t.TempDir(), "disk.raw")
		makeRaw(t, raw, diskSize)
		device := loopDevice(t, raw)
		t.Cleanup(func() { deletePartitions(t, device) })
		// With no source named it is the container's own image.
		r := p.install(t, []string{p.root() + ":/var/lib/containers/storage"}, "--quiet", "--filesystem", "ext4", device).Must(t)
		if r.Stdout != "" || r.Stderr != "" {
			t.Errorf("standard output %q, standard error %q", r.Stdout, r.Stderr)
		}
		announced(t, raw, device)
		FsckAll(t, raw, "ext4")
		root := MountRootReadOnly(t, raw)
		OstreeChecks(t, root)
		if _, err := os.Stat(filepath.Join(DefaultDeployment(t, root), "usr/bin/installer")); err != nil {
			t.Errorf("the layer of the Containerfile is not in the deployment: %v", err)
		}
	})
}

// On a block device the kernel knows the new partitions in the end, also in place of older ones, and the
// device is free.
func TestBlockDevice(t *testing.T) {
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	device := loopDevice(t, raw)
	t.Cleanup(func() { deletePartitions(t, device) })
	args := []string{"to-disk", "--source-imgref", TinyImage(t), "--bootloader", "none"}
	Run(t, append(args, device)...).Must(t)
	announced(t, raw, device)
	before := mustCommand(t, "lsblk", "--bytes", "--noheadings", "--list", "--output", "SIZE", device)
	r := Run(t, append(args, device)...)
	if r.Code != 4 || !strings.Contains(r.Stderr, "not empty") {
		t.Errorf("exit status %d, want 4:\n%s", r.Code, r.Stderr)
	}
	Run(t, append(args, "--wipe", "--root-size", "400M", "--filesystem", "ext4", device)...).Must(t)
	announced(t, raw, device)
	FsckAll(t, raw, "ext4")
	if after := mustCommand(t, "lsblk", "--bytes", "--noheadings", "--list", "--output", "SIZE", device); after == before {
		t.Errorf("a root of another size changed nothing: %s", after)
	}
	free, err := os.OpenFile(device, os.O_RDWR|os.O_EXCL, 0)
	must(t, err)
	must(t, free.Close())
}

// announced compares the kernel's partitions of a device with the table as sfdisk reads it.
func announced(t *testing.T, raw, device string) {
	t.Helper()
	want, err := Partitions(t.Context(), raw)
	must(t, err)
	got := kernelPartitions(t, device)
	if len(got) != len(want) {
		t.Fatalf("the kernel knows %v, the table has %v", got, want)
	}
	for i, p := range want {
		if g := got[i+1]; g != [2]int64{p.Start, p.Size} {
			t.Errorf("partition %d is at %v for the kernel, at %d+%d in the table", i+1, g, p.Start, p.Size)
		}
	}
}

// kernelPartitions are start and size, in bytes, by number.
func kernelPartitions(t *testing.T, device string) map[int][2]int64 {
	t.Helper()
	const sector = 512 // of sysfs, whatever the device's
	number := func(dir, name string) int64 {
		b, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		must(t, err)
		return n
	}
	dirs, err := filepath.Glob("/sys/block/" + filepath.Base(device) + "/*/partition")
	must(t, err)
	found := map[int][2]int64{}
	for _, file := range dirs {
		dir := filepath.Dir(file)
		found[int(number(dir, "partition"))] = [2]int64{number(dir, "start") * sector, number(dir, "size") * sector}
	}
	return found
}

func deletePartitions(t *testing.T, device string) {
	t.Helper()
	for number := range kernelPartitions(t, device) {
		_, err := command(context.Background(), "delpart", device, strconv.Itoa(number))
		must(t, err)
	}
}
