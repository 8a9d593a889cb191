package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// job describes the purpose of a machine. It is the same for each accelerator that is tried.
type job struct {
	programs programs
	accel    Accel  // as asked for
	kvm      string // device node
	limits   func(Accel) map[Phase]time.Duration
	hardware func(Accel) (hw hardware, inherited []*os.File, done func(), err error)
	names    deviceNames
	note     func(format string, args ...any)
	begin    func(Accel)             // called before a machine starts
	started  func(Accel)             // called when the installer in the guest starts
	line     func(line []byte) error // takes a line of that installer's output
	attempts []string                // machines that ended before the installer started, with the reasons
}

// run runs the machine: with KVM if that is there and works, else emulated. The watcher holds the
// state of the last machine, and is nil if none started.
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

// hopeful reports whether another accelerator may help: the installer has not started, so the disk
// is unchanged.
func hopeful(w *watcher) bool {
	return w != nil && (w.phase == PhaseStart || w.phase == PhaseKernel || w.phase == PhaseDevices)
}

// accelerators returns the accelerators to try, and the reason for leaving KVM out where it could
// have been one.
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
