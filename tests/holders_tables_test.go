package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tableKind is a holder that only the kernel's own tables show. make returns the function that
// takes it down again; nil when the file system cannot have it.
type tableKind struct {
	class string
	make  func(x *target) (path string, undo func())
}

func tableKinds() map[string]tableKind {
	return map[string]tableKind{
		"bind":        {"mount", bindOf("dir")},
		"bind a file": {"mount", bindOf("file")},
		"loop":        {"loop", loopOn},
		"swap":        {"swap", swapOn},
		"lower":       {"overlay", overlayWith("lowerdir=%x/dir,upperdir=%b/upper,workdir=%b/work")},
		"upper":       {"overlay", overlayWith("lowerdir=%b/lower,upperdir=%x/upper,workdir=%x/work")},
		"image":       {"file-image", imageOn},
		"binfmt":      {"binfmt", binfmtOn},
		"uprobe":      {"uprobe", uprobeOn},
		"frozen":      {"frozen", freezeIt},
	}
}

// TestHoldersInTables has every class of holder that no process shows.
func TestHoldersInTables(t *testing.T) {
	LoopSnapshot(t)
	w := newWorkplace(t)
	for _, fs := range threeFilesystems {
		x := w.target(fs)
		for name, kind := range tableKinds() {
			t.Run(fs+"/"+name, func(t *testing.T) {
				x := x.in(t)
				path, undo := kind.make(x)
				x.examine(x.dir, 3).has(t, kind.class, 0, path)
				if name == "frozen" {
					x.refusedFrozen()
				} else {
					x.refused(kind.class, 0)
				}
				undo()
				x.released()
			})
		}
	}
}

// refusedFrozen is refused for a target that cannot be written to as it is.
func (x *target) refusedFrozen() {
	x.t.Helper()
	r := x.installer("finalize", x.dir)
	if options, ok := x.mounted(); r.Code != 3 || !strings.Contains(r.Stderr, "frozen on") || !ok || !strings.HasPrefix(options, "rw") {
		x.t.Errorf("exit status %d, want 3; mounted %v with %q:\n%s", r.Code, ok, options, r.Stderr)
	}
}

func bindOf(name string) func(*target) (string, func()) {
	return func(x *target) (string, func()) {
		point := filepath.Join(x.t.TempDir(), "point")
		if name == "file" {
			must(x.t.(*testing.T), os.WriteFile(point, nil, 0o600))
		} else {
			must(x.t.(*testing.T), os.Mkdir(point, 0o700))
		}
		x.run("mount", "--bind", x.path(name), point)
		return point, func() { x.run("umount", point) }
	}
}

func loopOn(x *target) (string, func()) {
	loop := x.run("losetup", "--find", "--show", x.path("file"))
	return x.path("file"), func() { x.run("losetup", "--detach", loop) }
}

func swapOn(x *target) (string, func()) {
	path := x.path("swap file")
	x.run("touch", path)
	if x.fs == "btrfs" {
		x.run("chattr", "+C", path) // it swaps only to files that it does not copy on write
	}
	x.run("dd", "if=/dev/zero", "of="+path, "bs=1M", "count=2", "status=none")
	x.run("chmod", "600", path)
	x.run("mkswap", "--quiet", path)
	x.run("swapon", path)
	return path, func() {
		x.run("swapoff", path)
		x.run("rm", path)
	}
}

func overlayWith(options string) func(*target) (string, func()) {
	return func(x *target) (string, func()) {
		base := x.t.TempDir()
		for _, dir := range []string{base, x.dir} {
			x.run("mkdir", "-p", dir+"/lower", dir+"/upper", dir+"/work", dir+"/merged")
		}
		options := strings.NewReplacer("%x", x.dir, "%b", base).Replace(options)
		x.run("mount", "-t", "overlay", "-o", options, "overlay", base+"/merged")
		return base + "/merged", func() {
			x.run("umount", base+"/merged")
			x.run("rm", "-rf", x.path("work"), x.path("upper"))
		}
	}
}

func imageOn(x *target) (string, func()) {
	image, point := x.path("image.erofs"), x.t.TempDir()
	x.run("mkfs.erofs", image, x.t.TempDir())
	x.hold("mount-image", image, point).Stop()
	return image, func() { x.run("umount", point) }
}

func binfmtOn(x *target) (string, func()) {
	interpreter, point := x.path("interpreter"), x.t.TempDir()
	x.run("cp", "/bin/true", interpreter)
	x.run("mount", "-t", "binfmt_misc", "none", point)
	name := "installer-" + x.fs
	x.write(point+"/register", ":"+name+":E::"+name+"::"+interpreter+":F")
	return interpreter, func() {
		x.write(point+"/"+name, "-1")
		x.run("umount", point)
	}
}

func uprobeOn(x *target) (string, func()) {
	program, point := x.path("program"), x.t.TempDir()
	x.run("cp", "/bin/true", program)
	x.run("mount", "-t", "tracefs", "none", point)
	x.write(point+"/uprobe_events", "p:installer_"+x.fs+" "+program+":0x1000")
	return program, func() {
		x.write(point+"/uprobe_events", "-:installer_"+x.fs)
		x.run("umount", point)
	}
}

// write writes a line to a file of the kernel's, from within the workplace: the paths in it are its.
func (x *target) write(file, line string) {
	x.t.Helper()
	x.run("sh", "-c", `printf '%s\n' "$1" >>"$2"`, "sh", line, file)
}

func freezeIt(x *target) (string, func()) {
	x.hold("freeze", x.dir).Stop()
	return x.dir, func() { x.run("fsfreeze", "--unfreeze", x.dir) }
}

// TestNestedMounts has mounts on the target: a holder to who asks, and part of what is released.
func TestNestedMounts(t *testing.T) {
	LoopSnapshot(t)
	w := newWorkplace(t)
	x, boot := w.target("xfs"), w.target("ext4")
	w.run("umount", boot.dir)
	w.run("mount", boot.node, x.path("dir"))
	w.run("mkdir", x.path("dir/sub"))
	w.run("mount", "-t", "tmpfs", "none", x.path("dir/sub"))
	w.run("mkdir", x.path("merged"), x.path("upper"), x.path("work"))
	w.run("mount", "-t", "overlay", "-o", "lowerdir="+x.path("dir")+",upperdir="+x.path("upper")+",workdir="+x.path("work"),
		"overlay", x.path("merged"))
	w.examine(x.dir, 3).has(t, "mount", 0, "/mnt/dir")
	if r := w.installer("finalize", "--keep-mounted", x.dir); r.Code != 0 {
		t.Errorf("exit status %d\n%s", r.Code, r.Stderr)
	}
	if options, ok := x.mounted(); !ok || !strings.HasPrefix(options, "ro") {
		t.Errorf("mounted: %v, with %q", ok, options)
	}
	if r := w.installer("finalize", x.dir); r.Code != 0 || !strings.Contains(r.Stdout, "/mnt/dir/sub, "+x.path("dir")+", "+x.dir) {
		t.Errorf("exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if !x.dead() || !boot.dead() {
		t.Error("not released")
	}
}

// TestHoldersOfADevice asks about a device instead of a mount: everything that uses it is a holder
// then.
func TestHoldersOfADevice(t *testing.T) {
	LoopSnapshot(t)
	w := newWorkplace(t)
	for _, fs := range threeFilesystems {
		x := w.target(fs)
		h := x.hold("map", x.path("file"))
		report := x.examine(x.node, 3)
		report.has(t, "map", h.PID, "/file")
		report.has(t, "mount", 0, "/mnt")
		h.Stop()
		context := x.hold("fs-context", x.dir)
		x.run("umount", x.dir)
		report = x.examine(x.node, 3)
		report.has(t, "fs-context", context.PID, "[fscontext]")
		if report.Verdict != "held" || len(report.Holders) != 1 {
			t.Errorf("%s: verdict %s, %+v", fs, report.Verdict, report.Holders)
		}
		context.Stop()
		x.examine(x.node, 0)
		claim := x.hold("claim", x.node)
		report = x.examine(x.node, 3)
		report.has(t, "block-claim", claim.PID, x.node) // with this process, which has it open too
		report.has(t, "block-claim", os.Getpid(), x.node)
		claim.Stop()
		x.examine(x.node, 0)
	}
}
