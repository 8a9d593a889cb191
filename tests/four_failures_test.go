package tests

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The four failures that began this project. Each test shows the usual way failing, and ours not.

// TestFailureMappedObject has a metadata object of a repository that is mapped, with its descriptor
// closed: the unmount fails, a tool that looks at descriptors sees nobody, ours names the mapping.
func TestFailureMappedObject(t *testing.T) {
	LoopSnapshot(t)
	w := newWorkplace(t)
	for _, fs := range threeFilesystems {
		x := w.target(fs)
		object := "ostree/repo/objects/8d/" + strings.Repeat("c", 62) + ".dirtree"
		x.run("mkdir", "-p", filepath.Dir(x.path(object)))
		x.run("cp", x.path("file"), x.path(object))
		h := x.hold("map", x.path(object))

		x.wrong("target is busy", "umount", "-R", x.dir)
		if seen := x.descriptorsOn(); len(seen) != 0 {
			t.Errorf("%s: a scan of descriptors sees %q: the test does not test what it should", fs, seen)
		}

		x.heldBy("map", h.PID, object)
		h.Stop()
		x.released()
	}
}

// wrong runs the usual way, which must fail with a message.
func (x *target) wrong(message string, args ...string) {
	x.t.Helper()
	argv := x.argv(args...)
	if out, err := command(x.t.Context(), argv[0], argv[1:]...); err == nil || !strings.Contains(out+err.Error(), message) {
		x.t.Errorf("%q: %v, %s; want a failure with %q", args, err, out, message)
	}
}

// descriptorsOn lists the open files on the target as the links of /proc show them.
func (x *target) descriptorsOn() []string {
	x.t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		x.t.Fatal(err)
	}
	var seen []string
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil && strings.HasPrefix(path, x.dir) {
			seen = append(seen, link+" -> "+path)
		}
	}
	return seen
}

// TestFailureSelfPinned has a helper that unmounts for its parent from a namespace of its own: the
// unmount succeeds, and the superblock lives as long as the helper, which waits for its death. Ours
// names the namespace, or works in it, as a whole.
func TestFailureSelfPinned(t *testing.T) {
	LoopSnapshot(t)
	w := newWorkplace(t)
	x := w.target("xfs")
	helper := startHolder(t, x.argv("unshare", "--mount", "--propagation", "private", holdProgram(t), "nothing")...)
	x.run("umount", x.dir) // the parent's mount goes at once
	for range 20 {         // the helper could poll for ever: it waits for itself
		if x.dead() {
			t.Fatal("the superblock is gone: the test does not test what it should")
		}
		time.Sleep(10 * time.Millisecond)
	}
	report := x.examine(x.node, 3)
	report.has(t, "namespace", helper.PID, "")
	report.has(t, "mount", 0, "/mnt")

	// In the helper's namespace, the whole program and not a child of it.
	r := x.installer("finalize", "--mount-namespace", strconv.Itoa(helper.PID), x.dir)
	if r.Code != 0 || !x.dead() {
		t.Errorf("exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	helper.Stop()
	x.mount()

	// A parent that stays behind pins the namespace that it left: no proof can be made in the new
	// one.
	stay := x.argv("unshare", "--mount", "--propagation", "private", "--fork", BuildInstaller(t), "finalize", x.dir)
	left := RunBinary(t, stay[0], stay[1:]...)
	if left.Code != 3 || !strings.Contains(left.Stderr, "namespace by process") {
		t.Errorf("with a parent that stays behind: exit status %d\n%s", left.Code, left.Stderr)
	}
	x.released()
}

// TestFailureNotPropagated has an unmount that had to reach another namespace and did not, since
// propagation was cut first: the unmount succeeds, and the other copy keeps the superblock. Ours
// sees beforehand which namespaces are reached, and unmounts elsewhere with the flag for it.
func TestFailureNotPropagated(t *testing.T) {
	LoopSnapshot(t)
	w := newWorkplace(t)
	for _, fs := range threeFilesystems {
		x := w.target(fs)
		x.onShared()
		other := startHolder(t, x.argv("unshare", "--mount", "--propagation", "unchanged", holdProgram(t), "nothing")...)
		parent := filepath.Dir(x.dir)

		// As it should be: a mount that the unmount reaches is no holder, and goes along.
		x.examine(x.dir, 0) // a plain umount takes the copy along
		if r := x.installer("finalize", x.dir); r.Code != 0 || !strings.Contains(r.Stdout, "1 mount in other namespaces went along") || !x.dead() {
			t.Errorf("%s: shared: exit status %d\n%s%s", fs, r.Code, r.Stdout, r.Stderr)
		}
		x.mount() // it arrives in the other namespace, too

		// The wrong way: private first, then unmounted.
		x.run("mount", "--make-private", parent)
		x.run("umount", x.dir)
		if x.dead() {
			t.Fatalf("%s: the superblock is gone: the test does not test what it should", fs)
		}
		x.mount()

		x.refused("namespace", other.PID)
		if r := x.installer("finalize", "--all-namespaces", x.dir); r.Code != 0 || !x.dead() {
			t.Errorf("%s: exit status %d\n%s%s", fs, r.Code, r.Stdout, r.Stderr)
		}
		other.Stop()
		w.run("umount", parent)
	}
}

// onShared moves the target to a mount point on a mount that propagates.
func (x *target) onShared() {
	x.t.Helper()
	x.run("umount", x.dir)
	parent := x.t.TempDir()
	x.run("mount", "-t", "tmpfs", "none", parent)
	x.run("mount", "--make-shared", parent)
	x.dir = filepath.Join(parent, "mnt")
	x.run("mkdir", x.dir)
	x.mount()
}

// TestFailureOutlivesItsMounts has a superblock that lives on with no mount and no holder in user
// space: frozen, and pinned by a context. The unmount says all is well. Ours finds the freeze
// before the unmount, and names the rest afterwards, with evidence, instead of success.
func TestFailureOutlivesItsMounts(t *testing.T) {
	LoopSnapshot(t)
	w := newWorkplace(t)
	for _, fs := range threeFilesystems {
		x := w.target(fs)
		x.hold("freeze", x.dir).Stop()
		x.refusedFrozen()
		x.run("umount", x.dir) // the usual way succeeds, and releases nothing
		if x.dead() {
			t.Fatalf("%s: the superblock is gone: the test does not test what it should", fs)
		}
		report := x.examine(x.node, 3)
		class, verdict := report.alive()
		report.has(t, class, 0, x.node)
		if report.Verdict != verdict {
			t.Errorf("%s: verdict %s, %+v", fs, report.Verdict, report.Holders)
		}
		if account := "(s_active 1, mounts 0, frozen)"; !strings.Contains(report.Holders[0].Evidence, account) {
			t.Errorf("%s: the evidence lacks %q: %s", fs, account, report.Holders[0].Evidence)
		}
		x.mount() // the remedy that is given
		x.run("fsfreeze", "--unfreeze", x.dir)
		x.released()

		context := x.hold("fs-context", x.dir)
		x.refused("fs-context", context.PID)
		context.Stop()
		x.released()
	}
}
