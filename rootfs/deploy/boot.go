package deploy

import (
	"context"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"installer/rootfs/beneath"
	"installer/rootfs/osrelease"
)

// bootFiles finds the kernel and puts its files into /boot, named by their checksum.
func (d *deployer) bootFiles(context.Context) error {
	return d.inDeployment(func(t *beneath.Dir) (err error) {
		if d.kernel, err = findKernel(t); err != nil {
			return err
		}
		d.dep.BootChecksum = d.kernel.checksum
		set := d.o.Stateroot + "-" + d.kernel.checksum
		d.dep.BootPath = path.Join("boot/ostree", set)
		if d.dep.Kernel, err = d.kernel.install(d.root, t, d.dep.BootPath); err != nil {
			return err
		}
		return nil
	})
}

// linkTarget is the value of ostree=, beneath which the initramfs finds the deployment.
func (d *deployer) linkTarget() string {
	return path.Join("/ostree/boot.1", d.o.Stateroot, d.kernel.checksum, "0")
}

func (d *deployer) writeEntry(context.Context) error {
	entry, err := d.describeEntry()
	if err != nil {
		return err
	}
	d.dep.Kargs = entry.arguments()
	d.dep.EntryPath, d.dep.EntryText = firstEntry, entry.text()
	if err := d.root.MkdirAll(path.Dir(firstEntry), 0o755); err != nil {
		return err
	}
	return d.root.WriteFile(firstEntry, []byte(d.dep.EntryText), 0o644)
}

func (d *deployer) describeEntry() (bootEntry, error) {
	var release osrelease.Release
	err := d.inDeployment(func(t *beneath.Dir) (err error) {
		if release, err = osrelease.Read(t.FS()); err != nil {
			return fmt.Errorf("reading os-release, which names the system: %w", err)
		}
		return nil
	})
	if err != nil {
		return bootEntry{}, err
	}
	d.dep.OSID = release.ID
	at := "/" + path.Join("ostree", path.Base(d.dep.BootPath))
	if d.repo.Config().BootPrefix {
		at = "/boot" + at
	}
	e := bootEntry{
		title: release.Title(), version: osrelease.Clean(d.o.Version), kargs: d.o.Kargs,
		ostree: d.linkTarget(), at: at, kernel: d.dep.Kernel, devicetree: d.kernel.deviceTreeLine(at),
	}
	if d.dep.Kernel.InitramfsPath == "" {
		e.initProgram = d.linkTarget() + "/usr/lib/ostree/ostree-prepare-root"
	}
	return e, nil
}

func (k kernel) deviceTreeLine(at string) string {
	switch {
	case k.devicetree != "":
		return "devicetree " + path.Join(at, "devicetree-"+k.version)
	case k.dtb != "":
		return "fdtdir " + path.Join(at, "dtb")
	}
	return ""
}

// linkDeployment makes the links that ostree= follows to the deployment, and the ref that protects
// its commit.
func (d *deployer) linkDeployment(context.Context) error {
	at := path.Join(bootLinks, d.o.Stateroot, d.kernel.checksum)
	if err := d.root.MkdirAll(at, 0o755); err != nil {
		return err
	}
	target := path.Join("../../../deploy", d.o.Stateroot, "deploy", d.baseName())
	if err := d.root.Symlink(target, path.Join(at, "0")); err != nil {
		return err
	}
	if err := d.root.Symlink(path.Base(bootLinks), "ostree/boot.1"); err != nil {
		return err
	}
	// A path that begins with /boot resolves with a separate /boot too.
	if err := d.root.Symlink(".", "boot/boot"); err != nil {
		return err
	}
	if err := d.repo.SetRef(deployRef, d.dep.Commit); err != nil {
		return fmt.Errorf("setting the ref that protects the deployment: %w", err)
	}
	return nil
}

// activate makes the deployment the one that starts, after everything that it needs is on the
// device.
func (d *deployer) activate(context.Context) error {
	if err := d.repo.Sync(); err != nil {
		return err
	}
	if err := d.root.With("boot", (*beneath.Dir).Syncfs); err != nil { // it may be a file system of its own
		return err
	}
	if err := d.root.Symlink(path.Base(loaderDir), "boot/loader"); err != nil {
		return err
	}
	// libostree looks at this time to see whether deployments have changed.
	return d.root.With("ostree/deploy", func(deploys *beneath.Dir) error {
		return deploys.FailIf("touch", ".", unix.UtimesNanoAt(deploys.FD(), ".", nil, 0))
	})
}
