package tests

import (
	"archive/tar"
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"installer/tests/layout"
)

// ordinaryUser is who builds in these tests: nobody.
const ordinaryUser = 65534

// userHome is a directory of an ordinary user, with the installer and the image in it.
type userHome struct {
	dir, bin, image string
}

// newUserHome lets that user into a directory of his own, with a copy of the image.
func newUserHome(t *testing.T, image string) userHome {
	t.Helper()
	dir, err := os.MkdirTemp("", "build-vm")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	h := userHome{dir: filepath.Join(dir, "home"), bin: filepath.Join(dir, "installer")}
	must(t, os.Mkdir(h.dir, 0o700))
	must(t, os.Chown(h.dir, ordinaryUser, ordinaryUser))
	mustCommand(t, "install", "-m", "0755", BuildInstaller(t), h.bin)
	src, tag := splitRef(image)
	own := filepath.Join(dir, "oci")
	mustCommand(t, "cp", "-RL", "--", src, own)
	mustCommand(t, "chmod", "-R", "a+rX", own)
	h.image = "oci:" + own + ":" + tag
	return h
}

// command prepares a command of the ordinary user, without any privilege.
func (h userHome) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), h.bin, args...)
	cmd.Dir = h.dir
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + h.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinaryUser, Gid: ordinaryUser}}
	return cmd
}

func (h userHome) run(t *testing.T, args ...string) Result {
	t.Helper()
	cmd, result := h.prepare(t, args...)
	return result(cmd.Run())
}

// prepare returns a command, and a function that makes its result of the error that it ended with.
func (h userHome) prepare(t *testing.T, args ...string) (*exec.Cmd, func(error) Result) {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd := h.command(t, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	return cmd, func(err error) Result {
		t.Helper()
		if cmd.ProcessState == nil {
			t.Fatalf("running the installer: %v", err)
		}
		h.noMachine(t)
		return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
	}
}

// noMachine fails the test if a process of the ordinary user's is left in his home.
func (h userHome) noMachine(t *testing.T) {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	for _, process := range processes {
		cwd, err := os.Readlink(filepath.Join(process, "cwd"))
		var st unix.Stat_t
		hidden := err != nil && !processGone(err) && unix.Stat(process, &st) == nil && st.Uid == ordinaryUser
		if cwd == h.dir || hidden {
			line, _ := os.ReadFile(filepath.Join(process, "cmdline")) // it may have ended since
			t.Errorf("process %s is left: %q (%v)", filepath.Base(process), line, err)
		}
	}
}

// holds fails the test unless the home has just these files.
func (h userHome) holds(t *testing.T, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(h.dir)
	must(t, err)
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	if strings.Join(have, " ") != strings.Join(names, " ") {
		t.Errorf("the directory holds %q, want %q", have, names)
	}
}

// The command of README's recipes for CI, as an ordinary user, makes a disk that is complete:
// released in the guest, whole as a qcow2, cheap where it is empty, and accepted by verify.
func TestBuildByAnOrdinaryUser(t *testing.T) {
	line := recipe(t)
	h := newUserHome(t, CacheImage(t))
	mustCommand(t, "ln", h.bin, filepath.Join(h.dir, "installer"))
	// As podman save --format oci-archive writes it.
	mustCommand(t, "skopeo", "--insecure-policy", "copy", "--quiet", h.image, "oci-archive:"+filepath.Join(h.dir, "myos.oci")+":localhost/myos:latest")
	must(t, os.Chown(filepath.Join(h.dir, "myos.oci"), ordinaryUser, ordinaryUser))
	cmd, result := h.prepare(t)
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-euc", line}
	var ended error
	wait := aside(t, func() { ended = runChild(cmd) })
	t.Parallel()
	wait()
	r := result(ended).Must(t)
	h.holds(t, "disk.qcow2", "installer", "myos.oci", "report.json")
	disk := filepath.Join(h.dir, "disk.qcow2")

	mustCommand(t, "qemu-img", "check", "-q", disk)
	var st unix.Stat_t
	must(t, unix.Stat(disk, &st))
	if allocated := st.Blocks * 512; allocated > 800<<20 {
		t.Errorf("the disk takes %d bytes", allocated)
	}
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	must(t, json.Unmarshal([]byte(mustCommand(t, "qemu-img", "info", "--output=json", disk)), &info))
	if info.Size != 10<<30 {
		t.Errorf("the disk has %d bytes", info.Size)
	}
	checkBuildReport(t, filepath.Join(h.dir, "report.json"), "oci-archive:myos.oci")
	if strings.Count(r.Stdout, "Installation complete: disk.qcow2 (10.0 GiB)") != 1 || guestDevice.MatchString(r.Stdout+r.Stderr) ||
		strings.Contains(r.Stdout+r.Stderr, "--pid=host") { // in the guest there is nothing else to be seen
		t.Errorf("it printed\n%s%s", r.Stdout, r.Stderr)
	}
	LoopSnapshot(t)
	checkRecord(t, disk)
	verifyInMachine(t, h, disk)
}

// recipe returns the command by which README's recipes for CI build a disk: all of a recipe's
// commands but for sudo are the same in both, and each reads the result of the one before.
func recipe(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repoRoot(t), "README.md"))
	must(t, err)
	var recipes [][]string
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		var lines []string
		for _, m := range regexp.MustCompile(`(?m)^ *- (?:run: )?(?:sudo )?((?:apt-get|podman|\./installer) .*)$`).FindAllStringSubmatch(block[1], -1) {
			lines = append(lines, strings.ReplaceAll(m[1], "sudo ", ""))
		}
		recipes = append(recipes, lines)
	}
	if len(recipes) != 2 || !slices.Equal(recipes[0], recipes[1]) || len(recipes[0]) != 4 {
		t.Fatalf("the recipes of README.md are %q", recipes)
	}
	lines := recipes[0]
	for n, want := range []string{
		"apt-get update && apt-get install -y --no-install-recommends podman qemu-system-x86 qemu-utils", "podman build -t localhost/myos .",
		"podman save --format oci-archive -o myos.oci localhost/myos",
	} {
		if lines[n] != want {
			t.Errorf("a recipe has %q, want %q", lines[n], want)
		}
	}
	return lines[3]
}

// checkRecord looks at the disk's record of its own making and at the source of its updates: there
// is nothing of the machine that it was made in. It damages an object.
func checkRecord(t *testing.T, qcow2 string) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "disk.raw")
	mustCommand(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", qcow2, raw)
	record := onRoot(t, raw, os.O_RDONLY, `cat "$1/.bootc-aleph.json"; echo; cat "$1"/ostree/deploy/default/deploy/*.origin`)
	if !strings.Contains(record, "myos.oci") || !strings.Contains(record, "quay.io/example/myos:latest") || strings.Contains(record, "/dev/") {
		t.Errorf("the disk's record, and the source of its updates, are %s", record)
	}
	at := physical(t, raw, "ostree/deploy/*/deploy/*.0/usr/bin/bash") / 512 * 512
	mustCommand(t, "qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("write -P 0x5a %d 512", at), qcow2)
}

// verifyInMachine verifies a disk with a damaged object, as root and as the ordinary user. That
// one's checks are made in a virtual machine, and are the same.
func verifyInMachine(t *testing.T, h userHome, disk string) {
	t.Helper()
	mustCommand(t, "chown", fmt.Sprint(ordinaryUser), disk)
	before := digest(t, disk)
	r := h.run(t, "verify", "--json", "--accel", "tcg", "--image", h.image, filepath.Base(disk))
	report, code := readVerified(t, r)
	wantNamed(t, report, code,
		named{"repository", "/ostree/repo/objects/", "/usr/bin/bash"}, named{"deployment", "/usr/bin/bash", "damaged"})
	same, _ := verified(t, disk)
	for n, c := range same.Checks {
		if got := report.Checks[n]; got.Name != c.Name || got.Status != c.Status || got.Detail != c.Detail {
			t.Errorf("in the machine %+v, here %+v", got, c)
		}
	}
	same.Disk.Path = filepath.Base(disk)
	if !reflect.DeepEqual(report.Findings, same.Findings) || !reflect.DeepEqual(report.Disk, same.Disk) {
		t.Errorf("in the machine %v %+v\nhere %v %+v", report.Findings, report.Disk, same.Findings, same.Disk)
	}
	if digest(t, disk) != before {
		t.Error("verify has changed the disk")
	}
	h.holds(t, "disk.qcow2", "installer", "myos.oci", "report.json")
}

// guestDevice matches names of disks that only the guest knows.
var guestDevice = regexp.MustCompile(`/dev/vd[a-z]|/dev/installer-|"vd[a-z]|/run/source`)

// checkBuildReport looks at the statements of a build about itself: they are the host's where it
// can know.
func checkBuildReport(t *testing.T, path, image string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	var report struct {
		runReport
		Plan    struct{ Target string }
		Machine struct {
			Accel  string
			Phases []struct {
				Phase   string
				Seconds float64
			}
			Checks []struct{ Name, Status string }
		}
	}
	must(t, json.Unmarshal(data, &report))
	dir, _ := splitRef(CacheImage(t))
	manifest, err := layout.First(dir)
	must(t, err)
	if report.Outcome != "complete" || report.Finalize == nil || !report.Finalize.Released || report.Source.Reference != image ||
		report.Source.Digest != manifest.Digest.String() || !strings.HasSuffix(report.Plan.Target, "quay.io/example/myos:latest") {
		t.Errorf("the report is %+v", report)
	}
	checks := map[string]string{}
	for _, c := range report.Machine.Checks {
		checks[c.Name] = c.Status
	}
	for _, name := range []string{"image-file", "partition-table", "bios-boot", "esp-file-system", "esp-boot-files", "root-super-block"} {
		if checks[name] != "passed" {
			t.Errorf("the check %s of the host is %q", name, checks[name])
		}
	}
	for _, p := range report.Machine.Phases {
		t.Logf("phase %-10s %6.1f s", p.Phase, p.Seconds)
	}
	if len(report.Machine.Phases) != 5 {
		t.Errorf("the report has %d phases of the machine", len(report.Machine.Phases))
	}
	if guest := guestDevice.FindAll(data, -1); guest != nil {
		t.Errorf("the report names devices of the guest: %q", guest)
	}
}

// A build that is killed or interrupted, and one whose machine is killed, leaves no process and no
// file.
func TestBuildKilled(t *testing.T) {
	h := newUserHome(t, CacheImage(t))
	for _, c := range []struct {
		name   string
		signal syscall.Signal
		whom   func(*testing.T, *exec.Cmd) int
		want   string // of standard error
		status int    // -1: ended by the signal
	}{
		{"build is killed", syscall.SIGKILL, own, "", -1},
		{"build is interrupted", syscall.SIGINT, own, "interrupt", 1},
		{"machine is killed", syscall.SIGKILL, childOf, "signal: killed", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := h.command(t, "build", "--accel", "tcg", h.image, "disk.qcow2")
			var stderr strings.Builder
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			lines := bufio.NewScanner(stdout)
			for lines.Scan() && !strings.Contains(lines.Text(), "Starting the virtual machine") {
			}
			machine := childOf(t, cmd)
			must(t, syscall.Kill(c.whom(t, cmd), c.signal))
			for lines.Scan() {
			}
			err = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != c.status || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("exit status %d (%v), want %d and %q\n%s", got, err, c.status, c.want, stderr.String())
			}
			gone(t, machine)
			h.noMachine(t)
			h.holds(t)
		})
	}
}

func own(_ *testing.T, cmd *exec.Cmd) int { return cmd.Process.Pid }

func childOf(t *testing.T, cmd *exec.Cmd) int { return childNamed(t, cmd, "qemu-system") }

// childNamed waits for a child process whose name begins so, a few milliseconds after it was
// announced.
func childNamed(t *testing.T, cmd *exec.Cmd, prefix string) int {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
		must(t, err)
		for _, list := range lists {
			text, _ := os.ReadFile(list) // its thread may have ended
			for _, field := range strings.Fields(string(text)) {
				pid, err := strconv.Atoi(field)
				must(t, err)
				if name, _ := os.ReadFile("/proc/" + field + "/comm"); strings.HasPrefix(string(name), prefix) {
					return pid
				}
			}
		}
	}
	t.Fatalf("there is no child process %s", prefix)
	return 0
}

// gone waits for the end of a process that was sent SIGKILL.
func gone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		// An orphan whose new parent has not looked at it yet is gone too.
		if processGone(err) || strings.Contains(string(state), ") Z ") {
			return
		}
	}
	t.Errorf("process %d is left", pid)
}

// Faults of an image or a request that to-disk refuses, build refuses on the host, before a machine
// is started, with the same words and status; a dry run refuses the same.
func TestBuildRefusals(t *testing.T) {
	whole := Variant(t, TinyImage(t), emptyFiles("usr/sbin/mkfs.xfs", "usr/lib/modules/6.1.0/modules.dep")) // but for a boot loader
	without := func(names ...string) string { return Variant(t, whole, emptyFiles(names...)) }
	config := func(toml string) string {
		return Variant(t, whole, func(w *tar.Writer) error {
			err := w.WriteHeader(&tar.Header{Name: "usr/lib/bootc/install/50-test.toml", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(toml))})
			if err == nil {
				_, err = w.Write([]byte(toml))
			}
			return err
		})
	}
	none := "--bootloader=none"
	for _, c := range []struct {
		name   string
		image  string
		status int
		want   string
		args   []string
	}{
		{"no kernel", without("usr/lib/modules/.wh.6.1.0"), 5, "kernel", []string{none}},
		{"no modules", whole, 5, "the kernel has no virtio_pci", []string{none}},
		{"no mkfs.xfs", TinyImage(t), 0, "xfsprogs", []string{none}},
		{"no mkfs.ext4", whole, 0, "e2fsprogs", []string{none, "--filesystem=ext4"}},
		{"no mkfs.btrfs for the configuration", config("[install.filesystem.root]\ntype = \"btrfs\"\n"), 0, "btrfs-progs", []string{none}},
		{"no boot loader", whole, 5, "grub", nil},
		{"too small", whole, 4, "choose a larger --disk-size", []string{none, "--disk-size=600M"}},
		{"root too small", whole, 4, "choose a larger --root-size", []string{none, "--root-size=40M"}},
		{"bad configuration", config("[install]\nkargs = 7\n"), 5, "50-test.toml", []string{none}},
		{"tpm2-luks in the configuration", config("[install]\nblock = [\"tpm2-luks\"]\n"), 5, "tpm2-luks", []string{none}},
		{"binds images", Variant(t, whole, linkLayer("usr/lib/bootc/bound-images.d/x.image", "/usr/share/containers/systemd/x.image")), 5, "--bound-images=skip", []string{none}},
		{"quote in a kernel argument", whole, 0, "", []string{"--karg=a'b"}},
		{"no place for the output", whole, 4, "missing", []string{none, "OUTPUT=missing/disk.qcow2"}},
		{"output is a directory", whole, 2, "name a file", []string{none, "OUTPUT=."}},
		{"arguments swapped", "", 2, "give the image first", []string{"IMAGE=disk.qcow2", "OUTPUT=oci:myos"}},
		{"no image", "", 5, "/nonexistent", []string{"IMAGE=oci:/nonexistent"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newUserHome(t, cmp.Or(c.image, whole))
			args, output := []string{"build", "--accel", "tcg"}, "disk.qcow2"
			for _, arg := range c.args {
				if name, value, _ := strings.Cut(arg, "="); name == "OUTPUT" {
					output = value
				} else if name == "IMAGE" {
					h.image = value
				} else {
					args = append(args, arg)
				}
			}
			args = append(args, h.image, output)
			r, dry := h.run(t, args...), h.run(t, append(args, "--dry-run")...)
			if r.Code == 0 || c.status != 0 && r.Code != c.status || !strings.Contains(r.Stderr, c.want) || strings.Contains(r.Stdout, "Starting the virtual machine") {
				t.Errorf("exit status %d, want %d and %q:\n%s%s", r.Code, c.status, c.want, r.Stdout, r.Stderr)
			}
			if dry.Code != r.Code || dry.Stderr != r.Stderr {
				t.Errorf("a dry run ends with %d and %s", dry.Code, dry.Stderr)
			}
			if guestDevice.MatchString(r.Stderr) || strings.Contains(r.Stderr, "in the virtual machine") {
				t.Errorf("the message names the guest: %s", r.Stderr)
			}
			h.holds(t)
		})
	}
}

// A kernel that only shows in the machine that it does not start is named as the image's fault.
func TestBuildWithBrokenKernel(t *testing.T) {
	h := newUserHome(t, brokenKernelImage(t, kernelModules(t)))
	r := h.run(t, "build", "--accel", "tcg", h.image, "disk.qcow2")
	if r.Code != 5 || !strings.Contains(r.Stderr, "the image's kernel did not start") {
		t.Errorf("exit status %d:\n%s", r.Code, r.Stderr)
	}
	h.holds(t)
}

// QEMU is looked for in the standard directories, too; here each of its names is no program.
func TestBuildWithoutQEMU(t *testing.T) {
	h := newUserHome(t, TinyImage(t))
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-euc", `
		for name in $(command -v qemu-system-x86_64); do mount --bind /dev/null "$name"; done
		cd "$2"; exec setpriv --reuid 65534 --regid 65534 --clear-groups "$1" build "$3" disk.qcow2`, "sh", h.bin, h.dir, h.image)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "qemu-system-x86_64 was not found") || !strings.Contains(string(out), "qemu-system-x86 (Debian)") {
		t.Errorf("%v: %s", err, out)
	}
	h.holds(t)
}

// A dry run reports the plan of to-disk and the machine, and does nothing.
func TestBuildDryRun(t *testing.T) {
	h := newUserHome(t, CacheImage(t))
	r := h.run(t, "build", "--dry-run", "--karg", "quiet", "--filesystem", "ext4", "--report", "report.json", h.image, "disk.qcow2").Must(t)
	for _, want := range []string{"disk.qcow2: qcow2, 10.0 GiB", "EFI-SYSTEM", "ext4, needs", "grub for UEFI and BIOS", "qemu-system-", "quiet", "nothing was written"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("the plan has no %q:\n%s", want, r.Stdout)
		}
	}
	if guestDevice.MatchString(r.Stdout) {
		t.Errorf("the plan names devices of the guest:\n%s", r.Stdout)
	}
	h.holds(t, "report.json")
	var report struct {
		Outcome string
		Machine struct{ Planned struct{ Installer string } }
	}
	must(t, json.Unmarshal([]byte(readText(t, filepath.Join(h.dir, "report.json"))), &report))
	if report.Outcome != "planned" || !strings.Contains(report.Machine.Planned.Installer, "--filesystem=ext4") {
		t.Errorf("the report is %+v", report)
	}
}

// The file system of the output fills up, first under the image's tree, then under the disk that
// the guest writes.
func TestBuildOutputFull(t *testing.T) {
	h := newUserHome(t, CacheImage(t))
	for size, where := range map[string]string{"100m": "Reading the image", "450m": "the virtual machine"} {
		t.Run(size, func(t *testing.T) {
			must(t, unix.Mount("tmpfs", h.dir, "tmpfs", 0, fmt.Sprintf("size=%s,mode=0700,uid=%d,gid=%d", size, ordinaryUser, ordinaryUser)))
			defer func() { must(t, unix.Unmount(h.dir, 0)) }()
			r := h.run(t, "build", "--accel", "tcg", h.image, "disk.qcow2")
			if r.Code != 1 || !strings.Contains(r.Stderr, "is full") || !strings.Contains(r.Stderr, where) {
				t.Errorf("exit status %d:\n%s", r.Code, r.Stderr)
			}
			h.holds(t)
		})
	}
}

// kernelModules is the directory of the image's kernel.
func kernelModules(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(FlattenOracle(t, CacheImage(t)), "usr/lib/modules/*/vmlinuz"))
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("the image has %d kernels", len(found))
	}
	return "usr/lib/modules/" + filepath.Base(filepath.Dir(found[0]))
}

// brokenKernelImage has a kernel whose packed part is damaged: it starts, and gives up.
func brokenKernelImage(t *testing.T, modules string) string {
	t.Helper()
	kernel, err := os.ReadFile(filepath.Join(FlattenOracle(t, CacheImage(t)), modules, "vmlinuz"))
	must(t, err)
	for n := range 64 << 10 {
		kernel[len(kernel)/2+n] ^= 0x5a
	}
	return Variant(t, CacheImage(t), func(w *tar.Writer) error {
		err := w.WriteHeader(&tar.Header{Name: modules + "/vmlinuz", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(kernel))})
		if err == nil {
			_, err = w.Write(kernel)
		}
		return err
	})
}

// linkLayer fills a layer with one symbolic link.
func linkLayer(name, target string) func(*tar.Writer) error {
	return func(w *tar.Writer) error {
		return w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target})
	}
}

// emptyFiles fills a layer with empty files.
func emptyFiles(names ...string) func(*tar.Writer) error {
	return func(w *tar.Writer) error {
		for _, name := range names {
			if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
				return err
			}
		}
		return nil
	}
}
