package vm

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"installer/install"
)

// fakeBuild is a build that is ready to start a machine, which is a script that
// finds its accelerator in $ACCEL.
func fakeBuild(t *testing.T, script string) (*build, *[]install.Event) {
	t.Helper()
	dir := t.TempDir()
	qemu := filepath.Join(dir, "qemu")
	head := "#!/bin/sh\ncase \"$*\" in *'-accel kvm'*) ACCEL=kvm;; *) ACCEL=tcg;; esac\n"
	if err := os.WriteFile(qemu, []byte(head+script), 0o700); err != nil {
		t.Fatal(err)
	}
	kvm := filepath.Join(dir, "kvm")
	if err := os.WriteFile(kvm, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var events []install.Event
	o := testOptions(t)
	o.Format = Raw
	b := newBuild(o, func(e install.Event) { events = append(events, e) })
	b.programs.qemu, b.kvm = qemu, kvm
	short := map[Phase]time.Duration{PhaseStart: time.Second, PhaseKernel: time.Second, PhaseDevices: time.Second, PhaseInstaller: time.Second, PhaseOff: time.Second}
	b.limits = func(Accel) map[Phase]time.Duration { return short }
	file, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	b.kernel, b.initrd, b.tree = file, file, &tree{file: file}
	b.output = &output{file: file}
	return b, &events
}

// KVM that opens and never runs the guest is given up in time, and said so; so
// is KVM that makes QEMU fail.
func TestKVMThatDoesNotWork(t *testing.T) {
	for name, script := range map[string]string{
		"hangs": `test $ACCEL = tcg || exec sleep 1000; echo emulation was tried >&2; exit 3`,
		"fails": `test $ACCEL = tcg || exit 1; echo emulation was tried >&2; exit 3`,
	} {
		t.Run(name, func(t *testing.T) {
			b, events := fakeBuild(t, script)
			began := time.Now()
			_, err := b.install(t.Context())
			var e *MachineError
			if !errors.As(err, &e) || e.Accel != AccelTCG || !strings.Contains(err.Error(), "emulation was tried") {
				t.Errorf("got %v", err)
			}
			if len(b.report.Machine.Attempts) != 1 || time.Since(began) > 10*time.Second {
				t.Errorf("after %s the attempts are %q", time.Since(began), b.report.Machine.Attempts)
			}
			if n := slices.IndexFunc(*events, func(e install.Event) bool { return e.Kind == install.EventNote }); n < 0 || !strings.Contains((*events)[n].Message, "KVM") {
				t.Errorf("nothing was said of it: %+v", *events)
			}
		})
	}
}

func TestOnlyWhatWasAskedForIsTried(t *testing.T) {
	b, _ := fakeBuild(t, "exec sleep 1000")
	b.opts.Accel = AccelKVM
	_, err := b.install(t.Context())
	var e *MachineError
	if !errors.As(err, &e) || e.Accel != AccelKVM || !errors.Is(err, errNoProgress) || e.Phase != PhaseStart {
		t.Errorf("got %v", err)
	}
}

func TestKVMThatCannotBeOpened(t *testing.T) {
	b, events := fakeBuild(t, "exit 3")
	b.kvm = filepath.Join(t.TempDir(), "nothing")
	if _, err := b.install(t.Context()); err == nil {
		t.Error("no error")
	}
	if len(*events) == 0 || !strings.Contains((*events)[0].Message, "KVM cannot be used") {
		t.Errorf("nothing was said of it: %+v", *events)
	}
}

func TestCancelEndsTheMachine(t *testing.T) {
	b, _ := fakeBuild(t, "exec sleep 1000")
	b.limits = limits
	cause := errors.New("told to stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := time.AfterFunc(100*time.Millisecond, func() { cancel(cause) })
	defer stop.Stop()
	if _, err := b.install(ctx); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

// A console is what a guest wrote: it must not command the reader's terminal.
func TestConsoleTail(t *testing.T) {
	c := &tail{limit: 40}
	if _, err := io.WriteString(c, strings.Repeat("x", 50)+"\nred \x1b[31m\a\xff\u009b text\r\nlast"); err != nil {
		t.Fatal(err)
	}
	if got := c.lines(2); got != "red [31m text\nlast" {
		t.Errorf("got %q", got)
	}
}
