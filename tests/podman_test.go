package tests

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"installer/tests/kit"
)

// podman is a store of containers of its own, with the image of the installer in it. It stands
// where podman has its storage on any machine, in a mount namespace of the test's, whose mounts are
// shared as those of a host with systemd are.
type podman struct {
	*workplace
	state string // podman takes no path of more than 50 characters
}

// podmanRoot is podman's storage, as the README has it.
const podmanRoot = "/var/lib/containers/storage"

// installerImage is the image that Containerfile makes of the bootable one.
const installerImage = "localhost/bootable-installer"

// newPodman copies the bootable image into a new store and builds on it by the Containerfile, as the
// README says.
func newPodman(t *testing.T) podman {
	t.Helper()
	state, err := os.MkdirTemp("/run", "installer-podman-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(state)) })
	store := t.TempDir()
	must(t, os.MkdirAll(filepath.Dir(podmanRoot), 0o700))
	p := podman{newWorkplace(t), state}
	p.run("mount", "--make-rshared", "/")
	p.run("mount", "--bind", store, filepath.Dir(podmanRoot))
	dir, tag := splitRef(CacheImage(t))
	p.run("skopeo", "copy", "--quiet", "oci:"+dir+":"+tag,
		fmt.Sprintf("containers-storage:[overlay@%s+%s]localhost/bootable:latest", podmanRoot, p.state))
	build := t.TempDir()
	copyTo(t, BuildInstaller(t), filepath.Join(build, "installer"), 0o755)
	copyTo(t, filepath.Join(repoRoot(t), "Containerfile"), filepath.Join(build, "Containerfile"), 0o644)
	p.readme(t, build, `^podman build `, "IMAGE-installer", installerImage, "IMAGE", "localhost/bootable").Must(t)
	return p
}

// readme runs the one command of README.md that matches a pattern, in a directory, with the names
// that a reader has to put in for those that stand there, and with the flags that podman needs on
// this machine.
func (p podman) readme(t *testing.T, dir, pattern string, names ...string) Result {
	t.Helper()
	commands := readmeCommands(t, pattern)
	if len(commands) != 1 {
		t.Fatalf("README.md has %d commands that match %q: %q", len(commands), pattern, commands)
	}
	fields := strings.Fields(strings.NewReplacer(names...).Replace(commands[0])) // none of them is quoted
	argv := p.podman(dir, fields[1], fields[2:]...)
	return RunBinary(t, argv[0], argv[1:]...)
}

// podman is a command of podman in a directory, with the flags that it takes where limits cannot be
// raised and no network can be made. Podman 5 warns of the control groups of the machine's kernel.
func (p podman) podman(dir, command string, args ...string) []string {
	argv := p.argv("env", "--chdir="+dir, "PODMAN_IGNORE_CGROUPSV1_WARNING=1", "podman", "--runroot", p.state, "--tmpdir", p.state+"/tmp", "--runtime", "runc", command)
	if command == "run" {
		argv = append(argv, "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")
		if !slices.Contains(args, "--network=none") {
			argv = append(argv, "--network=none")
		}
	}
	return append(argv, args...)
}

// install runs to-disk in a privileged container of the installer's own image.
func (p podman) install(t *testing.T, volumes []string, args ...string) Result {
	t.Helper()
	run := []string{"--rm", "--pull=never", "--privileged", "--pid=host", "--volume", "/dev:/dev"}
	for _, v := range volumes {
		run = append(run, "--volume", v)
	}
	argv := p.podman("/", "run", append(append(run, installerImage, "installer", "to-disk", "--generic-image"), args...)...)
	return RunBinary(t, argv[0], argv[1:]...)
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

// The image installs itself from inside a container: from a layout on a raw disk file, and by the
// commands of the README.
func TestPodman(t *testing.T) {
	p := newPodman(t)
	t.Run("layout to file", func(t *testing.T) {
		dir := t.TempDir()
		raw := filepath.Join(dir, "disk.raw")
		makeRaw(t, raw, diskSize)
		layoutDir, _ := splitRef(CacheImage(t))
		r := p.install(t, []string{layoutDir + ":/src:ro", dir + ":/out"}, "--quiet", "--filesystem", "ext4", "--via-loopback",
			"--source-imgref", "oci:/src", "--report", "/out/report.json", "/out/disk.raw").Must(t)
		if r.Stdout != "" || r.Stderr != "" {
			t.Errorf("standard output %q, standard error %q", r.Stdout, r.Stderr)
		}
		if loops, err := loopsBelow(dir); err != nil || len(loops) > 0 { // a child of this test keeps the store
			t.Errorf("left behind: %v, %v", loops, err)
		}
		if r := readReport(t, filepath.Join(dir, "report.json")); r.Outcome != "complete" || r.Finalize == nil || !r.Finalize.Released {
			t.Errorf("the report says %q", r.Outcome)
		}
		FsckAll(t, raw, "ext4")
		OstreeChecks(t, MountRootReadOnly(t, raw))
	})
	t.Run("store to device", func(t *testing.T) { readmeToDisk(t, p) })
	t.Run("store to file systems", func(t *testing.T) { readmeToFilesystem(t, p) })
	t.Run("finalize", func(t *testing.T) { finalizeInContainers(t, p) })
}

// On a block device the kernel knows the new partitions in the end, also in place of older ones,
// and the device is free.
func TestBlockDevice(t *testing.T) {
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	device := loopDevice(t, raw)
	scanPartitions(t, device) // the kernel's list goes with such a loop device alone
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
		kit.DeletePartition(t, device, number)
	}
}
