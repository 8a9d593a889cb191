package deploy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"installer/rootfs/beneath"
	"installer/rootfs/ostree"
)

// TestDeployIsAccepted has Debian's ostree look at a whole sysroot.
func TestDeployIsAccepted(t *testing.T) {
	x, dep := deployed(t, baseLayer(), upperLayer())
	run(t, "ostree", "fsck", "--repo="+x.path+"/ostree/repo")
	status := run(t, "ostree", "admin", "status", "--sysroot="+x.path)
	if !strings.Contains(status, "default "+dep.Commit.String()+".0") || !strings.Contains(status, "Version: 2024.5") {
		t.Errorf("ostree admin status says:\n%s", status)
	}
	const text = `title Lab OS "7" 2024.5 (ostree:0)` + "\nversion 1\n"
	if got := x.read(t, "boot/loader/entries/ostree-1.conf"); got != dep.EntryText || !strings.HasPrefix(got, text) {
		t.Errorf("the boot entry is\n%s", got)
	}
	if got, want := x.read(t, dep.Path+".origin"), "[origin]\ncontainer-image-reference=ostree-unverified-registry:quay.io/lab/os:latest\n"; got != want {
		t.Errorf("the origin is %q, want %q", got, want)
	}
	for _, name := range []string{"/usr/bin/gone", "/etc/.updated", "/usr/share/many/.wh..wh..opq", "/usr/bin/.wh.gone"} {
		if _, err := os.Lstat(filepath.Join(x.path, dep.Path, name)); !os.IsNotExist(err) {
			t.Errorf("%s is in the deployment (%v)", name, err)
		}
	}
	if got := x.read(t, "ostree/deploy/default/var/lib/state"); got != "state\n" {
		t.Errorf("the initial /var has %q", got)
	}
	var st unix.Stat_t
	n, err := unix.Listxattr(filepath.Join(x.path, "ostree/deploy/default/var"), nil)
	if err := errors.Join(err, unix.Stat(filepath.Join(x.path, "ostree/deploy/default/var"), &st)); n > 0 || st.Mode&0o7777 != 0o755 || err != nil {
		t.Errorf("the stateroot's var has %d bytes of names of attributes, and the mode %#o, %v", n, st.Mode, err)
	}
	sameInode(t, x, dep.Path+"/usr/lib/modules/6.1.0-9/vmlinuz", dep.BootPath+"/"+dep.Kernel.VmlinuzPath)
}

func sameInode(t *testing.T, x *target, a, b string) {
	t.Helper()
	first, err := os.Stat(filepath.Join(x.path, a))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.Stat(filepath.Join(x.path, b))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(first, second) {
		t.Errorf("%s and %s are two files", a, b)
	}
}

// TestDeployEqualsOstree deploys one commit by ostree itself and compares the two systems, path by
// path.
func TestDeployEqualsOstree(t *testing.T) {
	x, dep := deployed(t, baseLayer(), upperLayer())
	theirs := t.TempDir()
	t.Cleanup(func() { clearImmutable(t, theirs) })
	run(t, "ostree", "admin", "init-fs", "--modern", theirs)
	run(t, "ostree", "admin", "os-init", "--sysroot="+theirs, "default")
	run(t, "ostree", "pull-local", "--repo="+theirs+"/ostree/repo", x.path+"/ostree/repo", dep.Commit.String())
	run(t, "ostree", "config", "--repo="+theirs+"/ostree/repo", "set", "sysroot.bootloader", "none")
	run(t, "ostree", "admin", "deploy", "--sysroot="+theirs, "--os=default", "--karg=root=UUID=1-2", "--karg=rw", dep.Commit.String())

	ours := withoutKnownDifferences(inventory(t, x.path), dep)
	want := withoutKnownDifferences(inventory(t, theirs), dep)
	for _, line := range ours {
		if !slices.Contains(want, line) {
			t.Errorf("only here: %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(ours, line) {
			t.Errorf("only by ostree: %s", line)
		}
	}
	// ostree 2025.2 has lines for Android's boot loader too, whose files are in no such image.
	entry, _, _ := strings.Cut(ostreeEntry(t, theirs, 1), "aboot ")
	if got := x.read(t, "boot/loader/entries/ostree-1.conf"); got != entry {
		t.Errorf("the boot entries differ:\n%s\n%s", got, entry)
	}
	xattrs := func(root string) string {
		return strings.ReplaceAll(run(t, "getfattr", "-R", "-d", "-m", "-", "-h", "--absolute-names", root+"/"+dep.Path), root, "")
	}
	if got, want := xattrs(x.path), xattrs(theirs); got != want {
		t.Errorf("extended attributes differ:\n%s\n%s", got, want)
	}
	if got, want := run(t, "lsattr", "-d", filepath.Join(x.path, dep.Path))[:20], run(t, "lsattr", "-d", filepath.Join(theirs, dep.Path))[:20]; got != want {
		t.Errorf("flags of the deployment: %q, want %q", got, want)
	}
	if diff := run(t, "diff", "-r", "--no-dereference", filepath.Join(x.path, dep.Path), filepath.Join(theirs, dep.Path)); diff != "" {
		t.Errorf("contents differ:\n%s", diff)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// ostreeEntry returns the text of a boot entry that ostree made. Its name has the stateroot until 2022.7 at
// least, and no longer in 2025.2.
func ostreeEntry(t *testing.T, sysroot string, number int) string {
	t.Helper()
	entries := fmt.Sprintf("%s/boot/loader/entries/ostree-%d", sysroot, number)
	if _, err := os.Lstat(entries + "-default.conf"); err == nil {
		return readFile(t, entries+"-default.conf")
	}
	return readFile(t, entries+".conf")
}

// withoutKnownDifferences leaves out what the two cannot share: the repository's other refs and
// working files, what the ostree of Debian 12 (2022.7) does not do yet (backing directories, the
// copy of the image's /var), what it names otherwise (boot entries) and what is private to it (the
// origin's text).
func withoutKnownDifferences(lines []string, dep *Deployment) []string {
	var out []string
	for _, line := range lines {
		name := line[strings.LastIndex(line, " /")+1:]
		switch {
		case strings.HasPrefix(name, "/ostree/repo/") && !strings.Contains(name, "refs/heads/ostree/1/"):
		case strings.HasPrefix(name, "/ostree/deploy/default/backing"):
		case strings.HasPrefix(name, "/ostree/deploy/default/var/") && name != "/ostree/deploy/default/var/.ostree-selabeled":
		case strings.HasPrefix(name, "/boot/loader.1/entries/"), name == "/"+dep.Path+".origin":
		case name == "/.bootc-aleph.json":
		default:
			out = append(out, line)
		}
	}
	return out
}

// TestLaterDeployments lets ostree work on the system: deploy again, pin, undeploy, clean up.
func TestLaterDeployments(t *testing.T) {
	x, dep := deployed(t, baseLayer())
	admin := func(args ...string) string {
		return run(t, "ostree", append([]string{"admin"}, args...)...)
	}
	repo := "--repo=" + x.path + "/ostree/repo"
	sysroot := "--sysroot=" + x.path
	run(t, "ostree", "commit", repo, "--branch=next", "--tree=ref="+dep.Commit.String(), "--add-metadata-string=version=2025.1")
	admin("pin", sysroot, "0")
	admin("deploy", sysroot, "--os=default", "next")
	status := admin("status", sysroot)
	if strings.Count(status, "default ") != 2 || !strings.Contains(status, "2025.1") || !strings.Contains(status, "Pinned: yes") {
		t.Fatalf("after a second deployment:\n%s", status)
	}
	next := ostreeEntry(t, x.path, 2)
	if !strings.Contains(next, "root=UUID=1-2 rw ostree=/ostree/boot.0/default/") {
		t.Errorf("the second deployment's entry:\n%s", next)
	}
	admin("undeploy", sysroot, "0")
	admin("cleanup", sysroot)
	run(t, "ostree", "fsck", repo)
	if status := admin("status", sysroot); strings.Count(status, "default ") != 1 || !strings.Contains(status, dep.Commit.String()) {
		t.Errorf("after undeploying the second:\n%s", status)
	}
	refs := run(t, "ostree", "refs", repo)
	if !strings.Contains(refs, "ostree/container/image/docker_3A__2F__2F_quay_2E_io/lab/os_3A_latest") {
		t.Errorf("the image's ref is gone; there are:\n%s", refs)
	}
}

func TestDeployRefuses(t *testing.T) {
	without := func(name string) []entry {
		return slices.DeleteFunc(baseLayer(), func(e entry) bool { return e.Name == name })
	}
	kernel := "usr/lib/modules/6.1.0-9/vmlinuz"
	cases := []struct {
		name   string
		layers [][]entry
		change func(*Options)
		check  func(error) bool
	}{
		{"no kernel", [][]entry{without(kernel)}, nil, func(err error) bool { return errors.Is(err, ErrNoKernel) }},
		{"two kernels", [][]entry{append(baseLayer(), fileEntry("usr/lib/modules/6.2/vmlinuz", "x"))}, nil, says("2 kernels")},
		{"a kernel whose name breaks the entry", [][]entry{append(without(kernel), fileEntry("usr/lib/modules/6 2/vmlinuz", "x"))}, nil, says("6 2")},
		{"no os-release", [][]entry{without("usr/lib/os-release")}, nil, says("os-release")},
		{"a stateroot with a slash", [][]entry{baseLayer()}, func(o *Options) { o.Stateroot = "../x" }, says("stateroot")},
		{"an argument of two words", [][]entry{baseLayer()}, func(o *Options) { o.Kargs = []string{"a b"} }, says("a b")},
		{"no origin", [][]entry{baseLayer()}, func(o *Options) { o.Origin = "" }, says("origin")},
		{"another image", [][]entry{baseLayer()}, func(o *Options) { o.TargetImage = "oci:elsewhere" }, says("elsewhere")},
	}
	for _, c := range cases {
		x := newTarget(t)
		_, _, commit := x.imported(t, makeImage(t, nil, c.layers...), followed)
		o := options()
		if c.change != nil {
			c.change(&o)
		}
		_, err := Deploy(t.Context(), x.root, x.repo, commit, o, x.ledger)
		if err == nil || !c.check(err) {
			t.Errorf("%s: error %v", c.name, err)
		}
		if _, err := os.Lstat(x.path + "/boot/loader"); !os.IsNotExist(err) {
			t.Errorf("%s: the target looks bootable (%v)", c.name, err)
		}
		if _, err := os.Lstat(x.path + "/ostree/lock"); !os.IsNotExist(err) {
			t.Errorf("%s: the lock's file is left (%v)", c.name, err)
		}
	}
}

func says(text string) func(error) bool {
	return func(err error) bool { return strings.Contains(err.Error(), text) }
}

func TestDeployTwice(t *testing.T) {
	x, dep := deployed(t, baseLayer())
	if _, err := Deploy(t.Context(), x.root, x.repo, dep.Commit, options(), x.ledger); !errors.Is(err, ErrDeployed) {
		t.Errorf("a second deployment: %v", err)
	}
}

func TestDeployLocked(t *testing.T) {
	x := newTarget(t)
	_, _, commit := x.imported(t, makeImage(t, nil, baseLayer()), followed)
	unlock, err := lockSysroot(beneath.Of(x.root, x.ledger))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Deploy(t.Context(), x.root, x.repo, commit, options(), x.ledger); !errors.Is(err, ErrLocked) {
		t.Errorf("deploying while another holds the lock: %v", err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}

// TestUmask makes sure that no mode depends on the caller's file mode mask.
func TestUmask(t *testing.T) {
	list := func(mask int) []string {
		before := syscall.Umask(mask)
		defer syscall.Umask(before)
		x, _ := deployed(t, baseLayer())
		return inventory(t, x.path)
	}
	plain, strict := list(0o022), list(0o077)
	for i := range plain {
		if i < len(strict) && plain[i] != strict[i] {
			t.Fatalf("%s\n%s", plain[i], strict[i])
		}
	}
	if len(plain) != len(strict) {
		t.Errorf("%d paths and %d", len(plain), len(strict))
	}
}

// TestFS reads a deployment as the boot loaders do.
func TestFS(t *testing.T) {
	x, dep := deployed(t, append(baseLayer(), linkEntry("usr/absolute", "/usr/lib/os-release"), linkEntry("usr/out", "../../../../../../etc/hostname")))
	fsys, err := beneath.OpenFS(x.root, dep.Path, x.ledger)
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	for name, ok := range map[string]bool{"usr/absolute": true, "usr/lib/os-release": true, "usr/out": false, "etc/nothing": false, "../x": false} {
		f, err := fsys.Open(name)
		if (err == nil) != ok {
			t.Errorf("opening %s: %v", name, err)
		}
		if err == nil {
			if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Name() != filepath.Base(name) {
				t.Errorf("%s: %v, %v", name, info, err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

var _ Ledger = (ostree.Ledger)(nil) // one ledger serves both
