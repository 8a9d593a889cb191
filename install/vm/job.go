package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// job is what a machine is for, the same with each accelerator that is tried.
type job struct {
	programs programs
	accel    Accel  // as asked for
	kvm      string // device node
	limits   func(Accel) map[Phase]time.Duration
	hardware func(Accel) (hw hardware, inherited []*os.File, done func(), err error)
	names    deviceNames
	note     func(format string, args ...any)
	begin    func(Accel)             // a machine is about to start
	started  func(Accel)             // the installer in the guest has
	line     func(line []byte) error // takes a line of what that one says
	attempts []string                // machines that did not get to the installer, and why
}

// run runs the machine: with KVM if that is there and works, else emulated. The
// watcher tells how far the last one came; nil if none started.
func (j *job) run(ctx context.Context) (*watcher, error) {
	accels, why := accelerators(j.accel, j.kvm)
	if why != "" {
		j.note("%s: the virtual machine is emulated (TCG), which is slower", why)
	}
	for n, accel := range accels {
		w, err := j.attempt(ctx, accel)
		if err == nil || n == len(accels)-1 || ctx.Err() != nil || !hopeful(w) {
			return w, err
		}
		j.attempts = append(j.attempts, err.Error())
		j.note("KVM does not get the guest to run (phase %s: %v): going on with emulation (TCG), which is slower", w.phase, errors.Unwrap(err))
	}
	return nil, errors.New("no accelerator to try")
}

// hopeful tells whether another accelerator may help: the installer has not
// begun, so that the disk is as it was.
func hopeful(w *watcher) bool {
	return w != nil && (w.phase == PhaseStart || w.phase == PhaseKernel || w.phase == PhaseDevices)
}

// accelerators lists what to try, and why KVM is not among it if it might have been.
func accelerators(asked Accel, kvm string) (list []Accel, why string) {
	if asked != AccelAuto {
		return []Accel{asked}, ""
	}
	f, err := os.OpenFile(kvm, os.O_RDWR, 0)
	if err != nil {
		return []Accel{AccelTCG}, fmt.Sprintf("KVM cannot be used (%v)", err)
	}
	f.Close()
	return []Accel{AccelKVM, AccelTCG}, ""
}

// attempt runs one machine.
func (j *job) attempt(ctx context.Context, accel Accel) (*watcher, error) {
	j.begin(accel)
	hw, inherited, done, err := j.hardware(accel)
	if err != nil {
		return nil, err
	}
	defer done()
	m, err := boot(j.programs, hw, inherited)
	if err != nil {
		return nil, err
	}
	w := &watcher{m: m, accel: accel, limits: j.limits(accel)}
	w.started = func() { j.started(accel) }
	w.line = func(line []byte) error {
		clean, err := j.names.inJSON(line)
		if err != nil {
			return err
		}
		return j.line(clean)
	}
	err = w.watch(ctx)
	if w.exit != nil {
		w.exit.Error = j.names.inText(plainError(w.exit.Error))
	}
	return w, err
}
