package block

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"installer/tests/kit"

	"golang.org/x/sys/unix"
)

func TestParseNumber(t *testing.T) {
	for text, want := range map[string]Number{"8:1\n": {8, 1}, "259:1048575": {259, 1<<20 - 1}} {
		if n, err := ParseNumber(text); err != nil || n != want {
			t.Errorf("%q: %v, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "8", "8:", ":1", "8:1:2", "-8:1", "8:4294967296"} {
		if n, err := ParseNumber(text); err == nil {
			t.Errorf("%q: %v", text, n)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/a\040b`: "/a b", `\134`: `\`, `/x\04`: `/x\04`, `\777`: `\777`, "plain": "plain"} {
		if got := Unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestParseSwaps(t *testing.T) {
	list, err := ParseSwaps("Filename Type Size Used Priority\n/mnt/a\\040b file 1 0 -2\n/dev/sda2\t partition 1 0 -2\n")
	want := []Swap{{"/mnt/a b", "file", `/mnt/a\040b file 1 0 -2`}, {"/dev/sda2", "partition", "/dev/sda2 partition 1 0 -2"}}
	if err != nil || !reflect.DeepEqual(list, want) {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := ParseSwaps("Filename\n/dev/sda2\n"); err == nil {
		t.Errorf("%+v", list)
	}
}

// TestLoops has a device that losetup attached, one that is gone, and one that cannot be read,
// which is an error.
func TestLoops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	node := output(t, "losetup", "-f", "--show", path)
	t.Cleanup(func() { output(t, "losetup", "-d", node) })
	mine := func(l Loop) bool { return l.Backing == path }
	loops, err := Live().Loops()
	i := slices.IndexFunc(loops, mine)
	if err != nil || i < 0 || "/dev/"+loops[i].Name != node || !loops[i].Attached() {
		t.Errorf("%+v, %v; losetup made %s", loops, err, node)
	}
	fake := Host{Sys: t.TempDir()}
	if (Loop{Dir: fake.Sys + "/block/loop3", Backing: ""}).Attached() {
		t.Error("a device that is gone is attached")
	}
	if err := os.MkdirAll(fake.Sys+"/block/loop3/loop/backing_file", 0o755); err != nil {
		t.Fatal(err)
	}
	if loops, err := fake.Loops(); err == nil {
		t.Errorf("an unreadable file: %+v", loops)
	}
}

// TestOpeners has a device open in this process, in one thread of it that has a table of its own,
// and in another process. fuser names the same processes, but knows nothing of threads.
func TestOpeners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	node := output(t, "losetup", "-f", "--show", path)
	t.Cleanup(func() { output(t, "losetup", "-d", node) })
	n, ok := NumberOf(node)
	if !ok || slices.Contains(openers(t, n), os.Getpid()) {
		t.Fatalf("number %v of %s, open in %v", n, node, openers(t, n))
	}
	child := exec.Command("sleep", "1000")
	file, err := os.Open(node)
	if err != nil {
		t.Fatal(err)
	}
	child.Stdin = file
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	fuser := strings.Fields(output(t, "sh", "-c", "fuser "+node+" 2>/dev/null"))
	for _, pid := range []int{os.Getpid(), child.Process.Pid} { // another program may look for a free loop device
		if got := openers(t, n); !slices.Contains(got, pid) || !slices.Contains(fuser, strconv.Itoa(pid)) {
			t.Errorf("open in %v; fuser says %v; want %d", got, fuser, pid)
		}
	}
	file.Close()
	if got := openers(t, n); slices.Contains(got, os.Getpid()) || !slices.Contains(got, child.Process.Pid) {
		t.Errorf("open in %v; want %d and not %d", got, child.Process.Pid, os.Getpid())
	}
	opened, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends, and its table with it
		err := unix.Unshare(unix.CLONE_FILES)
		if err == nil {
			_, err = unix.Open(node, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		opened <- err
		<-done
	}()
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	if got := openers(t, n); !slices.Contains(got, os.Getpid()) {
		t.Errorf("open in %v; a thread of %d has it", got, os.Getpid())
	}
	close(done)
}

func openers(t *testing.T, n Number) []int {
	t.Helper()
	list, err := Live().Openers(n)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, o := range list {
		if target, err := os.Readlink(o.FD); err != nil || !strings.HasPrefix(target, "/dev/loop") || o.Comm == "" {
			t.Errorf("%+v leads to %s (%v)", o, target, err)
		}
		pids = append(pids, o.PID)
	}
	slices.Sort(pids)
	return pids
}

// TestOpenersUnseen has accounts that cannot be read: no process is an error, not an empty list.
func TestOpenersUnseen(t *testing.T) {
	if list, err := (Host{Proc: t.TempDir() + "/missing"}).Openers(Number{7, 0}); err == nil {
		t.Errorf("%v", list)
	}
	if _, err := (Host{Proc: t.TempDir()}).Swaps(); !os.IsNotExist(err) {
		t.Errorf("no swaps: %v, not %v", err, fs.ErrNotExist)
	}
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	return strings.TrimSpace(kit.Run(t, name, args...))
}
