// Package bootable judges whether the tree of an image starts as a host, and whether that host can
// be updated: the kernel, its initramfs, the program that becomes process 1, and the directories
// that ostree mounts and writes.
//
// It has the checks that need the tree alone, and Look, which reads the facts for them from the
// content of a file. Images are read by package image, disks by package verify, and the files of a
// boot loader are checked by package bootloader.
package bootable

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"installer/rootfs/osrelease"
)

// Modules is the directory with one directory for each kernel, named by its version.
const Modules = "usr/lib/modules"

// Tree is a merged tree, in which links are followed as if it were the root, and etc is where the
// image has it.
type Tree interface {
	fs.StatFS
	fs.ReadDirFS
	fs.ReadLinkFS
}

// Options describe the system that a tree becomes.
type Options struct {
	Arch    string // of the tree, as Go and OCI call it
	EFIStub bool   // the boot loader needs a kernel that is an EFI program
	// OwnBoot reports whether no boot loader is installed, because the user starts the system in
	// another way: faults of the initramfs and of the first program are notes then.
	OwnBoot bool
	// Facts returns the result of Look for the file that name leads to, or nil where its content is
	// not known.
	Facts func(name string) *Facts
}

// Error lists why a tree does not start, or cannot be updated.
type Error struct {
	Faults []Finding
}

// Finding is one fault, or something worth knowing.
type Finding struct {
	Path string // without a leading slash
	What string
}

func (f Finding) String() string { return "/" + f.Path + " " + f.What }

func (e *Error) Error() string {
	texts := make([]string, len(e.Faults))
	for n, f := range e.Faults {
		texts[n] = f.String()
	}
	return "the image does not make a host that starts and can be updated: " + strings.Join(texts, "; ")
}

var noKernel = Finding{Modules, "holds no kernel (VERSION/vmlinuz): it is no bootable image"}

// Check judges a tree. The error is an *Error; notes are about things that somebody may want as
// they are.
func Check(tree Tree, o Options) (notes []Finding, err error) {
	c := &checker{tree: tree, o: o}
	if c.o.Facts == nil {
		c.o.Facts = func(string) *Facts { return nil }
	}
	c.kernels()
	c.directories()
	c.program()
	c.system()
	if len(c.faults) > 0 {
		return c.notes, &Error{Faults: c.faults}
	}
	return c.notes, nil
}

type checker struct {
	tree          Tree
	o             Options
	faults, notes []Finding
}

func (c *checker) fault(name, format string, args ...any) {
	c.faults = append(c.faults, Finding{name, fmt.Sprintf(format, args...)})
}

func (c *checker) note(name, format string, args ...any) {
	c.notes = append(c.notes, Finding{name, fmt.Sprintf(format, args...)})
}

// start reports a fault that keeps a system from starting, and that nobody but the starter minds.
func (c *checker) start(name, format string, args ...any) {
	if c.o.OwnBoot {
		c.note(name, format, args...)
		return
	}
	c.fault(name, format, args...)
}

// versionPattern matches a kernel's version: it becomes a part of file names and of the boot entry.
var versionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+~-]*$`)

// kernels checks that there is one kernel, with all that belongs to it.
func (c *checker) kernels() {
	dirs, err := c.tree.ReadDir(Modules)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.fault(Modules, "cannot be read: %v", err)
		return
	}
	var versions []string
	for _, d := range dirs {
		at := path.Join(Modules, d.Name(), "vmlinuz")
		info, err := c.tree.Lstat(at)
		switch {
		case err != nil:
		case info.Mode().IsRegular():
			versions = append(versions, d.Name())
		default:
			c.notRegular(at, info)
		}
	}
	switch {
	case len(versions) > 1:
		c.fault(Modules, "holds %d kernels (%s), and ostree installs one: remove the others", len(versions), strings.Join(versions, ", "))
	case len(versions) == 1:
		c.kernel(versions[0])
	case len(c.faults) == 0:
		c.faults = append(c.faults, noKernel)
	}
}

// notRegular reports a file of the kernel that ostree does not take for one.
func (c *checker) notRegular(name string, info fs.FileInfo) {
	if info.Mode()&fs.ModeSymlink == 0 {
		c.fault(name, "is not a regular file")
		return
	}
	target, err := c.tree.ReadLink(name)
	if err != nil {
		c.fault(name, "is a symbolic link that cannot be read: %v", err)
		return
	}
	c.fault(name, "is a symbolic link to %s, and ostree installs a regular file only: put the file itself there", target)
}

// Bounds of the kernel's files, in bytes: a boot partition and the memory of a boot loader are no
// larger.
const (
	maxKernel    = 512 << 20
	maxInitramfs = 2 << 30
)

func (c *checker) kernel(version string) {
	dir := path.Join(Modules, version)
	if !versionPattern.MatchString(version) {
		c.fault(dir, "has a name that cannot stand in a boot entry: want letters, digits and _ . + ~ -")
	}
	vmlinuz := path.Join(dir, "vmlinuz")
	if facts, ok := c.content(vmlinuz, maxKernel); ok {
		c.judgeKernel(vmlinuz, version, facts)
	}
	c.initramfs(dir)
	if _, err := c.tree.Stat(path.Join(dir, "modules.dep")); err != nil {
		c.note(path.Join(dir, "modules.dep"), "is missing: no module is loaded after the initramfs (run depmod)")
	}
}

// content returns the facts of a regular file that is neither empty nor too large.
func (c *checker) content(name string, most int64) (facts *Facts, ok bool) {
	info, err := c.tree.Stat(name)
	switch {
	case err != nil:
		c.fault(name, "cannot be read: %v", err)
	case info.Size() == 0:
		c.fault(name, "is empty")
	case info.Size() > most:
		c.fault(name, "has %d bytes, and the most that is sensible are %d", info.Size(), most)
	default:
		return c.facts(name), true
	}
	return nil, false
}

// facts returns the facts of a file, or nil where its content was looked at in another role, or not
// at all.
func (c *checker) facts(name string) *Facts {
	if f := c.o.Facts(name); f != nil && f.role == roleOf(name) {
		return f
	}
	return nil
}

func (c *checker) judgeKernel(name, version string, f *Facts) {
	switch {
	case f == nil:
		c.note(name, "was not looked into")
	case f.Kernel == "":
		c.fault(name, "is no Linux kernel that a boot loader starts: %s", f.Problem)
	case f.Kernel != c.o.Arch:
		c.fault(name, "is a kernel for %s, and the image is for %s", f.Kernel, c.o.Arch)
	case c.o.EFIStub && !f.EFI:
		c.fault(name, "has no EFI stub, without which systemd-boot cannot start it")
	case f.Version != "" && f.Version != version:
		c.note(name, "is version %s, and its directory is that of the modules of %s", f.Version, version)
	}
}

func (c *checker) initramfs(dir string) {
	for _, base := range []string{"initramfs.img", "initramfs"} {
		name := path.Join(dir, base)
		info, err := c.tree.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && !info.Mode().IsRegular() {
			c.notRegular(name, info)
			return
		}
		if facts, ok := c.content(name, maxInitramfs); ok {
			c.judgeInitramfs(name, facts)
		}
		return
	}
	c.start(path.Join(dir, "initramfs.img"), "is missing: nothing mounts the root (make it with dracut, module ostree)")
}

func (c *checker) judgeInitramfs(name string, f *Facts) {
	switch {
	case f == nil:
		c.note(name, "was not looked into")
	case f.Initramfs == "" || f.Problem != "":
		c.start(name, "is no initramfs that a kernel unpacks: %s", f.Problem)
	case f.Searched && !f.PrepareRoot:
		c.start(name, "lacks ostree-prepare-root, without which it cannot start a deployment (make it with dracut, module ostree)")
	case !f.Searched:
		c.note(name, "is compressed by %s, and was not searched for ostree-prepare-root", f.Initramfs)
	}
}

// directories checks the mount points and the directories that ostree writes through, and that
// everybody may pass them.
func (c *checker) directories() {
	for _, name := range []string{"usr", "sysroot", "boot", "var", "dev", "proc", "sys", "run"} {
		if info, err := c.tree.Lstat(name); err != nil || !info.IsDir() {
			c.fault(name, "is not a directory, and the root of a deployment is read-only")
		}
	}
	if info, err := c.tree.Lstat("usr/etc"); err != nil || !info.IsDir() {
		c.fault("etc", "is missing: the system has no configuration")
	}
	if target, err := c.tree.ReadLink("ostree"); err != nil || strings.Trim(path.Clean("/"+target), "/") != "sysroot/ostree" {
		c.fault("ostree", "is not a link to sysroot/ostree, where ostree and bootc look for the repository at an update")
	}
	if _, err := c.tree.Stat("tmp"); err != nil {
		if _, err := c.tree.Lstat("tmp"); err != nil {
			c.note("tmp", "is missing: no tmpfs can be mounted there")
		}
	}
	for _, name := range []string{"usr/etc/.updated", "var/.updated"} {
		if info, err := c.tree.Lstat(name); err == nil && info.IsDir() {
			c.fault(name, "is a directory, and ostree removes a file of that name at each deployment")
		}
	}
	const passable = 0o005
	for _, name := range []string{".", "usr", "usr/bin", "usr/lib", "usr/etc"} {
		if info, err := c.tree.Stat(name); err == nil && info.Mode().Perm()&passable != passable {
			c.fault(strings.TrimPrefix(name, "."), "has mode %#o: no user but root finds a program or a file below it", info.Mode().Perm())
		}
	}
}

// program checks the program that becomes process 1 after the initramfs.
func (c *checker) program() {
	var first []Finding
	for _, name := range []string{"sbin/init", "usr/lib/systemd/systemd"} {
		before := len(c.faults)
		c.runs(name, 0)
		if len(c.faults) == before {
			return
		}
		if first == nil {
			first = c.faults[before:len(c.faults):len(c.faults)]
		}
		c.faults = c.faults[:before:before]
	}
	for _, f := range first {
		c.start(f.Path, "%s", f.What)
	}
}

// maxInterpreters bounds the chain of interpreters, as the kernel does.
const maxInterpreters = 4

// runs checks that the kernel can run a program, and with it the interpreter that it names.
func (c *checker) runs(name string, depth int) {
	info, err := c.tree.Stat(name)
	switch {
	case err != nil:
		c.fault(name, "cannot be run as the first program, or for it: %v", plain(err))
		return
	case !info.Mode().IsRegular():
		c.fault(name, "is not a program: it is not a regular file")
		return
	case info.Mode().Perm()&0o111 == 0:
		c.fault(name, "cannot be run: its mode %#o has no permission to execute", info.Mode().Perm())
		return
	case info.Size() == 0:
		c.fault(name, "cannot be run: it is empty")
		return
	}
	f := c.facts(name)
	switch {
	case f == nil:
		c.note(name, "was not looked into")
	case f.Program == "":
		c.fault(name, "cannot be run: it is neither an ELF program nor a script")
	case f.Program != scriptProgram && f.Program != c.o.Arch:
		c.fault(name, "is a program for %s, and the image is for %s", f.Program, c.o.Arch)
	case f.Interpreter != "" && depth == maxInterpreters:
		c.fault(name, "needs more than %d interpreters", maxInterpreters)
	case f.Interpreter != "":
		c.runs(strings.TrimPrefix(path.Clean("/"+f.Interpreter), "/"), depth+1)
	}
}

// plain returns the cause of an error of a file system, without the name that the message has
// already.
func plain(err error) error {
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// system checks the name of the system, and notes missing files without which a host still starts.
func (c *checker) system() {
	if _, err := osrelease.Read(c.tree); errors.Is(err, fs.ErrNotExist) {
		c.fault(osrelease.Paths()[0], "is missing: ostree deploys no tree without a name")
	} else if err != nil {
		c.fault(osrelease.Paths()[0], "cannot be used: %v", err)
	}
	updater := false
	for _, name := range []string{"usr/bin/bootc", "usr/bin/rpm-ostree", "usr/bin/ostree"} {
		info, err := c.tree.Stat(name)
		updater = updater || err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
	}
	if !updater {
		c.note("usr/bin/bootc", "is missing, and so are rpm-ostree and ostree: the host cannot update itself")
	}
	if !c.exists("usr/etc/passwd") && !c.exists("usr/lib/passwd") {
		c.note("etc/passwd", "is missing: nobody can log in")
	}
	if !c.exists("bin/sh") {
		c.note("bin/sh", "is missing: no script runs")
	}
	const placeholder = len("uninitialized\n")
	if info, err := c.tree.Stat("usr/etc/machine-id"); err == nil && info.Size() > int64(placeholder) {
		c.note("etc/machine-id", "is part of the image: every host that is made of it has the same machine ID (leave it empty)")
	}
}

func (c *checker) exists(name string) bool {
	_, err := c.tree.Stat(name)
	return err == nil
}
