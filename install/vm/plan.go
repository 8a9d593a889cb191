package vm

import (
	"context"
	"os"
	"runtime"
	"strings"

	"installer/disk"
	"installer/install"
	"installer/install/hostprog"
	"installer/rootfs/bootable"
	"installer/rootfs/image"
)

// Plan is what a build would do.
type Plan struct {
	Digest     string // of the image's manifest
	Partitions []disk.Partition
	Bytes      int64 // content of the image's files
	Files      int
	Kernel     string   // version, and size
	Modules    []string // that the kernel must have, besides what they need
	Accels     []string // in the order in which they are tried
	CPUs       int
	Machine    string // QEMU's command line
	Installer  string // the installer's, in the machine
	After      string // what runs on the host when the machine is off
}

// MakePlan reads the image, and makes nothing. It refuses what Build would refuse
// before it starts a machine, as far as that shows without unpacking anything.
func MakePlan(ctx context.Context, o Options) (*Plan, error) {
	b := newBuild(o, func(install.Event) {})
	var err error
	if b.programs, err = findPrograms(hostprog.Find); err != nil {
		return nil, err
	}
	img, err := b.openRef(ctx, o.Install.Source)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	layout, err := disk.Plan(o.DiskSize, sector, disk.PlanOptions{
		Arch: runtime.GOARCH, BIOSBoot: runtime.GOARCH == "amd64", RootSize: o.Install.RootSize,
	})
	if err != nil {
		return nil, err
	}
	inv, err := img.Scan(ctx, image.ScanOptions{Files: []string{"usr/lib/os-release", "usr/etc/os-release"}, Exact: true, Look: bootable.Looker})
	if err != nil {
		return nil, err
	}
	err = checkBootable(img, inv.FS(), func(name string) *bootable.Facts {
		facts, _ := inv.Seen(name).(*bootable.Facts)
		return facts
	})
	if err != nil {
		return nil, err
	}
	tree := inv.Tree
	p := &Plan{Digest: img.ManifestDigest, Partitions: layout.Partitions, Modules: append(o.required(), o.possible()...), CPUs: cpus()}
	p.Files, _, _, p.Bytes = tree.Stats()
	version := kernelVersion(tree)
	p.Kernel = version + ", " + install.FormatBytes(tree.Lookup(modulesDir+"/"+version+"/vmlinuz").Size)
	p.commands(b)
	return p, nil
}

// commands writes the command lines with names in the place of files that are not there.
func (p *Plan) commands(b *build) {
	accels, _ := accelerators(b.opts.Accel, b.kvm)
	for _, a := range accels {
		p.Accels = append(p.Accels, string(a))
	}
	named := map[string]*os.File{}
	for _, name := range []string{"KERNEL", "INITRAMFS", "TREE", "SOURCE", "OUTPUT"} {
		named[name] = &os.File{}
	}
	hw := hardware{
		accel: accels[0], memory: b.opts.Memory, format: b.opts.Format, kernel: named["KERNEL"], initramfs: named["INITRAMFS"],
		tree: named["TREE"], target: named["OUTPUT"], console: &os.File{}, channel: &os.File{}, monitor: &os.File{},
	}
	if !b.opts.fromDirectory() {
		hw.source = named["SOURCE"]
	}
	h := &handles{}
	line := shellWords(append([]string{b.programs.qemu}, hw.args(h)...)) + " "
	for name, f := range named {
		if f != hw.source && name == "SOURCE" {
			continue
		}
		for _, end := range []string{" ", ","} {
			line = strings.ReplaceAll(line, h.path(f)+end, name+end)
		}
	}
	p.Machine = strings.TrimSpace(line)
	p.Installer = shellWords(b.opts.argv())
	var after []string
	if b.opts.Compress {
		after = append(after, "qemu-img convert -c")
	}
	after = append(after, "the checks of installer verify that need no mount")
	p.After = strings.Join(after, ", ")
}
