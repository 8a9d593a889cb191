package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A report replaces nothing that the command uses, under whatever name, and nothing that is no
// report: also in a dry run.
func TestReportReplacesNothingElse(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	image, _ := ownLayout(t)
	ref := "oci:" + image + ":latest"
	raw, other := rawFile(t, tinySize), in("notes")
	must(t, os.WriteFile(other, []byte("notes"), 0o600))
	must(t, os.Link(raw, in("hard")))
	must(t, os.Symlink(raw, in("soft")))
	keys := in("keys")
	must(t, os.WriteFile(keys, nil, 0o600))
	spare := filepath.Join(t.TempDir(), "spare.raw")
	makeRaw(t, spare, tinySize)
	device := loopDevice(t, spare)
	node := in("node")
	var st unix.Stat_t
	must(t, unix.Stat(device, &st))
	must(t, unix.Mknod(node, unix.S_IFBLK|0o600, int(st.Rdev)))
	for _, name := range []string{image + "/index.json", image + "/oci-layout", other} {
		unchanged(t, name)
	}
	install := installArgs(ref, raw)
	for report, want := range map[string]string{
		raw: "is the target", in("hard"): "is the target", in("soft"): "is the target", filepath.Dir(raw) + "/../" + filepath.Base(filepath.Dir(raw)) + "/disk.raw": "is the target",
		device: "is a block device", node: "is a block device", "/dev/null/x": "not a directory",
		image + "/index.json": "the source image", image + "/blobs/sha256/new.json": "the source image", image + "/new.json": "the source image",
		other: "exists, and is no report", dir: "is a directory",
	} {
		for _, dry := range []string{"--yes", "--dry-run"} {
			refusedBusy(t, 2, append(install, dry, "--report", report), "--report: .*"+want)
		}
	}
	authfile := in("auth.json")
	must(t, os.WriteFile(authfile, nil, 0o600))
	refusedBusy(t, 2, append(install, "--authfile", authfile, "--report", authfile), "an input of this command")
	refusedBusy(t, 4, append(install, "--root-size", "9T", "--report", in("report.json")), "too small") // another name is taken

	output := in("disk.qcow2")
	for report, want := range map[string]string{output: "is OUTPUT", dir + "/./disk.qcow2": "is OUTPUT", image + "/index.json": "the source image", other: "no report"} {
		refusedBusy(t, 2, []string{"build", "--dry-run", "--report", report, ref, output}, want)
	}
	refusedBusy(t, 2, []string{"build", "--dry-run", ref, image + "/index.json"}, "OUTPUT: .*the source image")

	root := mountTiny(t)
	onTarget := filepath.Join(root, "report.json")
	for _, args := range [][]string{{"to-filesystem", "--source-imgref", ref, "--bootloader", "none", "--report", onTarget, root}, {"finalize", "--report", onTarget, root}} {
		refusedBusy(t, 2, args, "lies in the target")
	}
	refusedBusy(t, 2, []string{"report", "-o", in("report.json"), in("report.json")}, "the report that the page is made of")
}

// refusedBusy is refused where loop devices and mounts of the test itself are there.
func refusedBusy(t *testing.T, status int, args []string, want string) {
	t.Helper()
	checkMessage(t, Run(t, args...), status, want)
}

// A relative path is that of the directory that the user was in, and a report that is replaced
// keeps its mode and owner.
func TestReportStaysWhereItWas(t *testing.T) {
	dir, root := t.TempDir(), mountTiny(t)
	report := filepath.Join(dir, "rel.json")
	must(t, os.WriteFile(report, nil, 0o640))
	must(t, os.Chmod(report, 0o640))
	must(t, os.Chown(report, 1234, 4321))
	for range 2 { // the second replaces a report
		cmd := exec.Command(BuildInstaller(t), "finalize", "--keep-mounted", "--report", "rel.json", root)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
	}
	info, err := os.Stat(report)
	must(t, err)
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 1234 || st.Gid != 4321 || info.Mode().Perm() != 0o640 || st.Size == 0 {
		t.Errorf("%+v", st)
	}
	if _, err := os.Stat("/rel.json"); err == nil {
		t.Error("the report is in /")
	}
}

// An installation whose output was lost has failed, and so has one whose reader went away; both are
// done to their end.
func TestLostOutput(t *testing.T) {
	for name, tail := range map[string]string{"full": ">/dev/full", "pipe": "| true"} {
		raw := filepath.Join(t.TempDir(), "disk.raw")
		makeRaw(t, raw, tinySize)
		report := raw + ".json"
		args := append([]string{"-c", `set -o pipefail; "$@" ` + tail, "bash", BuildInstaller(t)}, installArgs(TinyImage(t), raw, "--progress", "json", "--report", report)...)
		r := RunBinary(t, "bash", args...)
		if r.Code != 1 || !strings.Contains(r.Stderr, "installer: error: writing standard output: ") || strings.Contains(r.Stderr, "to do") {
			t.Errorf("%s: exit status %d:\n%s", name, r.Code, r.Stderr)
		}
		if got := readReport(t, report); got.Outcome != "complete" {
			t.Errorf("%s: the report says %s", name, got.Outcome)
		}
	}
}

// A machine that lacks something that an installation needs in the end is refused before the first
// write.
func TestRefusedPlace(t *testing.T) {
	inside := func(script string) []string {
		return []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", script + ` && exec "$@"`, "sh"}
	}
	for name, c := range map[string]struct {
		before []string
		want   string
	}{
		"few open files": {[]string{"sh", "-c", `ulimit -n 256 && exec "$@"`, "sh"}, `256 files open, and the installation needs \d+; to do: raise the limit: ulimit -Hn`},
		"no /dev/null":   {inside("mount -t tmpfs x /dev && mknod /dev/loop-control c 10 237"), `/dev/null is missing; to do: make it: mknod`},
		"no /sys":        {inside("mount -t tmpfs x /sys"), `/sys is not mounted; to do: mount /sys`},
		"no /proc":       {inside("mount -t tmpfs x /proc"), `/proc/`},
		"capabilities":   {[]string{"capsh", "--drop=cap_setfcap,cap_linux_immutable", "--", "-c", `exec "$@"`, "sh"}, `lacks CAP_LINUX_IMMUTABLE, CAP_SETFCAP; to do: run the container with --privileged`},
		"no mounts":      {[]string{"capsh", "--drop=cap_sys_admin", "--", "-c", `exec "$@"`, "sh"}, `CAP_SYS_ADMIN`},
		"user namespace": {[]string{"unshare", "--map-root-user", "--mount", "sh", "-c", `exec "$@"`, "sh"}, `root of a user namespace can neither mount disks`},
		"no namespaces":  {[]string{"unshare", "--user", "--map-root-user", "sh", "-c", `echo 0 >/proc/sys/user/max_pid_namespaces; exec "$@"`, "sh"}, `no namespaces can be made for helper programs`},
	} {
		t.Run(name, func(t *testing.T) {
			raw := rawFile(t, tinySize)
			line := append(append(c.before, BuildInstaller(t)), installArgs(TinyImage(t), raw)...)
			checkMessage(t, RunBinary(t, line[0], line[1:]...), 1, c.want)
		})
	}
}
