package tests

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The README's table of exit statuses, for each cause and every command that it can happen to: the
// status is the same.
func TestExitStatuses(t *testing.T) {
	ref, dir := TinyImage(t), t.TempDir()
	raw, none, disk := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "none"), filepath.Join(dir, "new.qcow2")
	makeRaw(t, raw, tinySize)
	mounted := mountExt4(t, 64<<20)
	twoKernels := Variant(t, ref, func(w *tar.Writer) error {
		return writeFiles(w, "usr/lib/modules/6.2.0/vmlinuz", "usr/lib/modules/6.2.0/initramfs.img")
	})
	badConfig := Variant(t, ref, func(w *tar.Writer) error {
		const text = "[install\n"
		err := w.WriteHeader(&tar.Header{Name: "usr/lib/bootc/install/10-x.toml", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))})
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		return err
	})
	toDisk := func(ref, device string, more ...string) []string {
		return append([]string{"to-disk", "--via-loopback", "--bootloader", "none", "--source-imgref", ref, device}, more...)
	}
	toFilesystem := func(ref, root string, more ...string) []string {
		return append([]string{"to-filesystem", "--bootloader", "none", "--source-imgref", ref, root}, more...)
	}
	build := func(ref, output string, more ...string) []string {
		return append([]string{"build", "--dry-run", "--bootloader", "none", ref, output}, more...)
	}
	for _, c := range []struct {
		cause  string
		status int
		want   string
		run    func(*testing.T, ...string) Result
		lines  [][]string
	}{
		{"unknown flag", 2, `did you mean "--report"?`, nil, [][]string{toDisk(ref, raw, "--reprot=x"), toFilesystem(ref, mounted, "--reprot=x"),
			build(ref, disk, "--reprot=x"), {"finalize", "--reprot=x", mounted}, {"holders", "--reprot=x", mounted}}},
		{"report in no directory", 2, "--report: ", nil, [][]string{toDisk(ref, raw, "--report", none+"/x"), toFilesystem(ref, mounted, "--report", none+"/x"),
			build(ref, disk, "--report", none+"/x"), {"finalize", "--report", none + "/x", mounted}, {"holders", "--report", none + "/x", mounted}}},
		{"credentials that are not there", 2, "--authfile: ", nil, [][]string{toDisk(ref, raw, "--authfile", none), toFilesystem(ref, mounted, "--authfile", none), build(ref, disk, "--authfile", none)}},
		{"image without a transport", 2, "to do: for an image of a registry give docker://quay.io/x", nil,
			[][]string{toDisk("quay.io/x", raw), toFilesystem("quay.io/x", mounted), build("quay.io/x", disk), {"print-configuration", "--source-imgref", "quay.io/x"}, {"verify", "--image", "quay.io/x", raw}}},
		{"not root", 1, "not root: ", unprivileged, [][]string{toDisk(ref, raw), toFilesystem(ref, mounted), {"finalize", mounted}}},
		{"target that is not there", 4, "none: no such file", nil, [][]string{toDisk(ref, none), toFilesystem(ref, none), build(ref, none+"/x"), {"finalize", none}, {"holders", none}, {"verify", none}}},
		{"source that is not there", 5, "no such file", nil, [][]string{toDisk("oci:"+none, raw), toFilesystem("oci:"+none, mounted), build("oci:"+none, disk), {"print-configuration", "--source-imgref", "oci:" + none}}},
		{"two kernels", 5, "kernels", nil, [][]string{toDisk(twoKernels, raw), toFilesystem(twoKernels, mounted), build(twoKernels, disk)}},
		{"bad configuration", 5, "10-x.toml", nil, [][]string{toDisk(badConfig, raw), toFilesystem(badConfig, mounted), build(badConfig, disk), {"print-configuration", "--source-imgref", badConfig}}},
		{"no file system maker here", 1, "mkfs.xfs is missing on this machine", without("/usr/sbin/mkfs.xfs"), [][]string{toDisk(ref, raw)}},
		{"no QEMU", 1, "qemu-", without("/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-img"), [][]string{build(ref, disk), {"verify", "--image", ref, raw}}},
	} {
		t.Run(c.cause, func(t *testing.T) {
			run := c.run
			if run == nil {
				run = func(t *testing.T, args ...string) Result { return Run(t, args...) }
			}
			for _, line := range c.lines {
				r := run(t, line...)
				if r.Code != c.status || !strings.Contains(r.Stderr+r.Stdout, c.want) {
					t.Errorf("%s: exit status %d, want %d and %q:\n%s%s", strings.Join(line, " "), r.Code, c.status, c.want, r.Stdout, r.Stderr)
				}
			}
		})
	}
}

// unprivileged runs the installer as nobody, who need not reach it by its path.
func unprivileged(t *testing.T, args ...string) Result {
	t.Helper()
	program, err := os.Open(BuildInstaller(t))
	must(t, err)
	defer program.Close()
	cmd := exec.Command("/proc/self/fd/3", args...)
	cmd.ExtraFiles = []*os.File{program}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // its exit status says how it ended
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// without runs the installer where some programs are hidden, in a mount namespace of its own.
func without(programs ...string) func(*testing.T, ...string) Result {
	script := ""
	for _, p := range programs {
		script += "mount --bind /dev/null " + p + " && "
	}
	return func(t *testing.T, args ...string) Result {
		t.Helper()
		return RunBinary(t, "unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script + `exec "$@"`, "sh", BuildInstaller(t)}, args...)...)
	}
}
