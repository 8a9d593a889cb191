package tests

import (
	"context"
	"os"
	"strings"
	"testing"
)

// finalizeInContainers releases file systems that a container has mounted in namespaces of its own:
// from outside by its process, by the file of its namespace, and as copies of the host's mount; and
// from within a container that sees nothing else, one of its own and one that the host has too.
func finalizeInContainers(t *testing.T, p podman) {
	LoopSnapshot(t)
	x := (&workplace{t, p.keeper}).target("ext4")
	x.run("umount", x.dir)
	podman := func(command string, args ...string) string {
		argv := p.podman("/", command, args...)
		return strings.TrimSpace(mustCommand(t, argv[0], argv[1:]...))
	}
	once := func(args ...string) Result {
		argv := p.podman("/", "run", append([]string{"--rm", "--pull=never", "--privileged", "--volume", "/dev:/dev"}, args...)...)
		return RunBinary(t, argv[0], argv[1:]...)
	}
	mounting := "mkdir /run/c && mount " + x.node + " /run/c && "

	id := podman("run", "--detach", "--pull=never", "--privileged", "--volume", "/dev:/dev", installerImage, "sh", "-c", mounting+"exec sleep 600")
	t.Cleanup(func() {
		argv := p.podman("/", "rm", "--force", "--time", "0", id)
		_, err := command(context.Background(), argv[0], argv[1:]...)
		must(t, err)
	})
	podman("exec", id, "sh", "-c", "until grep -q /run/c /proc/mounts; do :; done")
	pid := podman("inspect", "--format", "{{.State.Pid}}", id)
	t.Chdir(t.TempDir())
	for _, namespace := range []string{pid, "/proc/" + pid + "/ns/mnt"} {
		r := Run(t, "finalize", "--report", "report.json", "--mount-namespace", namespace, "/run/c")
		if r.Code != 0 || !x.dead() {
			t.Errorf("in the namespace %s: exit status %d\n%s%s", namespace, r.Code, r.Stdout, r.Stderr)
		}
		if text, err := os.ReadFile("report.json"); err != nil || !strings.Contains(string(text), `"released": true`) {
			t.Errorf("the report: %v\n%s", err, text)
		}
		podman("exec", id, "mount", x.node, "/run/c")
	}
	x.mount()
	x.refused("namespace by process "+pid, 0)
	if r := x.installer("finalize", "--all-namespaces", x.dir); r.Code != 0 || !x.dead() {
		t.Errorf("--all-namespaces: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}

	r := once(installerImage, "sh", "-c", mounting+"installer finalize /run/c")
	if r.Code != 0 || !x.dead() || !strings.Contains(r.Stdout, "; not seen: ") {
		t.Errorf("within a container: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	// The mount of the host stays writable: the kernel's own tables show it to the container.
	x.mount()
	r = once("--volume", x.dir+":/mnt", installerImage, "installer", "finalize", "/mnt")
	if r.Code != 3 || !strings.Contains(r.Stderr, " outside of this PID namespace") {
		t.Errorf("a mount of the host's: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	x.asItWas()
	x.run("umount", x.dir) // the workplace outlives this test
}
