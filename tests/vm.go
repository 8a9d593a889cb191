// Package tests holds tests that need root, loop devices, containers or a virtual machine: those of
// the whole program, the machine that boots an installed disk, and the outside oracles that judge
// it.
//
// A test of one package that needs none of these lives beside that package. Nothing here is imported
// by the program.
package tests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Firmware is the kind of firmware of the virtual machine.
type Firmware string

// The firmware of Debian's packages ovmf and seabios.
const (
	UEFI Firmware = "uefi"
	BIOS Firmware = "bios"
	// SecureUEFI starts no program that the keys of Microsoft do not lead to.
	SecureUEFI Firmware = "secure"
)

// BootOptions name the disk and the manner of a boot. Zero values stand for the defaults in the
// comments.
type BootOptions struct {
	Disk     string        // image file
	Format   string        // "raw" or "qcow2"; "" is raw
	Firmware Firmware      // "" is UEFI
	Writable bool          // the boot may change Disk; otherwise its writes are thrown away
	Timeout  time.Duration // for the whole boot; 0 is 15 minutes
	// Slack multiplies the deadline of every phase; 0 is 1.
	Slack float64
	// Accel is QEMU's accelerator; "" is "tcg,thread=multi". KVM is never chosen by itself: there
	// are hosts where it opens and then no guest runs.
	Accel   string
	Memory  int         // MiB; 0 is 2048
	Console string      // file that gets the console as it comes; "" is none
	OnPhase func(Phase) // called when a phase begins; may be nil
}

// BootError says in which phase a boot failed, why, and the last lines of the console.
type BootError struct {
	Phase Phase
	Tail  string // last lines of the console, and the messages of QEMU itself
	Err   error
}

func (e *BootError) Error() string {
	return fmt.Sprintf("booting failed in phase %q: %v; the console's last lines:\n%s", e.Phase, e.Err, e.Tail)
}

// Unwrap gives the cause.
func (e *BootError) Unwrap() error { return e.Err }

// errNoProgress is the cause when a phase outlived its deadline.
var errNoProgress = errors.New("deadline passed")

// deadlines bound each phase under software emulation on two busy cores; alone, a boot takes a
// minute in all, half of it the report.
var deadlines = [...]time.Duration{
	PhaseFirmware: 90 * time.Second,
	PhaseKernel:   90 * time.Second,
	PhaseInit:     120 * time.Second,
	PhaseTarget:   180 * time.Second,
	PhaseReport:   400 * time.Second,
	PhaseOff:      90 * time.Second,
}

// silence is how long a console may say nothing before the self-test speaks (which is silent while
// it computes checksums).
const silence = 60 * time.Second

// Boot starts the disk once, waits for the self-test's report and for the power to go, and returns
// the report. The installed kernel arguments must have console=ttyS0 and installer.selftest. Every
// error after QEMU started is a *BootError. No process and no file is left behind.
func Boot(ctx context.Context, o BootOptions) (*Evidence, error) {
	o = o.withDefaults()
	work, err := os.MkdirTemp("", "boot")
	if err != nil {
		return nil, fmt.Errorf("booting %s: %w", o.Disk, err)
	}
	defer os.RemoveAll(work)
	args, err := o.command(work)
	if err != nil {
		return nil, fmt.Errorf("booting %s: %w", o.Disk, err)
	}
	console, err := o.openConsole()
	if err != nil {
		return nil, fmt.Errorf("booting %s: %w", o.Disk, err)
	}
	defer console.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("the boot took longer than %s", o.Timeout))
	defer cancel()
	return watch(ctx, startQEMU(ctx, args), console, o)
}

func (o BootOptions) withDefaults() BootOptions {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&o.Format, "raw")
	set((*string)(&o.Firmware), string(UEFI))
	set(&o.Accel, "tcg,thread=multi")
	if o.Timeout == 0 {
		o.Timeout = 15 * time.Minute
	}
	if o.Slack == 0 {
		o.Slack = 1
	}
	if o.Memory == 0 {
		o.Memory = 2048
	}
	return o
}

func (o BootOptions) openConsole() (io.WriteCloser, error) {
	if o.Console == "" {
		return discard{io.Discard}, nil
	}
	return os.Create(o.Console)
}

type discard struct{ io.Writer }

func (discard) Close() error { return nil }

// command makes the files that QEMU needs in work, and its arguments.
func (o BootOptions) command(work string) ([]string, error) {
	snapshot := "on" // writes go to a file in TMPDIR that has no name
	if o.Writable {
		snapshot = "off"
	}
	machine, processors := "q35", "2"
	if o.Firmware == SecureUEFI { // which a second processor slows down
		machine, processors = "q35,smm=on", "1"
	}
	args := []string{
		"-machine", machine, "-accel", o.Accel, "-smp", processors, "-cpu", "max", "-m", strconv.Itoa(o.Memory),
		"-nodefaults", "-display", "none", "-net", "none", "-no-reboot",
		"-drive", "if=none,id=d0,cache=unsafe,snapshot=" + snapshot + ",format=" + o.Format + ",file=" + escapeComma(o.Disk),
		"-device", "virtio-blk-pci,drive=d0,bootindex=0",
		"-object", "rng-random,id=r0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=r0",
		"-chardev", "stdio,id=c0,signal=off", "-serial", "chardev:c0",
	}
	switch o.Firmware {
	case BIOS:
		return args, nil
	case UEFI:
		flash, err := flashArgs(work, "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")
		return append(args, flash...), err
	case SecureUEFI:
		flash, err := flashArgs(work, "OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd")
		return append(args, append(flash, "-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1")...), err
	}
	return nil, fmt.Errorf("unknown firmware %q", o.Firmware)
}

// escapeComma doubles commas, as QEMU's option syntax wants them in values.
func escapeComma(s string) string {
	var b []byte
	for i := range len(s) {
		if s[i] == ',' {
			b = append(b, ',')
		}
		b = append(b, s[i])
	}
	return string(b)
}

// flashArgs are the arguments for a firmware with a copy of its variables.
func flashArgs(work, code, variables string) ([]string, error) {
	const dir = "/usr/share/OVMF" // of Debian's package ovmf
	vars, err := os.ReadFile(filepath.Join(dir, variables))
	if err != nil {
		return nil, fmt.Errorf("reading UEFI's variables (package ovmf): %w", err)
	}
	own := filepath.Join(work, "vars.fd")
	if err := os.WriteFile(own, vars, 0o600); err != nil {
		return nil, err
	}
	return []string{
		"-drive", "if=pflash,format=raw,readonly=on,file=" + filepath.Join(dir, code),
		"-drive", "if=pflash,format=raw,file=" + escapeComma(own),
	}, nil
}

// Overlay makes the qcow2 file path, which reads from disk and keeps writes to itself: several
// boots of one installed disk, each seeing the one before, are writable boots of one overlay.
func Overlay(ctx context.Context, disk, format, path string) error {
	abs, err := filepath.Abs(disk)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-b", abs, "-F", format, path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("making an overlay of %s: %w: %s", disk, err, out)
	}
	return nil
}

// machine is a running QEMU.
type machine struct {
	output <-chan []byte // console, and QEMU's own messages; closed at its end
	exit   <-chan error  // one value, after output is closed
	kill   context.CancelFunc
}

// children are processes that this one waits for while tests go on, none of which may take them for
// processes that a killed installer left.
var children struct {
	sync.Mutex
	pids map[int]bool
}

// runChild runs cmd, which is among children for as long as it is one.
func runChild(cmd *exec.Cmd) error {
	children.Lock()
	if err := cmd.Start(); err != nil {
		children.Unlock()
		return err
	}
	pid := cmd.Process.Pid
	if children.pids == nil {
		children.pids = map[int]bool{}
	}
	children.pids[pid] = true
	children.Unlock()
	err := cmd.Wait()
	children.Lock()
	defer children.Unlock()
	delete(children.pids, pid)
	return err
}

// startQEMU runs QEMU in a thread of its own: the kernel kills QEMU when that thread ends, so that
// it must live as long as QEMU, and that also ends QEMU should the test process die.
func startQEMU(ctx context.Context, args []string) machine {
	ctx, kill := context.WithCancel(ctx)
	output, exit := make(chan []byte, 64), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		cmd.Stdout = chunks{output}
		cmd.Stderr = cmd.Stdout
		err := runChild(cmd)
		close(output)
		exit <- err
	}()
	return machine{output: output, exit: exit, kill: kill}
}

type chunks struct{ to chan<- []byte }

func (c chunks) Write(b []byte) (int, error) {
	c.to <- append([]byte(nil), b...)
	return len(b), nil
}

// stop ends QEMU and waits until it is gone.
func (m machine) stop() error {
	m.kill()
	for range m.output { // its last output must not block it
	}
	return <-m.exit
}

// watch follows the console to the end of the boot, or to the first reason to give up.
func watch(ctx context.Context, m machine, console io.Writer, o BootOptions) (*Evidence, error) {
	now := time.Now()
	w := &watcher{c: newConsoleReader(now), console: console, o: o, phaseBegan: now, lastByte: now}
	if o.OnPhase != nil {
		o.OnPhase(PhaseFirmware)
	}
	cause := w.follow(ctx, m)
	exit := m.stop()
	if cause == nil {
		cause = w.ended(exit)
	}
	if cause == nil {
		var e *Evidence
		if e, cause = w.c.evidence(); cause == nil {
			return e, nil
		}
	}
	return nil, &BootError{Phase: w.c.phase, Tail: w.c.tail(40), Err: cause}
}

type watcher struct {
	c                    *consoleReader
	console              io.Writer
	o                    BootOptions
	phaseBegan, lastByte time.Time
}

// follow returns nil when QEMU's output ended, otherwise why it should be stopped.
func (w *watcher) follow(ctx context.Context, m machine) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case b, ok := <-m.output:
			if !ok {
				return nil
			}
			if err := w.take(b); err != nil {
				return err
			}
		case now := <-tick.C:
			if err := w.overdue(now); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (w *watcher) take(b []byte) error {
	if _, err := w.console.Write(b); err != nil {
		return fmt.Errorf("keeping the console: %w", err)
	}
	before := w.c.phase
	w.lastByte = time.Now()
	w.c.feed(b, w.lastByte)
	if w.c.phase != before {
		w.phaseBegan = w.lastByte
		if w.o.OnPhase != nil {
			w.o.OnPhase(w.c.phase)
		}
	}
	if w.c.fatal != "" {
		return fmt.Errorf("the console says %q", w.c.fatal)
	}
	return nil
}

func (w *watcher) overdue(now time.Time) error {
	slack := func(d time.Duration) time.Duration { return time.Duration(float64(d) * w.o.Slack) }
	if limit := slack(deadlines[w.c.phase]); now.Sub(w.phaseBegan) > limit {
		return fmt.Errorf("%w: phase %s took longer than %s", errNoProgress, w.c.phase, limit)
	}
	if limit := slack(silence); w.c.phase < PhaseReport && now.Sub(w.lastByte) > limit {
		return fmt.Errorf("%w: no output for %s", errNoProgress, limit)
	}
	return nil
}

// ended judges a QEMU that ended by itself.
func (w *watcher) ended(exit error) error {
	if w.c.phase < PhaseOff {
		return fmt.Errorf("QEMU ended before the report did (exit: %v)", exit)
	}
	if exit != nil {
		return fmt.Errorf("QEMU failed: %w", exit)
	}
	w.c.reached[PhaseOff] = time.Since(w.c.begin)
	return nil
}
