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

// checkKernels computes each deployment's boot checksum anew and compares the boot files with those
// of the deployment.
func (i *inspection) checkKernels(ctx context.Context) error {
	var versions []string
	for _, d := range i.deployments {
		if d.entry == nil {
			continue // the boot links' check has said so
		}
		version, files, err := i.kernelFiles(d)
		if err != nil {
			i.fault("/"+path.Join(d.path, "usr/lib/modules"), "%v", err)
			continue
		}
		versions = append(versions, version)
		if err := i.checkKernel(ctx, d, files); err != nil {
			return err
		}
	}
	i.say("boot checksum of %v", versions)
	return nil
}

// kernelFiles finds the kernel as ostree does: usr/lib/modules/VERSION/vmlinuz, with initramfs and
// device trees.
func (i *inspection) kernelFiles(d *deployment) (version string, files []kernelFile, err error) {
	modules := path.Join(d.path, "usr/lib/modules")
	names, err := i.tree.names(modules)
	if err != nil {
		return "", nil, err
	}
	var versions []string
	for _, name := range names {
		if i.isRegular(path.Join(modules, name, "vmlinuz")) {
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
		if i.isRegular(path.Join(at, name)) {
			files = append(files, kernelFile{path.Join(at, name), "initramfs-" + version + ".img"})
			break
		}
	}
	if name := path.Join(at, "devicetree"); i.isRegular(name) {
		return version, append(files, kernelFile{name, "devicetree-" + version}), nil
	}
	trees, err := i.filesBelow(path.Join(at, "dtb"))
	for _, name := range trees {
		files = append(files, kernelFile{path.Join(at, "dtb", name), path.Join("dtb", name)})
	}
	return version, files, err
}

func (i *inspection) isRegular(name string) bool {
	st, err := i.tree.stat(name)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// filesBelow lists the regular files below a directory that may be missing, in the order of the
// checksum.
func (i *inspection) filesBelow(dir string) ([]string, error) {
	if !i.tree.isDir(dir) {
		return nil, nil
	}
	names, err := i.tree.names(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, name := range names {
		if i.isRegular(path.Join(dir, name)) {
			files = append(files, name)
			continue
		}
		below, err := i.filesBelow(path.Join(dir, name))
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
func (i *inspection) checkKernel(ctx context.Context, d *deployment, files []kernelFile) error {
	link := d.entry.link
	set := path.Join("boot/ostree", link.stateroot+"-"+link.checksum)
	sum := sha256.New()
	var suspects []string
	for _, f := range files {
		if err := i.hashInto(ctx, f.path, sum); err != nil {
			i.fault("/"+f.path, "it cannot be read: %v", err)
			return ctx.Err()
		}
		boot := path.Join(set, f.boot)
		if i.broken[f.path] {
			suspects = append(suspects, "/"+boot)
		}
		i.compareBootFile(ctx, f.path, boot)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != link.checksum {
		if len(suspects) == 0 {
			suspects = []string{"/" + set}
		}
		for _, where := range suspects {
			i.faultWith("deploy the image anew", where, "the kernel's files have the boot checksum %s, and are kept as %s", got, link.checksum)
		}
	}
	i.checkNamed(d, files, set)
	return ctx.Err()
}

// checkNamed checks that the entry starts this kernel with this initramfs.
func (i *inspection) checkNamed(d *deployment, files []kernelFile, set string) {
	e := d.entry
	if got, want := bootPath(e.linux), path.Join(set, files[0].boot); got != want {
		i.fault("/"+e.path, "it starts /%s, and the deployment's kernel is /%s", got, want)
	}
	for _, f := range files {
		want := path.Join(set, f.boot)
		isInitramfs := path.Base(f.path) == "initramfs" || path.Base(f.path) == "initramfs.img"
		if isInitramfs && !slices.ContainsFunc(e.initrds, func(name string) bool { return bootPath(name) == want }) {
			i.fault("/"+e.path, "it does not load the deployment's initramfs /%s", want)
		}
	}
}

// compareBootFile compares a file in /boot with the deployment's. Most often they are one.
func (i *inspection) compareBootFile(ctx context.Context, source, boot string) {
	a, errA := i.tree.stat(source)
	b, errB := i.tree.stat(boot)
	switch {
	case errA != nil || errB != nil:
		i.fault("/"+boot, "it cannot be compared with /%s: %v", source, firstError(errB, errA))
		return
	case a.Dev == b.Dev && a.Ino == b.Ino:
		return
	}
	sumA, sumB := sha256.New(), sha256.New()
	if err := firstError(i.hashInto(ctx, source, sumA), i.hashInto(ctx, boot, sumB)); err != nil {
		i.fault("/"+boot, "it cannot be compared with /%s: %v", source, err)
	} else if string(sumA.Sum(nil)) != string(sumB.Sum(nil)) {
		i.fault("/"+boot, "it differs from /%s, which it is a copy of", source)
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

func (i *inspection) hashInto(ctx context.Context, name string, sum hash.Hash) error {
	return i.tree.regular(name, func(f *os.File, _ int64) error {
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
