package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"installer/disk"
	"installer/install/hostprog"
	"installer/install/verify"
	"installer/install/vm/internal/wire"
	"installer/rootfs/image"
)

// Verifier checks a disk in a virtual machine, for users who may not mount the disk. Its method
// Verify is a [verify.Guest].
type Verifier struct {
	Image     image.Ref // whose kernel the guest runs; the zero value is this machine's
	ImageOpen image.OpenOptions
	Accel     Accel
	TempDir   string // directory for the unpacked Image
	Note      func(format string, args ...any)

	root   string // directory above this machine's kernels; "" is /
	kvm    string // device node; "" is the usual one
	report *verify.Report
	said   func(verify.Check, []verify.Finding)
}

// Verify runs the checks. The machine cannot write to the disk.
func (v Verifier) Verify(ctx context.Context, d verify.GuestDisk, observe func(verify.Check, []verify.Finding)) (*verify.Report, error) {
	v.said = observe
	j := v.job(d)
	var err error
	if j.programs, err = findPrograms(hostprog.Find); err != nil {
		return nil, &verify.UnavailableError{Err: err}
	}
	file, initrd, err := v.system(ctx)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	defer initrd.Close()
	j.hardware = func(accel Accel) (hardware, []*os.File, func(), error) {
		return hardware{
			accel: accel, memory: DefaultMemory, kernel: file, initramfs: initrd,
			target: d.File, format: formatOf(d.Format), readOnly: true, block: d.Format == verify.BlockDevice, sector: d.SectorSize,
		}, nil, func() {}, nil
	}
	w, err := j.run(ctx)
	if err != nil {
		return nil, err
	}
	if v.report == nil {
		return nil, w.guestError(w.exit.Error)
	}
	return v.report, nil
}

func formatOf(format string) Format {
	if format == verify.QCOW2 {
		return QCOW2
	}
	return Raw
}

func (v *Verifier) job(d verify.GuestDisk) *job {
	j := &job{
		accel: v.Accel, kvm: v.kvm, limits: verifyLimits, names: deviceNames{target: d.Path}, note: v.Note,
		begin: func(Accel) {}, started: func(Accel) {}, line: v.guestSays,
	}
	if j.kvm == "" {
		j.kvm = kvmDevice
	}
	return j
}

// verifyLimits returns the limits of a guest that reports a check when it ends, and reads a whole
// disk for one check.
func verifyLimits(a Accel) map[Phase]time.Duration {
	l := limits(a)
	l[PhaseInstaller] = time.Hour
	return l
}

// guestSays takes a line of the verifier's own output: a check or its report.
func (v *Verifier) guestSays(line []byte) error {
	e, err := parseCheck(line)
	switch {
	case err != nil:
		return err
	case e.Report != nil:
		v.report = e.Report
	case e.Check != nil:
		v.said(*e.Check, e.Findings)
	}
	return nil
}

// system returns the kernel and the initramfs of the guest.
func (v *Verifier) system(ctx context.Context) (file, initrd *os.File, err error) {
	k, done, err := v.kernel(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	todo := wire.Instructions{
		Argv:  []string{"installer", "verify", "--events", wire.TargetNode},
		Nodes: map[string]string{wire.TargetDisk: wire.TargetNode},
	}
	if initrd, err = makeInitramfs(k, todo, verifyModules(), rootModules()); err != nil {
		return nil, nil, err
	}
	if file, err = k.image(); err != nil {
		initrd.Close()
		return nil, nil, err
	}
	return file, initrd, nil
}

// verifyModules are the modules that every guest needs; rootModules are those of the root file
// systems.
func verifyModules() []string { return []string{"virtio_pci", "virtio_blk", "virtio_console", "loop"} }

func rootModules() []string {
	return []string{string(disk.XFS), string(disk.Ext4), string(disk.Btrfs)}
}

// kernel returns the kernel of the image, or one of this machine.
func (v *Verifier) kernel(ctx context.Context) (kernel, func(), error) {
	if v.Image == (image.Ref{}) {
		k, err := hostKernel(v.root, verifyModules())
		if err != nil {
			return k, nil, &verify.UnavailableError{Err: fmt.Errorf("%w; give an image whose kernel can be used by --image, such as the one that the disk was made from", err)}
		}
		return k, func() {}, nil
	}
	img, err := openNative(ctx, v.Image, v.ImageOpen)
	if err != nil {
		return kernel{}, nil, err
	}
	t, err := readTree(ctx, img, v.TempDir, func(int64) {})
	if full := (*DirFullError)(nil); errors.As(err, &full) {
		full.Temp = true
	}
	if err = errors.Join(err, img.Close()); err != nil {
		return kernel{}, nil, err
	}
	return t.kernel(), func() { t.file.Close() }, nil
}
