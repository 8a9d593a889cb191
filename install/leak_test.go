package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"installer/disk"
	"installer/rootfs/bootloader"
	"installer/rootfs/image"
	"installer/tests/sample"
)

// inNamespaceVariable is set for the test's own child, which is in a mount namespace of its own.
const inNamespaceVariable = "INSTALLER_TEST_LEAKS"

// Installations that succeed, fail and are interrupted leave nothing in the process: no goroutine,
// no descriptor, no mapping of a file, no child. And they end no process that they did not start:
// neither a child that the process was born with, nor an orphan that fell to it as process 1.
func TestNoLeaks(t *testing.T) {
	if os.Getenv(inNamespaceVariable) == "" {
		cmd := exec.Command("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", os.Args[0], "-test.run", "^TestNoLeaks$", "-test.v")
		cmd.Env = append(os.Environ(), inNamespaceVariable+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestNoLeaks") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if os.Getpid() != 1 {
		t.Fatalf("the process has the id %d, want 1", os.Getpid())
	}
	if err := errors.Join(exec.Command("sleep", "1000").Start(), exec.Command("sh", "-c", "sleep 1001 >/dev/null 2>&1 &").Run()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source := tinySystem(t, dir)
	installOnce(t, source, dir, "") // the libraries open their lasting files in the first run
	before := holdings(t, dir)
	if n := strings.Count(before, "child "); n != 2 {
		t.Fatalf("%d children are seen, want the two that no installation started:\n%s", n, before)
	}
	// Not in finalize: a target that is not released stays with the process, as ToDisk says.
	for _, stop := range []string{"", "format", "import", "deploy", "boot-loader", ""} {
		installOnce(t, source, dir, stop)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		after := holdings(t, dir)
		if after == before {
			return
		}
		if time.Now().After(deadline) { // a goroutine needs a moment to end
			stacks := make([]byte, 1<<20)
			t.Fatalf("before:\n%s\nafter:\n%s\n%s", before, after, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// tinySystem is a tree of a few files that is shaped like a system.
func tinySystem(t *testing.T, dir string) image.Ref {
	t.Helper()
	root := filepath.Join(dir, "tree")
	files := sample.Files("amd64", "6.1.0", nil)
	files["usr/lib/os-release"], files["etc/passwd"] = []byte("ID=tiny\n"), []byte("root:x:0:0::/root:/bin/sh\n")
	for name, data := range files {
		mode := fs.FileMode(0o644)
		if sample.Executable(name) {
			mode = 0o755
		}
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"ostree": "sysroot/ostree", "bin": "usr/bin"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"boot", "dev", "proc", "run", "sys", "sysroot", "tmp", "var"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ref, err := image.ParseRef("rootfs:" + root)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// installOnce installs, and interrupts the run when the step stop begins.
func installOnce(t *testing.T, source image.Ref, dir, stop string) {
	t.Helper()
	raw := filepath.Join(dir, "disk.raw")
	if err := errors.Join(os.WriteFile(raw, nil, 0o600), os.Truncate(raw, 1<<30)); err != nil {
		t.Fatal(err)
	}
	o := Options{Device: raw, ViaLoopback: true, Source: source, Filesystem: disk.Ext4, Wipe: true, Stateroot: "default",
		Bootloader: bootloader.None, BoundImages: BoundSkip, WorkDir: filepath.Join(dir, "work")}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	report, err := ToDisk(ctx, o, func(e Event) {
		if e.Kind == EventStep && e.Step == stop {
			cancel(fmt.Errorf("stopped in %s: %w", stop, context.Canceled))
		}
	})
	if (err == nil) != (stop == "") || (report.Outcome == Complete) != (stop == "") {
		t.Fatalf("stopped in %q: %v, %s", stop, err, report.Outcome)
	}
}

// holdings lists everything that a process can forget to give back; of mounts, those below dir.
func holdings(t *testing.T, dir string) string {
	t.Helper()
	runtime.GC()
	var b strings.Builder
	fmt.Fprintf(&b, "%d goroutines\n", runtime.NumGoroutine())
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil {
			fmt.Fprintln(&b, "fd", to)
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if fields := strings.Fields(line); len(fields) > 5 && strings.HasPrefix(fields[5], "/") && !strings.HasSuffix(fields[5], ".test") {
			fmt.Fprintln(&b, "map", fields[5])
		}
	}
	children, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range children {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, pid := range strings.Fields(string(text)) {
			stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
			fmt.Fprintf(&b, "child %.20s (%v)\n", stat, err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir) { // others are of the machine, which may remove their mount points
			b.WriteString(line)
		}
	}
	return b.String()
}
