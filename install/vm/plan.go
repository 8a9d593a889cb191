package vm

import (
	"os"
	"strings"
)

// Plan describes the machine of a planned build.
type Plan struct {
	Modules   []string `json:"modules"`   // that the kernel must have, besides those that they need
	Accels    []string `json:"accels"`    // in the order in which they are tried
	Machine   string   `json:"machine"`   // QEMU's command line
	Installer string   `json:"installer"` // that of the installer in the machine
	After     []string `json:"after"`     // steps of the host after the machine
}

// commands describes the machine. Names stand for the files of the build, which have none.
func (b *build) commands() *Plan {
	p := &Plan{Modules: modulesFor(b.report.Disk.Filesystem), Installer: shellWords(b.opts.argv())}
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
	if b.opts.Compress {
		p.After = append(p.After, "qemu-img convert -c")
	}
	p.After = append(p.After, "the checks of installer verify that need no mount")
	return p
}
