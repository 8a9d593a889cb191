package choice

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"installer/install/choice/config"
	"installer/rootfs/bootloader"
	"installer/rootfs/deploy"
	"installer/rootfs/image"
	"installer/rootfs/osrelease"
)

// selinuxConfig is the file of an image that has an SELinux policy.
const selinuxConfig = "usr/etc/selinux/config"

// Facts are the facts of an image that decide how it is installed.
type Facts struct {
	Ref      image.Ref // of the image, for errors
	Arch     string    // by its Go name
	Config   *config.Loaded
	Kargs    *config.Loaded
	SELinux  bool   // it configures SELinux
	Labelled bool   // its files have labels
	RootLink string // target of the link /root, "" if it is none
	Root     deploy.RootSettings
	tree     *image.Tree
}

// Files of a deployment that an installation writes, in a directory of its own /etc, which is a
// copy of the image's.
const (
	// RootKeysPath is where bootc has systemd put root's keys. tmpfiles.d(5) makes the file at each
	// start if it is not there, so that the keys are root's also where /root is lost or emptied.
	RootKeysPath = "etc/tmpfiles.d/bootc-root-ssh.conf"
	FstabPath    = "etc/fstab"
)

// MaxFstab is the greatest size of an fstab that is edited, in bytes.
const MaxFstab = 1 << 20

// checkFile refuses an image in whose deployment the file name cannot be written: the directories
// above it must be none, or directories that no link leads to.
func (f Facts) checkFile(name string) error {
	if f.tree == nil {
		return nil
	}
	done := "usr"
	parts := strings.Split(name, "/")
	for i, part := range parts {
		done += "/" + part
		switch n := f.tree.Lookup(done); {
		case n == nil:
			return nil
		case i < len(parts)-1 && !n.IsDir():
			return fmt.Errorf("they would be written to /%s, and /%s of the image is no directory", name, done)
		case i == len(parts)-1 && !n.IsRegular() && !n.IsSymlink():
			return fmt.Errorf("they would be written to /%s, and /%s of the image is no regular file", name, done)
		case n.IsRegular() && n.Size > MaxFstab:
			return fmt.Errorf("/%s of the image has %d bytes, more than a configuration file has", done, n.Size)
		}
	}
	return nil
}

// FactFiles lists the files of an image that ReadFacts and the checks of the packages bootable,
// bootloader and deploy read, as paths of a scan.
func FactFiles() []string {
	files := append(config.ImageFiles(), bootloader.CheckedFiles()...)
	for _, name := range slices.Concat(deploy.PrepareRootFiles(), []string{deploy.KeyFile}, osrelease.Paths()) {
		if strings.HasPrefix(name, "etc/") {
			name = "usr/" + name
		}
		files = append(files, name)
	}
	return files
}

// ReadFacts reads the facts of an image that was looked through. over are root directories whose
// install configuration goes over the image's own.
func ReadFacts(ref image.Ref, arch string, inv *image.Inventory, over ...fs.FS) (f Facts, err error) {
	f = Facts{Ref: ref, Arch: arch, tree: inv.Tree}
	fsys := inv.FS()
	if f.Config, err = config.Load(arch, append([]fs.FS{fsys}, over...)...); err != nil {
		return f, f.configFault(err)
	}
	if f.Kargs, err = config.LoadKargs(arch, fsys); err != nil {
		return f, f.configFault(err)
	}
	if n := inv.Tree.Lookup("root"); n != nil && n.IsSymlink() {
		f.RootLink = n.Target
	}
	f.SELinux = inv.Tree.Lookup(selinuxConfig) != nil
	f.Root, err = deploy.ReadRootSettings(fsys)
	return f, err
}

// fault is an error that the image is to blame for.
func (f Facts) fault(err error) error { return &image.SourceError{Ref: f.Ref.String(), Err: err} }

// configFault names the file of the configuration that is at fault.
func (f Facts) configFault(err error) error {
	fault := &image.SourceError{Ref: f.Ref.String(), Err: err}
	if file := (*config.FileError)(nil); errors.As(err, &file) {
		fault.Entry, fault.Err = file.Path, file.Err
	}
	return fault
}
