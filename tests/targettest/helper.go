package targettest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"installer/disk/mounts"
	"installer/tests/hold"
	"installer/tests/kit"

	"golang.org/x/sys/unix"
)

// variable names the kind of holder in the environment of a helper.
const variable = "INSTALLER_TEST_HOLDER"

// Main is to be called first thing in TestMain: in a helper process it holds
// the target until its standard input ends, and exits.
func Main() {
	kind := os.Getenv(variable)
	if kind == "" {
		leaveOthersAlone()
		return
	}
	os.Unsetenv(variable)
	if err := hold.Hold(kind, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// leaveOthersAlone moves the tests into a mount namespace of their own: in the
// first one, whoever makes a namespace meanwhile would get a copy of the target.
func leaveOthersAlone() {
	env, err := mounts.EnterPrivate("INSTALLER_TEST_NAMESPACE", os.Args, os.Environ())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Clearenv()
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		os.Setenv(name, value)
	}
}

// Record enters something into a ledger from a package of its own, as a
// repository would.
func Record(l interface {
	Opened(kind, name string) func()
}, kind, name string) (released func()) {
	return l.Opened(kind, name)
}

// Hold starts a helper of some kind and returns once it holds the target. args
// are the kind's, see holderKinds. Should the test die, the end of the helper's
// standard input ends it.
func Hold(t testing.TB, kind string, args ...string) *kit.Child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	if strings.HasPrefix(kind, "clone-") {
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	return start(t, cmd, kind)
}

// HoldByExe runs a copy of the helper program that lies on the target.
func HoldByExe(t testing.TB, path string) *kit.Child {
	t.Helper()
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	return start(t, cmd, "nothing")
}

// Storm starts and ends processes all the time until the test ends, for searches that meet such.
func Storm(t testing.TB) {
	t.Helper()
	storm := exec.Command("sh", "-c", `while :; do (sleep 0.01 & : ) ; sh -c ":" ; done`)
	storm.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := storm.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-storm.Process.Pid, syscall.SIGKILL)
		_ = storm.Wait() // the signal is its status
	})
}

func start(t testing.TB, cmd *exec.Cmd, kind string) *kit.Child {
	t.Helper()
	cmd.Env = append(os.Environ(), variable+"="+kind)
	h := kit.Start(t, cmd)
	h.Await(t, "ready")
	return h
}

// The main goroutine keeps the process's first thread, so that no test's thread
// of its own can be that one, and that a helper can end it.
func init() { runtime.LockOSThread() }

// HoldBound starts a helper with a mount namespace of its own, and binds the namespace to a file.
// The kernel numbers namespaces for each processor apart, and refuses to bind one whose number is
// lower than the caller's: another is made then, by the next processor.
func HoldBound(t testing.TB, file string) *kit.Child {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var usual unix.CPUSet
	if err := unix.SchedGetaffinity(0, &usual); err != nil {
		t.Fatal(err)
	}
	defer unix.SchedSetaffinity(0, &usual)
	var err error
	for cpu := range 64 {
		var one unix.CPUSet
		if one.Set(cpu % runtime.NumCPU()); unix.SchedSetaffinity(0, &one) != nil {
			continue // no such processor
		}
		helper := Hold(t, "clone-ns")
		err = unix.Mount(fmt.Sprintf("/proc/%d/ns/mnt", helper.PID), file, "", unix.MS_BIND, "")
		if err == nil {
			t.Cleanup(func() { unix.Unmount(file, 0) })
			return helper
		}
		helper.Stop()
	}
	t.Fatalf("binding a mount namespace: %v", err)
	return nil
}
