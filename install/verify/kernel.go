package verify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// kernelFile is a file of the kernel: its path in the deployment, and its name among the boot
// files.
type kernelFile struct {
	path string // relative to the root
	boot string // relative to the directory of the boot files
}

// kernelCheck compares the kernels of /boot with those of the deployments.
type kernelCheck struct {
	*findings
	ctx    context.Context
	tree   tree
	broken map[string]bool // damaged file objects, by their path
}

// check computes each deployment's boot checksum anew and compares the boot files with those of
// the deployment.
func (c *kernelCheck) check(deployments []*deployment) error {
	var versions []string
	for _, d := range deployments {
		if d.entry == nil {
			continue // the boot links' check has said so
		}
		version, files, err := kernelFiles(c.tree, d)
		if err != nil {
			c.fault("/"+path.Join(d.path, "usr/lib/modules"), "%v", err)
			continue
		}
		versions = append(versions, version)
		if err := c.checkKernel(d, files); err != nil {
			return err
		}
	}
	c.say("boot checksum of %v", versions)
	return nil
}

// kernelFiles finds the kernel as ostree does: usr/lib/modules/VERSION/vmlinuz, with initramfs and
// device trees.
func kernelFiles(t tree, d *deployment) (version string, files []kernelFile, err error) {
	modules := path.Join(d.path, "usr/lib/modules")
	names, err := t.names(modules)
	if err != nil {
		return "", nil, err
	}
	var versions []string
	for _, name := range names {
		if t.isRegular(path.Join(modules, name, "vmlinuz")) {
			versions = append(versions, name)
		}
	}
	if len(versions) != 1 {
		return "", nil, fmt.Errorf("there are %d kernels (VERSION/vmlinuz) instead of one", len(versions))
	}
	version = versions[0]
	at := path.Join(modules, version)
	files = []kernelFile{{path.Join(at, "vmlinuz"), "vmlinuz-" + version}}
	for _, name := range []string{"initramfs.img", "initramfs"} {
		if t.isRegular(path.Join(at, name)) {
			files = append(files, kernelFile{path.Join(at, name), "initramfs-" + version + ".img"})
			break
		}
	}
	if name := path.Join(at, "devicetree"); t.isRegular(name) {
		return version, append(files, kernelFile{name, "devicetree-" + version}), nil
	}
	trees, err := t.filesBelow(path.Join(at, "dtb"))
	for _, name := range trees {
		files = append(files, kernelFile{path.Join(at, "dtb", name), path.Join("dtb", name)})
	}
	return version, files, err
}

func (t tree) isRegular(name string) bool {
	st, err := t.stat(name)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// filesBelow lists the regular files below a directory that may be missing, in the order of the
// checksum.
func (t tree) filesBelow(dir string) ([]string, error) {
	if !t.isDir(dir) {
		return nil, nil
	}
	names, err := t.names(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, name := range names {
		if t.isRegular(path.Join(dir, name)) {
			files = append(files, name)
			continue
		}
		below, err := t.filesBelow(path.Join(dir, name))
		if err != nil {
			return nil, err
		}
		for _, file := range below {
			files = append(files, path.Join(name, file))
		}
	}
	return files, nil
}

// checkKernel judges one deployment's boot files. A damaged one is named by its path in /boot.
func (c *kernelCheck) checkKernel(d *deployment, files []kernelFile) error {
	link := d.entry.link
	set := path.Join("boot/ostree", link.stateroot+"-"+link.checksum)
	sum := sha256.New()
	var suspects []string
	for _, f := range files {
		if err := c.tree.hashInto(c.ctx, f.path, sum); err != nil {
			c.fault("/"+f.path, "it cannot be read: %v", err)
			return c.ctx.Err()
		}
		boot := path.Join(set, f.boot)
		if c.broken[f.path] {
			suspects = append(suspects, "/"+boot)
		}
		c.compareBootFile(f.path, boot)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != link.checksum {
		if len(suspects) == 0 {
			suspects = []string{"/" + set}
		}
		for _, where := range suspects {
			c.faultWith("deploy the image anew", where, "the kernel's files have the boot checksum %s, and are kept as %s", got, link.checksum)
		}
	}
	c.checkNamed(d, files, set)
	return c.ctx.Err()
}

// checkNamed checks that the entry starts this kernel with this initramfs.
func (c *kernelCheck) checkNamed(d *deployment, files []kernelFile, set string) {
	e := d.entry
	if got, want := bootPath(e.linux), path.Join(set, files[0].boot); got != want {
		c.fault("/"+e.path, "it starts /%s, and the deployment's kernel is /%s", got, want)
	}
	for _, f := range files {
		want := path.Join(set, f.boot)
		isInitramfs := path.Base(f.path) == "initramfs" || path.Base(f.path) == "initramfs.img"
		if isInitramfs && !slices.ContainsFunc(e.initrds, func(name string) bool { return bootPath(name) == want }) {
			c.fault("/"+e.path, "it does not load the deployment's initramfs /%s", want)
		}
	}
}

// compareBootFile compares a file in /boot with the deployment's. Most often they are one.
func (c *kernelCheck) compareBootFile(source, boot string) {
	a, errA := c.tree.stat(source)
	b, errB := c.tree.stat(boot)
	switch {
	case errA != nil || errB != nil:
		c.fault("/"+boot, "it cannot be compared with /%s: %v", source, firstError(errB, errA))
		return
	case a.Dev == b.Dev && a.Ino == b.Ino:
		return
	}
	sumA, sumB := sha256.New(), sha256.New()
	if err := firstError(c.tree.hashInto(c.ctx, source, sumA), c.tree.hashInto(c.ctx, boot, sumB)); err != nil {
		c.fault("/"+boot, "it cannot be compared with /%s: %v", source, err)
	} else if string(sumA.Sum(nil)) != string(sumB.Sum(nil)) {
		c.fault("/"+boot, "it differs from /%s, which it is a copy of", source)
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (t tree) hashInto(ctx context.Context, name string, sum hash.Hash) error {
	return t.regular(name, func(f *os.File, _ int64) error {
		_, err := io.Copy(sum, contextReader{ctx, f})
		return err
	})
}

// contextReader ends a long read when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
