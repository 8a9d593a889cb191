package tests

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kernelsScript runs tests of the kernel's own tables, and asks for holders from a PID namespace of
// its own, where nobody but the tables knows.
const kernelsScript = `
	uname -r
	kernel.test -test.run 'TestUses$|TestUsesOther|TestDeserted|TestFollows|TestReadOverlay'
	mount --make-rshared /
	truncate -s 300M /tmp/image
	mkfs.ext4 -q /tmp/image
	mkdir /tmp/mnt
	mount -o loop /tmp/image /tmp/mnt
	blind() { unshare --pid --fork --mount-proc --propagation unchanged installer holders --json /tmp/mnt; }
	blind | grep -E '"(verdict|source|fallback)"'
	mkfifo /tmp/stop /tmp/ready
	hold fd /tmp/mnt </tmp/stop >/tmp/ready &
	exec 9>/tmp/stop
	read ready </tmp/ready
	status=0; blind >/tmp/report || status=$?
	echo "held: $status, host_pid $(sed -n "s/.*\"host_pid\": $!,/own/p" /tmp/report)"
	exec 9>&-
	wait $!
	installer finalize /tmp/mnt`

// The kernel's own tables are read on the kernels of Debian 12 and of the next Debian, and show who
// uses a file system there.
func TestTablesOfOtherKernels(t *testing.T) {
	test := filepath.Join(runDir, "kernel.test")
	cmd := exec.Command("go", "test", "-c", "-o", test, "./finalize/kernel")
	cmd.Dir = repoRoot(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the tests of the tables: %v\n%s", err, out)
	}
	var waits []func()
	results := map[string]func() Result{}
	for name, kernel := range map[string]string{"Debian 12": "", "next Debian": kernelOf(t, cachedImage(t, selinuxImage))} {
		g := Guest{Kernel: kernel, Script: kernelsScript, Timeout: 8 * time.Minute, Modules: []string{"overlay"}, Files: map[string]string{"kernel.test": test, "hold": BuildCommand(t, "hold")}}
		run, result := g.Prepare(t)
		waits, results[name] = append(waits, aside(t, run)), result
	}
	t.Parallel()
	for _, wait := range waits {
		wait()
	}
	for name, result := range results {
		r := result()
		for _, want := range []string{
			"\nPASS\n", `"verdict": "free"`, `"source": "kernel"`, "\nheld: 3, host_pid", "own\n", "\nreleased: /tmp/mnt",
		} {
			if r.Code != 0 || !strings.Contains(r.Stdout, want) {
				t.Errorf("%s: exit status %d, want %q in\n%s", name, r.Code, want, r.Stdout)
				break
			}
		}
	}
}

// kernelOf returns the directory of an image's kernel and its modules.
func kernelOf(t *testing.T, ref string) string {
	t.Helper()
	dir, _ := splitRef(ref)
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	must(t, err)
	to := t.TempDir()
	for _, blob := range blobs { // those that are no layers with a kernel have no such files
		_ = exec.Command("tar", "--extract", "--file="+blob, "--directory="+to, "usr/lib/modules").Run()
	}
	found, err := filepath.Glob(filepath.Join(to, "usr/lib/modules/*/vmlinuz"))
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("%s has %d kernels", ref, len(found))
	}
	return filepath.Dir(found[0])
}
