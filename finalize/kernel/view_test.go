package kernel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"installer/tests/targettest"
)

// usesOf looks at the users of a target with a view of its own.
func usesOf(t *testing.T, x *targettest.Target) Users {
	t.Helper()
	v, err := OpenView()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	users, err := v.UsesOf(x.At().Dev)
	if err != nil {
		t.Fatal(err)
	}
	if len(users.Unsettled) > 0 || users.Processes < 2 {
		t.Errorf("%d processes, unsettled: %v", users.Processes, users.Unsettled)
	}
	return users
}

// holderKinds are the ways in which a process uses a file system: by which name on it, and how the
// use shows. A use by another thread than the first has its number.
var holderKinds = []struct {
	kind, name string
	use        Kind
	path       string
	thread     bool
}{
	{"fd", "file", FD, "/file", false},
	{"fd", "dir", FD, "/dir", false},
	{"fd-write", "file", FD, "/file", false},
	{"fd-path", "", FD, "/", false},
	{"fd-deleted", "doomed", FD, "/doomed (deleted)", false},
	{"fd-locked", "file", FD, "/file", false},
	{"map", "dir/file", Map, "/dir/file", false},
	{"map-write", "file", Map, "/file", false},
	{"map-deleted", "doomed", Map, "/doomed (deleted)", false},
	{"cwd", "dir", Cwd, "/dir", false},
	{"root", "dir", Root, "/dir", false},
	{"thread-cwd", "dir", Cwd, "/dir", true},
	{"thread-fd", "file", FD, "/file", true},
	{"zombie-fd", "file", FD, "/file", true},
	{"zombie-map", "file", Map, "/file", true},
	{"zombie-cwd", "dir", Cwd, "/dir", true},
	{"thread-ns", "", Namespace, "", true},
	{"ns-fd", "", Namespace, "", false},
	{"detached-tree", "", DetachedMount, "/", false},
	{"detached-file", "", DetachedMount, "/file", false},
	{"fs-context", "", FSContext, "", false},
	{"fanotify", "", Fanotify, "/file", false},
	{"socket", "dir", UnixSocket, "/dir/sock", false},
	{"socket-gone", "dir", UnixSocket, "/dir/sock (deleted)", false},
	{"socket-taken", "dir", UnixSocket, "/dir/taken (deleted)", false},
	{"socket-net", "dir", UnixSocket, "/dir/sock", false},
	{"in-flight", "file", InFlight, "/file", false},
	{"ring", "file", IOUring, "/file", false},
}

// TestUses has every kind of user, one at a time, and those that use nothing.
func TestUses(t *testing.T) {
	x := targettest.New(t, "btrfs")
	for _, c := range holderKinds {
		os.WriteFile(x.Path("doomed"), make([]byte, 64<<10), 0o600)
		h := targettest.Hold(t, c.kind, x.Path(c.name))
		uses := usesOf(t, x).Uses
		if len(uses) != 1 {
			t.Errorf("%s: %d uses: %+v", c.kind, len(uses), uses)
		}
		for _, u := range uses {
			if u.Kind != c.use || u.Process != h.PID || u.Here != h.PID || u.Path != c.path || (u.Thread != 0) != c.thread || u.Command != "exe" {
				t.Errorf("%s by process %d: %+v", c.kind, h.PID, u)
			}
		}
		h.Stop()
		if uses := usesOf(t, x).Uses; len(uses) > 0 {
			t.Errorf("%s has ended: %+v", c.kind, uses)
		}
		awaitUnreferenced(t, x)
	}
	for _, kind := range []string{"nothing", "fanotify-read", "inotify"} {
		h := targettest.Hold(t, kind, x.Dir)
		if uses := usesOf(t, x).Uses; len(uses) > 0 {
			t.Errorf("%s: %+v", kind, uses)
		}
		h.Stop()
	}
}

// TestDeserted has a mount namespace that a bind mount keeps, and no process.
func TestDeserted(t *testing.T) {
	x := targettest.New(t, "ext4")
	h := targettest.HoldBound(t, filepath.Join(t.TempDir(), "namespace"))
	if users := usesOf(t, x); len(users.Uses) != 1 || users.Uses[0].Kind != Namespace || len(users.Deserted) > 0 {
		t.Errorf("%+v", users)
	}
	h.Stop()
	if users := usesOf(t, x); len(users.Uses) > 0 || len(users.Deserted) != 1 || users.Deserted[0].Mount.Namespace == 0 {
		t.Errorf("%+v", users)
	}
}

// awaitUnreferenced waits for the kernel, which gives back the files of an io_uring late.
func awaitUnreferenced(t *testing.T, x *targettest.Target) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); summarise(t, x).uses > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the kernel has not let go in 10 s")
		}
	}
}

// TestUsesProgram has a program that runs from the file system.
func TestUsesProgram(t *testing.T) {
	x := targettest.New(t, "ext4")
	h := targettest.HoldByExe(t, x.Path("program"))
	kinds := map[Kind]bool{}
	for _, u := range usesOf(t, x).Uses {
		if u.Process != h.PID || u.Path != "/program" {
			t.Errorf("%+v", u)
		}
		kinds[u.Kind] = true
	}
	if !kinds[Exe] || !kinds[Map] || len(kinds) != 2 {
		t.Errorf("kinds: %v", kinds)
	}
}

// TestUsesManyFiles has a process with more open files than a read of a table takes at a time, and
// one of them on the file system.
func TestUsesManyFiles(t *testing.T) {
	x := targettest.New(t, "ext4")
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(x.Path("file"))
	if err != nil {
		t.Fatal(err)
	}
	high := int(limit.Cur) - 1
	if err := unix.Dup3(int(file.Fd()), high, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	file.Close()
	uses := usesOf(t, x).Uses
	unix.Close(high)
	if len(uses) != 1 || uses[0].FD != high || uses[0].Process != os.Getpid() {
		t.Errorf("descriptor %d: %+v", high, uses)
	}
}

// self returns a command that prints the users of a target.
func self(x *targettest.Target, argv ...string) *exec.Cmd {
	argv = append(argv, "/proc/self/exe")
	if len(argv) > 1 {
		argv[len(argv)-1], _ = os.Executable()
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), viewOf+"="+x.Dir)
	cmd.Stderr = &bytes.Buffer{}
	return cmd
}

// TestUsesOtherPIDNamespace looks from inside of a PID namespace whose /proc shows a few processes:
// a user outside has no number in it, one inside has two.
func TestUsesOtherPIDNamespace(t *testing.T) {
	x := targettest.New(t, "ext4")
	outside := targettest.Hold(t, "fd", x.Path("file"))
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := self(x, "unshare", "--pid", "--fork", "--mount-proc", "--propagation", "unchanged", "sh", "-c",
		`exec 7<"$1/dir"; "$2"`, "sh", x.Dir)
	cmd.Args[len(cmd.Args)-1] = program
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, cmd.Stderr)
	}
	var users Users
	if err := json.Unmarshal(text, &users); err != nil {
		t.Fatal(err)
	}
	var out, in int
	for _, u := range users.Uses {
		switch {
		case u.Kind == FD && u.Process == outside.PID && u.Here == 0 && u.Path == "/file":
			out++
		case u.Kind == FD && u.Process > 10 && u.Here > 0 && u.Here < 10 && u.FD == 7 && u.Path == "/dir":
			in++
		case u.Kind == Namespace && u.Here == 0: // those in the namespaces of mounts around
		default:
			t.Errorf("%+v", u)
		}
	}
	if out != 1 || in == 0 {
		t.Errorf("%d uses outside, %d inside: %s", out, in, text)
	}
}

// TestViewRefused has processes that may not read the kernel's tables: each must say so.
func TestViewRefused(t *testing.T) {
	x := targettest.New(t, "ext4")
	empty := t.TempDir()
	for name, argv := range map[string][]string{
		"no capability":   {"setpriv", "--bounding-set", "-all", "--inh-caps", "-all"},
		"user namespace":  {"unshare", "--user", "--map-root-user"},
		"no types":        {"unshare", "--mount", "sh", "-c", `mount --bind "$1" /sys/kernel/btf && "$2"`, "sh", empty},
		"refused program": {"setpriv", "--bounding-set", "-sys_admin,-perfmon", "--inh-caps", "-sys_admin,-perfmon"},
		"no programs":     {"setpriv", "--bounding-set", "-sys_admin,-bpf", "--inh-caps", "-sys_admin,-bpf"},
	} {
		cmd := self(x, argv...)
		text, err := cmd.Output()
		said := fmt.Sprint(cmd.Stderr)
		if err == nil || len(text) > 0 || !strings.Contains(said, "kernel's own tables") {
			t.Errorf("%s: %v\n%s%s", name, err, text, said)
		}
		t.Logf("%s: %s", name, said)
	}
}

// TestUsesWhileProcessesEnd looks again and again while processes begin and end: the one user is
// there each time, and nobody else.
func TestUsesWhileProcessesEnd(t *testing.T) {
	x := targettest.New(t, "ext4")
	h := targettest.Hold(t, "map", x.Path("file"))
	targettest.Storm(t)
	v, err := OpenView()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	unsettled := 0
	for range 100 {
		users, err := v.UsesOf(x.At().Dev)
		if err != nil {
			t.Fatal(err)
		}
		unsettled += len(users.Unsettled)
		if len(users.Uses) != 1 || users.Uses[0].Process != h.PID || users.Uses[0].Kind != Map {
			t.Fatalf("%+v", users)
		}
	}
	t.Logf("%d times a process was unsettled", unsettled)
}

// TestViewLeavesNothing wants no program, map or link of the view to stay when it is closed.
func TestViewLeavesNothing(t *testing.T) {
	before := openOfKind(t, "bpf")
	for range 3 {
		v, err := OpenView()
		if err != nil {
			t.Fatal(err)
		}
		if openOfKind(t, "bpf") <= before {
			t.Error("the view has nothing open")
		}
		v.Close()
	}
	if after := openOfKind(t, "bpf"); after != before {
		t.Errorf("%d BPF objects are open, %d before", after, before)
	}
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("bpf-map")) {
		t.Errorf("a map stays mapped:\n%s", text)
	}
}

// openOfKind counts the open files of this process whose link has a word.
func openOfKind(t *testing.T, word string) int {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.Contains(target, word) {
			count++
		}
	}
	return count
}

func BenchmarkUses(b *testing.B) {
	x := targettest.New(b, "ext4")
	v, err := OpenView()
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	m := x.At()
	for b.Loop() {
		if _, err := v.UsesOf(m.Dev); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenView(b *testing.B) {
	for b.Loop() {
		v, err := OpenView()
		if err != nil {
			b.Fatal(err)
		}
		v.Close()
	}
}
