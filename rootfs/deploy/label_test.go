package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/rootfs/ostree"
)

// byPath is a labeller that shows the path that it was asked for, and leaves one alone.
func byPath(name string, mode uint32) string {
	if strings.HasSuffix(name, "/none") {
		return ""
	}
	return "u:r:" + name + ":s0"
}

// labelsOf returns the paths in the labels of all files below a directory.
func labelsOf(t *testing.T, root string) map[string]string {
	t.Helper()
	labels := map[string]string{}
	err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(name, "security.selinux", value)
		if err != nil && err != unix.ENODATA {
			return err
		}
		text := strings.TrimSuffix(string(value[:max(n, 0)]), ":s0\x00")
		rel, _ := filepath.Rel(root, name)
		labels[rel] = strings.TrimPrefix(text, "u:r:")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return labels
}

// addFiles puts files on a target beside those of the deployment.
func addFiles(t *testing.T, x *target, dep *Deployment) {
	t.Helper()
	for name, mode := range map[string]fs.FileMode{
		dep.Path + "/etc/fstab": 0o644, dep.Path + "/etc/none": 0o644, "ostree/bootc/storage/overlay/l/x": 0o644, ".bootc-aleph.json": 0o644,
		"boot/grub/grub.cfg": 0o644, "boot/loader/none": 0o644, "ostree/deploy/default/var/more": 0o644, "other/file": 0o644,
	} {
		at := filepath.Join(x.path, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mknod(filepath.Join(x.path, "ostree/bootc/storage/overlay/gone"), unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
}

// TestLabel labels a system: all of it, and the files that bootc labels on a machine without SELinux.
func TestLabel(t *testing.T) {
	const v, storage = "ostree/deploy/default/var", "ostree/bootc/storage"
	for _, all := range []bool{true, false} {
		x, dep := deployed(t, baseLayer())
		addFiles(t, x, dep)
		content := labelsOf(t, filepath.Join(x.path, dep.Path, "usr"))
		n, err := Label(t.Context(), x.root, dep, Labelling{Of: byPath, All: all}, x.ledger)
		if err != nil {
			t.Fatal(err)
		}
		got := labelsOf(t, x.path)
		want := map[string]string{
			v: "/var", v + "/lib/state": "/var/lib/state", v + "/more": "/var/more", dep.Path + "/etc/fstab": "/etc/fstab", dep.Path + "/etc/none": "",
			dep.Path + "/etc/link": "/etc/link", "other/file": "", "other": "", dep.Path: "", dep.BootPath + "/" + dep.Kernel.VmlinuzPath: "", "boot/loader.1/none": "",
		}
		whole := map[string]string{
			".": "/", "boot": "/boot", "boot/grub/grub.cfg": "/boot/grub/grub.cfg", "boot/boot": "/boot/boot", "boot/loader": "/boot/loader",
			".bootc-aleph.json": "/.bootc-aleph.json", "ostree": "/usr", "ostree/repo/config": "/usr", "ostree/deploy/default": "/usr",
			dep.Path + ".origin": "/usr", "ostree/repo/" + objectOf(dep): "/usr", "ostree/bootc": "/usr",
			storage: "/var/lib/containers/storage", storage + "/overlay/l/x": "/var/lib/containers/storage/overlay/l/x",
			storage + "/overlay/gone": "/var/lib/containers/storage/overlay/gone", storage + "/.bootc_labeled": "/var/lib/containers/storage/.bootc_labeled",
			v + "/.ostree-selabeled": "/var/.ostree-selabeled", "ostree/deploy/default/backing/" + filepath.Base(dep.Path) + "/root-transient/upper": "/",
		}
		for name, as := range whole {
			if !all {
				as = ""
			}
			want[name] = as
		}
		if !all {
			delete(want, storage+"/.bootc_labeled")
		}
		for name, as := range want {
			if label, there := got[name]; label != as || !there {
				t.Errorf("all: %v: %s has the label %q (there: %v), want %q", all, name, label, there, as)
			}
		}
		checkContent(t, x, dep, content)
		if count := countLabels(got); n < count {
			t.Errorf("all: %v: %d files were labelled, and %d have labels", all, n, count)
		}
	}
}

// objectOf returns the place of the commit of a deployment in the repository.
func objectOf(dep *Deployment) string {
	sum := dep.Commit.String()
	return "objects/" + sum[:2] + "/" + sum[2:] + "." + ostree.TypeCommit.String()
}

func countLabels(labels map[string]string) (n int) {
	for _, l := range labels {
		if l != "" {
			n++
		}
	}
	return n
}

// checkContent requires that no file of the commit got another label than it had.
func checkContent(t *testing.T, x *target, dep *Deployment, before map[string]string) {
	t.Helper()
	for name, label := range labelsOf(t, filepath.Join(x.path, dep.Path, "usr")) {
		if label != before[name] {
			t.Errorf("%s of the commit has the label %q, and had %q", name, label, before[name])
		}
	}
	run(t, "ostree", "fsck", "--repo="+x.path+"/ostree/repo")
}
