package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"installer/disk"
	"installer/install"
	"installer/install/vm/internal/wire"
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

// Accel is an accelerator of QEMU.
type Accel string

// The accelerators. Auto tries KVM and falls back to TCG.
const (
	AccelAuto Accel = "auto"
	AccelKVM  Accel = "kvm"
	AccelTCG  Accel = "tcg" // emulation, which is slow and works everywhere
)

// Defaults and limits of a guest, in bytes.
const (
	DefaultDiskSize = 10 << 30
	DefaultMemory   = 1 << 30
	MinMemory       = 512 << 20
)

// Options are the choices of the user for a build.
type Options struct {
	// Install describes the installation; Target is chosen already. The fields for the machine that
	// installs (Device, ViaLoopback, Wipe, WorkDir, ConfigRoot, Confirm, GenericImage) are ignored.
	Install  install.Options
	Output   string // path of the file to make; an existing file is replaced at the end
	Format   Format
	Compress bool  // for QCOW2 alone
	DiskSize int64 // bytes
	Memory   int64 // bytes of the guest
	Accel    Accel
}

// Validate checks the options that need no look at the image.
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

// cpus returns the number of processors of the guest. More than 4 gain nothing.
func cpus() int { return min(4, runtime.NumCPU()) }

// argv returns the command line of the installer in the guest. Like the user's, it leaves choices
// to the configuration of the image.
func (o Options) argv() []string {
	in := o.Install
	source := wire.SourceRef
	if o.fromDirectory() {
		source = wire.SourceTreeRef
	}
	argv := []string{"installer", "to-disk", "--progress=json", "--generic-image", "--source-imgref=" + source, "--source-name=" + in.Source.String()}
	flag := func(name, value string) {
		if value != "" {
			argv = append(argv, "--"+name+"="+value)
		}
	}
	flag("target-imgref", in.Target)
	flag("filesystem", string(in.Filesystem))
	flag("bootloader", string(in.Bootloader))
	flag("secure-boot", string(in.SecureBoot))
	flag("stateroot", in.Stateroot)
	flag("bound-images", string(in.BoundImages))
	if in.RootSize > 0 {
		flag("root-size", strconv.FormatInt(in.RootSize>>10, 10)+"K")
	}
	if in.RootSSHKeys != nil {
		flag("root-ssh-authorized-keys", path.Join(wire.FilesDir, sshKeysFile))
	}
	if in.DisableSELinux {
		argv = append(argv, "--disable-selinux")
	}
	for _, arg := range in.Kargs {
		argv = append(argv, "--karg="+arg)
	}
	for _, arg := range in.KargDeletes {
		argv = append(argv, "--karg-delete="+arg)
	}
	if !o.fromDirectory() {
		flag("source-survey", path.Join(wire.FilesDir, surveyFile))
	}
	return append(argv, wire.TargetNode)
}

// instructions returns the instructions for the guest.
func (b *build) instructions() (wire.Instructions, error) {
	todo := wire.Instructions{
		Argv: b.opts.argv(), Nodes: map[string]string{wire.TargetDisk: wire.TargetNode},
		Tree: true, SourceDir: true, Files: map[string][]byte{},
	}
	if b.opts.Install.RootSSHKeys != nil {
		todo.Files[sshKeysFile] = b.opts.Install.RootSSHKeys
	}
	if b.opts.fromDirectory() { // it has no layers that would have to be read
		return todo, nil
	}
	todo.Nodes[wire.SourceDisk] = wire.SourceNode
	text, err := json.Marshal(b.survey)
	if err != nil {
		return todo, fmt.Errorf("writing the survey of the source: %w", err)
	}
	todo.Files[surveyFile] = text
	return todo, nil
}

// Names of the files for the installer in the guest.
const (
	sshKeysFile = "authorized_keys"
	surveyFile  = "survey.json"
)

// modulesFor returns the kernel modules that the guest needs for a root of that kind.
func modulesFor(root disk.Filesystem) []string {
	return []string{"virtio_pci", "virtio_blk", "virtio_console", "erofs", "loop", string(root)}
}

// shellWords returns a command line as a shell takes it.
func shellWords(argv []string) string {
	words := make([]string, len(argv))
	for i, arg := range argv {
		if words[i] = arg; arg == "" || strings.ContainsAny(arg, " \t\n'\"\\$&|;<>()*?[]#~`!{}") {
			words[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
