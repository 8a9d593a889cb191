package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"installer/tests/kit"

	"golang.org/x/sys/unix"
)

// workplace is a mount namespace in which a test makes its targets: in the first one, whoever makes
// a namespace meanwhile gets a copy of them. A process keeps it; its mounts go with it.
type workplace struct {
	t      testing.TB
	keeper *kit.Child
}

func newWorkplace(t testing.TB) *workplace {
	t.Helper()
	// On the first processor, so that namespaces made elsewhere count as younger: see bindNamespace.
	return &workplace{t, startHolder(t, "taskset", "-c", "0", "unshare", "--mount", "--propagation", "private", holdProgram(t), "nothing")}
}

// argv makes a command run in the workplace, by the same process id.
func (w *workplace) argv(args ...string) []string {
	return append([]string{"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", w.keeper.PID), "--"}, args...)
}

// run runs a command that must succeed, and returns its output.
func (w *workplace) run(args ...string) string {
	w.t.Helper()
	argv := w.argv(args...)
	return strings.TrimSpace(mustCommand(w.t, argv[0], argv[1:]...))
}

// installer runs a command of the installer.
func (w *workplace) installer(args ...string) Result {
	w.t.Helper()
	argv := w.argv(append([]string{BuildInstaller(w.t)}, args...)...)
	return RunBinary(w.t, argv[0], argv[1:]...)
}

// hold starts the program that holds.
func (w *workplace) hold(kind string, args ...string) *kit.Child {
	w.t.Helper()
	return startHolder(w.t, w.argv(append([]string{holdProgram(w.t), kind}, args...)...)...)
}

// outside is the path by which a process in another namespace reaches one of the workplace.
func (w *workplace) outside(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", w.keeper.PID, path)
}

// target is a file system on a loop device, mounted in a workplace.
type target struct {
	*workplace
	fs, dir, node string
	loop          *os.File
}

func (w *workplace) target(fs string) *target {
	w.t.Helper()
	dir := w.t.TempDir()
	image := filepath.Join(dir, "image")
	makeRaw(w.t, image, 320<<20)
	mustCommand(w.t, "mkfs."+fs, "-q", image)
	loop, err := attach(image, os.O_RDWR, 0, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { loop.Close() })
	x := &target{w, fs, filepath.Join(dir, "mnt"), loop.Name(), loop}
	if err := os.Mkdir(x.dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	x.mount()
	x.run("mkdir", x.path("dir"))
	x.fill()
	return x
}

func (x *target) path(name string) string { return filepath.Join(x.dir, name) }

func (x *target) mount() {
	x.t.Helper()
	x.run("mount", "-t", x.fs, x.node, x.dir)
}

// fill makes the files that are held.
func (x *target) fill() {
	x.t.Helper()
	for _, name := range []string{"file", "dir/file", "doomed"} {
		if err := os.WriteFile(x.outside(x.path(name)), make([]byte, 1<<20), 0o644); err != nil {
			x.t.Fatal(err)
		}
	}
}

// mounted reports whether the target is mounted in the workplace, and with which super options.
func (x *target) mounted() (options string, ok bool) {
	x.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", x.keeper.PID))
	if err != nil {
		x.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[4] == x.dir {
			return fields[len(fields)-1], true
		}
	}
	return "", false
}

// asItWas fails the test unless the target is mounted and can be written to.
func (x *target) asItWas() {
	x.t.Helper()
	if options, ok := x.mounted(); !ok || !strings.HasPrefix(options, "rw") {
		x.t.Errorf("mounted: %v, with %q", ok, options)
		return
	}
	if err := os.WriteFile(x.outside(x.path("still writable")), nil, 0o600); err != nil {
		x.t.Error(err)
	}
}

// released runs finalize, which must succeed at once with one umount2, and mounts the target anew.
func (x *target) released(flags ...string) {
	x.t.Helper()
	defer func() {
		if _, ok := x.mounted(); !ok {
			x.mount()
		}
	}()
	log := filepath.Join(x.t.TempDir(), "strace")
	args := append([]string{"strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=umount2", "-e", "signal=none", "-o", log, BuildInstaller(x.t), "finalize"}, flags...)
	argv := x.argv(append(args, x.dir)...)
	r := RunBinary(x.t, argv[0], argv[1:]...)
	if r.Code != 0 {
		x.t.Errorf("without the holder: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		return
	}
	text, err := os.ReadFile(log)
	if err != nil {
		x.t.Fatal(err)
	}
	// A thread that ends while strace takes note of it has made no call yet.
	calls, err := parseStrace(bytes.NewReader(detachedThread.ReplaceAll(text, nil)))
	if err != nil {
		x.t.Fatal(err)
	}
	var real []Unmount
	for _, u := range Unmounts(x.t, calls) {
		if !strings.Contains(u.Flags, "MNT_EXPIRE") { // that one asks
			real = append(real, u)
		}
	}
	if len(real) != 1 || !real[0].OK || real[0].Flags != "UMOUNT_NOFOLLOW" {
		x.t.Errorf("unmounted by %+v", real)
	}
	if !x.dead() {
		x.t.Errorf("%s does not open exclusively", x.node)
	}
}

var detachedThread = regexp.MustCompile(`(?m)^\d+\s+\?\?\?\( <detached \.\.\.>\n`)

// dead reports whether the superblock is gone: the device opens exclusively.
func (x *target) dead() bool {
	fd, err := unix.Open(x.node, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// holdersReport holds the fields of holders --json that the tests read.
type holdersReport struct {
	Version    int
	Verdict    string
	Holders    []finding
	Searched   []string
	Unreadable []string
	Processes  int
	Namespaces int
	Source     string
	Fallback   string
}

type finding struct {
	Class, Comm, Path, Namespace, Evidence, Remedy string
	PID, TID                                       int
	HostPID                                        int `json:"host_pid"`
	Self, Child, Suspect                           bool
}

// examine asks the installer who holds a path, and wants an exit status.
func (w *workplace) examine(path string, status int) holdersReport {
	w.t.Helper()
	r := w.installer("holders", "--json", path)
	var report holdersReport
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		w.t.Fatalf("%v in %s%s", err, r.Stdout, r.Stderr)
	}
	if r.Code != status || report.Version != 1 {
		w.t.Errorf("exit status %d, want %d; verdict %s, %+v, unreadable %q", r.Code, status, report.Verdict, report.Holders, report.Unreadable)
	}
	return report
}

// has wants a holder of a class, a process and a path that ends in some way, complete with evidence
// and remedy.
func (r holdersReport) has(t testing.TB, class string, pid int, path string) {
	t.Helper()
	for _, h := range r.Holders {
		if h.Class == class && h.PID == pid && strings.HasSuffix(h.Path, path) {
			if h.Evidence == "" || h.Remedy == "" || (pid != 0) != (h.Comm != "") || h.Self {
				t.Errorf("incomplete: %+v", h)
			}
			return
		}
	}
	t.Errorf("no %s of process %d on ...%s; verdict %s, %+v", class, pid, path, r.Verdict, r.Holders)
}

// alive returns the class and the verdict for a superblock that lives with no holder in sight. The
// kernel is named only after a search that saw everything.
func (r holdersReport) alive() (class, verdict string) {
	if len(r.Unreadable) > 0 {
		return "out-of-sight", "held"
	}
	return "kernel", "kernel-held"
}

// startHolder starts a command and waits for the line "ready".
func startHolder(t testing.TB, argv ...string) *kit.Child {
	t.Helper()
	c := kit.Start(t, exec.Command(argv[0], argv[1:]...))
	c.Await(t, "ready")
	return c
}

var holdBinary struct {
	sync.Once
	path string
	err  error
}

// holdProgram builds tests/cmd/hold, once a run.
func holdProgram(t testing.TB) string {
	t.Helper()
	holdBinary.Do(func() {
		holdBinary.path = filepath.Join(runDir, "hold")
		cmd := exec.Command("go", "build", "-o", holdBinary.path, "./tests/cmd/hold")
		cmd.Dir = repoRoot(t)
		if out, err := cmd.CombinedOutput(); err != nil {
			holdBinary.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if holdBinary.err != nil {
		t.Fatal(holdBinary.err)
	}
	return holdBinary.path
}
