package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"installer/install/hostprog"
	"installer/install/vm/internal/wire"

	"golang.org/x/sys/unix"
)

// watcher follows a machine from its start to its end.
type watcher struct {
	m       *machine
	accel   Accel
	started func()                  // called when the installer in the guest starts
	line    func(line []byte) error // takes a line of that installer's output
	limits  map[Phase]time.Duration

	phase   Phase
	began   time.Time // begin of the phase; in the installer's phase, time of the last event
	beat    time.Time
	console *hostprog.Tail
	times   []PhaseTime
	entered time.Time
	taken   int // messages of the guest
	exit    *wire.Exit
}

// PhaseTime is the duration of a phase.
type PhaseTime struct {
	Phase   Phase   `json:"phase"`
	Seconds float64 `json:"seconds"`
}

// errNoProgress is the cause when a phase outlived its deadline.
var errNoProgress = errors.New("it made no progress")

// errKernel is the cause when the image's kernel gave up before it started anything.
var errKernel = errors.New("the image's kernel did not start")

// watch returns when the machine has ended. Its error is a [*MachineError], or that of the context.
func (w *watcher) watch(ctx context.Context) error {
	now := time.Now()
	w.phase, w.began, w.entered, w.console = PhaseStart, now, now, hostprog.NewTail(32<<10)
	_, err := w.m.ports[2].Write([]byte("{\"execute\":\"qmp_capabilities\"}\n"))
	if err != nil && !errors.Is(err, unix.EPIPE) { // of a QEMU that has ended, follow says why it did
		_ = w.m.stop()
		return w.failed(fmt.Errorf("asking QEMU for its events: %w: %s", err, w.m.said))
	}
	err = w.follow(ctx)
	if err != nil {
		_ = w.m.stop()
		if ctx.Err() != nil {
			return err
		}
		return w.failed(err)
	}
	w.enter("")
	return nil
}

func (w *watcher) failed(err error) error {
	return &MachineError{Phase: w.phase, Accel: w.accel, Console: w.console.Lines(25), Err: err}
}

// guestError is the failure of the installer in the guest. A status that no command has is that of
// a failure.
func (w *watcher) guestError(message string) error {
	const failed, last = 1, 5
	e := &GuestError{Status: w.exit.Status, Message: message}
	if e.Status < failed || e.Status > last {
		e.Status = failed
	}
	if e.Status == failed { // the others are about the request, not about the machine
		e.Console = w.console.Lines(15)
	}
	return e
}

// follow returns nil when QEMU ended well, else the reason to stop it.
func (w *watcher) follow(ctx context.Context) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	console, channel, monitor := w.m.console, w.m.channel, w.m.monitor
	for console != nil || channel != nil || monitor != nil {
		var err error
		select {
		case data, ok := <-console:
			if !ok {
				console = nil
				break
			}
			err = w.hear(data)
		case line, ok := <-channel:
			if !ok {
				channel = nil
				break
			}
			err = w.take(line)
		case line, ok := <-monitor:
			if !ok {
				monitor = nil
				break
			}
			err = w.event(line)
		case now := <-tick.C:
			err = w.overdue(now)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
	return w.ended(w.m.wait())
}

// enter begins a phase and records the duration of the phase before.
func (w *watcher) enter(p Phase) {
	now := time.Now()
	w.times = append(w.times, PhaseTime{w.phase, now.Sub(w.entered).Seconds()})
	w.phase, w.began, w.entered, w.beat = p, now, now, now
}

// fatal are messages of a kernel that stops.
var fatal = []string{"Kernel panic", "System halted"}

// hear takes output of the console.
func (w *watcher) hear(data []byte) error {
	if w.phase == PhaseStart {
		w.enter(PhaseKernel)
	}
	_, _ = w.console.Write(data)
	if w.phase != PhaseKernel && w.phase != PhaseDevices {
		return nil
	}
	for _, line := range fatal {
		if text := w.console.String(); strings.Contains(text, line) {
			return fmt.Errorf("%w: %s", errKernel, lineWith(text, line))
		}
	}
	return nil
}

func lineWith(text, part string) string {
	for _, line := range strings.Split(text, "\n") {
		if strings.Contains(line, part) {
			return strings.TrimSpace(line)
		}
	}
	return part
}

// take takes a message of the guest.
func (w *watcher) take(line []byte) error {
	if w.taken++; w.taken > maxMessages {
		return fmt.Errorf("the guest sent more than %d messages", maxMessages)
	}
	var m wire.Message
	if err := json.Unmarshal(line, &m); err != nil {
		return fmt.Errorf("the guest sent something that is no message: %w", err)
	}
	w.beat = time.Now()
	if w.phase == PhaseStart {
		w.enter(PhaseKernel)
	}
	switch {
	case m.Phase == wire.PhaseDevices && w.phase == PhaseKernel:
		w.enter(PhaseDevices)
	case m.Phase == wire.PhaseInstaller && w.phase == PhaseDevices:
		w.enter(PhaseInstaller)
		w.started()
	case m.Line != nil && w.phase == PhaseInstaller:
		w.began = w.beat
		return w.line(m.Line)
	case m.Exit != nil && (w.phase == PhaseInstaller || w.phase == PhaseDevices && m.Exit.Status != 0):
		w.exit = m.Exit
		w.enter(PhaseOff)
	case m.Beat && w.phase != PhaseOff:
	default:
		return fmt.Errorf("the guest sent a message that has no place in the phase %q", w.phase)
	}
	return nil
}

// event takes an event of QEMU's monitor (QMP).
func (w *watcher) event(line []byte) error {
	var e struct {
		Event string `json:"event"`
		Data  struct {
			Node      string `json:"node-name"`
			Operation string `json:"operation"`
			NoSpace   bool   `json:"nospace"`
			Reason    string `json:"reason"`
		} `json:"data"`
	}
	if err := json.Unmarshal(line, &e); err != nil || e.Event != "BLOCK_IO_ERROR" {
		return nil // a greeting, an answer, or another event
	}
	if e.Data.NoSpace {
		return &DirFullError{}
	}
	return fmt.Errorf("a %s on the disk %q failed: %s", e.Data.Operation, e.Data.Node, e.Data.Reason)
}

// overdue returns an error when a phase takes too long.
func (w *watcher) overdue(now time.Time) error {
	if limit := w.limits[w.phase]; now.Sub(w.began) > limit {
		return fmt.Errorf("%w for %s", errNoProgress, limit)
	}
	if (w.phase == PhaseDevices || w.phase == PhaseInstaller) && now.Sub(w.beat) > silence {
		return fmt.Errorf("%w: its heartbeat stopped %s ago", errNoProgress, silence)
	}
	return nil
}

// ended judges a QEMU that ended by itself.
func (w *watcher) ended(exit error) error {
	switch {
	case exit != nil:
		return fmt.Errorf("QEMU ended by itself (%w): %s", exit, w.m.said)
	case w.phase == PhaseKernel || w.phase == PhaseStart:
		return fmt.Errorf("%w: the machine went off", errKernel)
	case w.phase != PhaseOff:
		return errors.New("the machine went off in the middle of its work")
	}
	return nil
}
