package vm

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"installer/install"
	"installer/install/vm/internal/wire"
	"installer/rootfs/image"
)

// Format is the format of the output.
type Format string

// The formats.
const (
	QCOW2 Format = "qcow2"
	Raw   Format = "raw"
)

// ParseFormat reads a format's name; an empty one is chosen by the output's
// suffix: raw for .raw and .img, else qcow2.
func ParseFormat(name, output string) (Format, error) {
	switch f := Format(name); f {
	case QCOW2, Raw:
		return f, nil
	case "":
		if ext := filepath.Ext(output); ext == ".raw" || ext == ".img" {
			return Raw, nil
		}
		return QCOW2, nil
	}
	return "", fmt.Errorf("unknown format %q: qcow2 and raw are supported", name)
}

// Accel is how the guest's processor comes about.
type Accel string

// The accelerators. Auto tries KVM and falls back to TCG.
const (
	AccelAuto Accel = "auto"
	AccelKVM  Accel = "kvm"
	AccelTCG  Accel = "tcg" // emulation: slow, and everywhere
)

// ParseAccel reads an accelerator's name.
func ParseAccel(name string) (Accel, error) {
	switch a := Accel(name); a {
	case AccelAuto, AccelKVM, AccelTCG:
		return a, nil
	}
	return "", fmt.Errorf("unknown accelerator %q: auto, kvm and tcg are supported", name)
}

// Defaults and limits of a guest, in bytes.
const (
	DefaultDiskSize = 10 << 30
	DefaultMemory   = 1 << 30
	MinMemory       = 512 << 20
)

// Options is what a person chooses for a build.
type Options struct {
	// Install says what is installed. Device, ViaLoopback, Wipe, WorkDir and
	// GenericImage are the guest's affair and ignored.
	Install  install.Options
	Output   string // path of the file to make; an existing file is replaced at the end
	Format   Format
	Compress bool  // for QCOW2 alone
	DiskSize int64 // bytes
	Memory   int64 // bytes of the guest
	Accel    Accel
}

// Validate checks what can be checked of the options alone.
func (o Options) Validate() error {
	const sector = 512
	switch {
	case o.Compress && o.Format != QCOW2:
		return errors.New("only qcow2 can be compressed")
	case o.DiskSize <= 0 || o.DiskSize%sector != 0:
		return fmt.Errorf("a disk of %d bytes: the size must be a multiple of %d", o.DiskSize, sector)
	case o.Memory < MinMemory:
		return fmt.Errorf("%s of memory is too little for the guest: give it %s at least", install.FormatBytes(o.Memory), install.FormatBytes(MinMemory))
	}
	return o.Install.Validate()
}

// cpus is how many processors the guest has: more gain nothing.
func cpus() int { return min(4, runtime.NumCPU()) }

// argv is the installer's command line in the guest.
func (o Options) argv() []string {
	in := o.Install
	source := image.TransportOCIArchive + ":@" + wire.SourceDisk
	if in.Source.Transport == image.TransportRootfs {
		source = image.TransportRootfs + ":" + wire.SourceDir
	}
	argv := []string{
		"installer", "to-disk", "--progress=json", "--generic-image", "--source-imgref", source,
		"--filesystem", string(in.Filesystem), "--stateroot", in.Stateroot, "--bootloader", string(in.Bootloader),
	}
	if target := o.target(); target != "" {
		argv = append(argv, "--target-imgref", target)
	}
	if in.RootSize > 0 {
		argv = append(argv, "--root-size", strconv.FormatInt(in.RootSize>>10, 10)+"K")
	}
	for _, arg := range in.Kargs {
		argv = append(argv, "--karg="+arg)
	}
	return append(argv, "@"+wire.TargetDisk)
}

// target is what the installed system follows: in the guest the source goes by
// a name that means nothing outside.
func (o Options) target() string {
	if o.Install.Target == "" && o.Install.Source.Transport != image.TransportRootfs {
		return o.Install.Source.String()
	}
	return o.Install.Target
}

// modules are what the guest cannot do without.
func (o Options) modules() []string {
	return []string{"virtio_pci", "virtio_blk", "virtio_console", "erofs", "loop", string(o.Install.Filesystem)}
}

// shellWords writes a command line for a person.
func shellWords(argv []string) string {
	words := make([]string, len(argv))
	for i, arg := range argv {
		if words[i] = arg; arg == "" || strings.ContainsAny(arg, " \t\n'\"\\$&|;<>()*?[]#~`!{}") {
			words[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
