package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"installer/install"
	"installer/install/vm/kmod"
	"installer/rootfs/image"
)

// install runs the machine: with KVM if that is there and works, else emulated.
func (b *build) install(ctx context.Context) (string, error) {
	if err := b.makeDisk(ctx); err != nil {
		return "", err
	}
	accels, why := b.accels()
	if why != "" {
		b.note("%s: the virtual machine is emulated (TCG), which is slower", why)
	}
	for n, accel := range accels {
		w, err := b.attempt(ctx, accel)
		if err == nil {
			return "", b.judge(w)
		}
		if n == len(accels)-1 || ctx.Err() != nil || !hopeful(w) {
			return "", b.explain(err)
		}
		b.report.Machine.Attempts = append(b.report.Machine.Attempts, err.Error())
		b.note("KVM does not get the guest to run (phase %s: %v): going on with emulation (TCG), which is slower", w.phase, errors.Unwrap(err))
	}
	return "", errors.New("no accelerator to try")
}

// hopeful tells whether another accelerator may help: the installer has not
// begun, so that the disk is as it was.
func hopeful(w *watcher) bool {
	return w != nil && (w.phase == PhaseStart || w.phase == PhaseKernel || w.phase == PhaseDevices)
}

// accels lists what to try, and why KVM is not among it if it might have been.
func (b *build) accels() (list []Accel, why string) {
	if b.opts.Accel != AccelAuto {
		return []Accel{b.opts.Accel}, ""
	}
	f, err := os.OpenFile(b.kvm, os.O_RDWR, 0)
	if err != nil {
		return []Accel{AccelTCG}, fmt.Sprintf("KVM cannot be used (%v)", err)
	}
	f.Close()
	return []Accel{AccelKVM, AccelTCG}, ""
}

// makeDisk makes the empty disk.
func (b *build) makeDisk(ctx context.Context) error {
	if b.opts.Format == Raw {
		if err := b.output.file.Truncate(b.opts.DiskSize); err != nil {
			return fmt.Errorf("making a disk of %s: %w", install.FormatBytes(b.opts.DiskSize), err)
		}
		return nil
	}
	h := &handles{}
	err := b.programs.image(ctx, h, "create", "-q", "-f", string(QCOW2), h.path(b.output.file), fmt.Sprint(b.opts.DiskSize))
	return b.explainOutput(err)
}

// attempt runs one machine. The watcher tells how far it came; nil if it did not start.
func (b *build) attempt(ctx context.Context, accel Accel) (*watcher, error) {
	b.report.Machine.Accel = accel
	hw, inherited, done, err := b.hardware(accel)
	if err != nil {
		return nil, err
	}
	defer done()
	m, err := boot(b.programs, hw, inherited)
	if err != nil {
		return nil, err
	}
	w := &watcher{m: m, accel: accel, observe: b.emit, limits: b.limits(accel)}
	w.started = func() {
		b.done(fmt.Sprintf("%s, %d processors, %s of memory", accel, cpus(), install.FormatBytes(b.opts.Memory)), nil)
	}
	err = w.watch(ctx)
	b.report.Machine.Phases = w.times
	if w.report != nil {
		b.report.Report = *w.report
	}
	return w, err
}

// hardware gathers what a machine is made of; done frees what is its own.
func (b *build) hardware(accel Accel) (hw hardware, inherited []*os.File, done func(), err error) {
	hw = hardware{
		accel: accel, memory: b.opts.Memory, format: b.opts.Format,
		kernel: b.kernel, initramfs: b.initrd, tree: b.tree.file, target: b.output.file,
	}
	if b.source == nil {
		return hw, nil, func() {}, nil
	}
	if hw.source, err = memory("source.vmdk"); err != nil {
		return hw, nil, nil, err
	}
	h := &handles{}
	if _, err := hw.source.Write(b.source.descriptor(h.path)); err != nil {
		hw.source.Close()
		return hw, nil, nil, fmt.Errorf("describing the source to QEMU: %w", err)
	}
	return hw, h.files, func() { hw.source.Close() }, nil
}

// judge looks at how the installer in the guest ended.
func (b *build) judge(w *watcher) error {
	exit, r := w.exit, w.report
	switch {
	case exit.Status == 0 && r != nil && r.Outcome == install.Complete:
		return nil
	case exit.Status == 0:
		return &MachineError{Phase: w.phase, Accel: w.accel, Console: w.console.lines(25), Err: errors.New("the installer ended without a report of success")}
	case exit.Status < 0:
		return &MachineError{Phase: w.phase, Accel: w.accel, Console: w.console.lines(25), Err: errors.New(exit.Error)}
	}
	failed := &GuestError{Status: exit.Status, Message: plainError(exit.Error)}
	if r != nil && r.Error != "" {
		failed.Message = r.Error
	}
	if failed.Status == 1 { // the others are about what was asked for, not about the machine
		failed.Console = w.console.lines(15)
	}
	return failed
}

// plainError takes the message out of what the installer wrote to its error output.
func plainError(text string) string {
	if at := strings.LastIndex(text, "installer: error: "); at >= 0 {
		text = text[at+len("installer: error: "):]
	}
	return strings.TrimSpace(text)
}

// explain makes an error say what the host knows of it.
func (b *build) explain(err error) error {
	if full := (*DiskFullError)(nil); errors.As(err, &full) {
		full.Dir = b.dir()
	}
	if errors.Is(err, errKernel) {
		return b.blame(err)
	}
	return err
}

// blame makes an error one of the source's, if it is.
func (b *build) blame(err error) error {
	missing := (*kmod.MissingError)(nil)
	if errors.As(err, &missing) || errors.Is(err, errKernel) || errors.Is(err, fs.ErrNotExist) {
		return &image.SourceError{Ref: b.opts.Install.Source.String(), Err: err}
	}
	return err
}
