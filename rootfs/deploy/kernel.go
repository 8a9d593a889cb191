package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"installer/rootfs/beneath"
)

// KernelInfo is a deployment's kernel. Paths are relative to the directory boot of the physical
// root.
type KernelInfo struct {
	Version       string
	VmlinuzPath   string
	InitramfsPath string // "" if the image has none
}

// kernel holds the paths of the kernel's files in a deployment; "" is not there.
type kernel struct {
	version    string
	vmlinuz    string
	initramfs  string
	devicetree string
	dtb        string   // a directory
	dtbFiles   []string // the files below it, relative to it, in order
	hmac       string
	checksum   string // bootcsum: names the set in /boot
}

// findKernel looks for the one kernel of a deployment and computes its boot checksum.
func findKernel(deployment *beneath.Dir) (kernel, error) {
	const modules = "usr/lib/modules"
	names, err := deployment.Names(modules)
	if errors.Is(err, fs.ErrNotExist) {
		return kernel{}, ErrNoKernel
	}
	if err != nil {
		return kernel{}, fmt.Errorf("looking for the kernel: %w", err)
	}
	var versions []string
	for _, name := range names {
		found, err := deployment.IsKind(path.Join(modules, name, "vmlinuz"), unix.S_IFREG)
		if err != nil && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			return kernel{}, fmt.Errorf("looking for the kernel: %w", err)
		}
		if found {
			versions = append(versions, name)
		}
	}
	if err := oneKernel(versions); err != nil {
		return kernel{}, err
	}
	return describeKernel(deployment, versions[0], path.Join(modules, versions[0]))
}

func describeKernel(deployment *beneath.Dir, version, at string) (kernel, error) {
	k := kernel{version: version, vmlinuz: path.Join(at, "vmlinuz")}
	if !kernelPattern.MatchString(version) {
		return k, fmt.Errorf("the kernel's version %q cannot stand in a boot entry", version)
	}
	for _, c := range []struct {
		to   *string
		name string
		kind uint32
	}{
		{&k.initramfs, "initramfs", unix.S_IFREG},
		{&k.initramfs, "initramfs.img", unix.S_IFREG}, // wins over the one before
		{&k.dtb, "dtb", unix.S_IFDIR},
		{&k.devicetree, "devicetree", unix.S_IFREG},
		{&k.hmac, ".vmlinuz.hmac", unix.S_IFREG},
	} {
		found, err := deployment.IsKind(path.Join(at, c.name), c.kind)
		if err != nil {
			return k, fmt.Errorf("looking for the kernel's %s: %w", c.name, err)
		}
		if found {
			*c.to = path.Join(at, c.name)
		}
	}
	if k.devicetree != "" {
		k.dtb = ""
	}
	return k.withChecksum(deployment)
}

// withChecksum computes the SHA-256 over kernel, initramfs and device trees in this order.
func (k kernel) withChecksum(deployment *beneath.Dir) (kernel, error) {
	files := []string{k.vmlinuz, k.initramfs, k.devicetree}
	if k.dtb != "" {
		var err error
		if k.dtbFiles, err = listFiles(deployment, k.dtb, ""); err != nil {
			return k, fmt.Errorf("listing the device trees: %w", err)
		}
		for _, name := range k.dtbFiles {
			files = append(files, path.Join(k.dtb, name))
		}
	}
	sum := sha256.New()
	for _, name := range files {
		if name == "" {
			continue
		}
		if err := hashFile(deployment, name, sum); err != nil {
			return k, fmt.Errorf("computing the boot checksum: %w", err)
		}
	}
	k.checksum = hex.EncodeToString(sum.Sum(nil))
	return k, nil
}

func hashFile(d *beneath.Dir, name string, sum hash.Hash) error {
	f, err := d.OpenInside(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(sum, f)
	return err
}

// listFiles lists the regular files below a directory, names in byte order, each directory where
// its name stands.
func listFiles(d *beneath.Dir, base, below string) ([]string, error) {
	names, err := d.Names(path.Join(base, below))
	if err != nil {
		return nil, err
	}
	var files []string
	for _, name := range names {
		rel := path.Join(below, name)
		st, _, err := d.Stat(path.Join(base, rel))
		if err != nil {
			return nil, err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			more, err := listFiles(d, base, rel)
			if err != nil {
				return nil, err
			}
			files = append(files, more...)
		case unix.S_IFREG:
			files = append(files, rel)
		}
	}
	return files, nil
}

// install links the kernel's files into the directory at, relative to the physical root. They keep
// their inodes, so that a boot directory in the root file system costs no space.
func (k kernel) install(root, deployment *beneath.Dir, at string) (KernelInfo, error) {
	if err := root.MkdirAll(at, 0o755); err != nil {
		return KernelInfo{}, err
	}
	info := KernelInfo{Version: k.version, VmlinuzPath: "vmlinuz-" + k.version}
	links := [][2]string{{k.vmlinuz, info.VmlinuzPath}}
	if k.initramfs != "" {
		info.InitramfsPath = "initramfs-" + k.version + ".img"
		links = append(links, [2]string{k.initramfs, info.InitramfsPath})
	}
	if k.devicetree != "" {
		links = append(links, [2]string{k.devicetree, "devicetree-" + k.version})
	}
	if k.hmac != "" {
		links = append(links, [2]string{k.hmac, ".vmlinuz-" + k.version + ".hmac"})
	}
	for _, name := range k.dtbFiles {
		links = append(links, [2]string{path.Join(k.dtb, name), path.Join("dtb", name)})
	}
	for _, l := range links {
		if err := root.Link(deployment, l[0], path.Join(at, l[1])); err != nil {
			return KernelInfo{}, fmt.Errorf("installing the kernel's files: %w", err)
		}
	}
	return info, nil
}

// oneKernel refuses more than one kernel: ostree takes the first that it comes across.
func oneKernel(versions []string) error {
	switch len(versions) {
	case 0:
		return ErrNoKernel
	case 1:
		return nil
	}
	return fmt.Errorf("the image carries %d kernels (%s), and only one can be installed: remove the others from usr/lib/modules",
		len(versions), strings.Join(versions, ", "))
}
