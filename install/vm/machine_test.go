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
	"installer/install/hostprog"
	"installer/install/outfile"
	"installer/rootfs/image"
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
	b.kernel, b.initrd, b.tree = file, file, &tree{file: file, tree: &image.Tree{Root: &image.Node{}}}
	b.image = openImage(t, image.TransportRootfs, t.TempDir())
	b.image.ManifestDigest = testDigest
	b.report.Plan = &install.Plan{Stateroot: "default"}
	b.output = &outfile.File{File: file}
	return b, &events
}

// KVM that opens and never runs the guest is given up in time, and said so; so
// is KVM that makes QEMU fail.
func TestKVMThatDoesNotWork(t *testing.T) {
	for name, script := range map[string]string{
		"hangs":           `test $ACCEL = tcg || exec sleep 1000; echo emulation was tried >&2; exit 3`,
		"hangs in kernel": `test $ACCEL = tcg || { echo Probing EDD >&4; exec sleep 1000; }; echo emulation was tried >&2; exit 3`,
		"fails":           `test $ACCEL = tcg || exit 1; echo emulation was tried >&2; exit 3`,
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

// A host with KVM that does not work loses less than a minute by trying it.
func TestKVMIsGivenUpSoon(t *testing.T) {
	l := limits(AccelKVM)
	if lost := l[PhaseStart] + l[PhaseKernel]; lost == 0 || lost > 45*time.Second {
		t.Errorf("it takes %s", lost)
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

// The reason is that of QEMU's end, not that of the write which it did not live to read.
func TestEndBeforeTheFirstCommand(t *testing.T) {
	closed := make(chan []byte)
	close(closed)
	m := &machine{console: closed, channel: closed, monitor: closed, exit: make(chan error, 1), kill: func() {}, said: hostprog.NewTail(100)}
	for range 3 {
		ours, theirs, err := port()
		if err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		m.ports = append(m.ports, ours)
	}
	killed := errors.New("signal: killed")
	m.exit <- killed
	w := &watcher{m: m, limits: limits(AccelTCG)}
	if err := w.watch(t.Context()); !errors.Is(err, killed) || strings.Contains(err.Error(), "broken pipe") {
		t.Errorf("got %v", err)
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

// A guest wrote the console: its characters must not command the reader's terminal.
func TestConsoleTail(t *testing.T) {
	c := hostprog.NewTail(50)
	if _, err := io.WriteString(c, strings.Repeat("x", 50)+"\nred \x1b[31m\a\xff\u009b\u202e text\r\nlast"); err != nil {
		t.Fatal(err)
	}
	if got := c.Lines(2); got != `red \x1b[31m\a\xff\u009b\u202e text`+"\nlast" {
		t.Errorf("got %q", got)
	}
}

// The error of a machine that goes off in the middle of the installation has the kernel's last
// words.
func TestMachineThatGoesOffDuringInstallation(t *testing.T) {
	// Of the descriptors 3 is the one file that stands for all, 4 the console, 5 the monitor, 6 the
	// channel.
	b, _ := fakeBuild(t, `
		read greeting <&5 # not gone before it is spoken to
		echo 'watchdog: BUG: soft lockup' >&4
		echo '{"phase":"devices"}' >&6; echo '{"phase":"installer"}' >&6; echo '{"line":{"event":"step","step":"import"}}' >&6`)
	b.opts.Accel = AccelTCG
	b.step.Kind = install.EventStep
	_, err := b.install(t.Context())
	var e *MachineError
	if !errors.As(err, &e) || e.Phase != PhaseInstaller || !strings.Contains(err.Error(), "middle of its work") || !strings.Contains(e.Console, "soft lockup") {
		t.Errorf("got %v", err)
	}
}

// A guest that verifies runs a kernel of this machine that has the required modules: the
// running one, or the newest.
func TestKernelOfThisMachine(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := hostKernel(root, nil); err == nil || !strings.Contains(err.Error(), "lib/modules") {
		t.Errorf("without any: %v", err)
	}
	for _, version := range []string{"6.9.0-cloud", "6.10.1-a", "6.11.0"} {
		write("lib/modules/"+version+"/modules.dep", "kernel/loop.ko:\n")
	}
	write("boot/vmlinuz-6.9.0-cloud", "old")
	write("lib/modules/6.10.1-a/vmlinuz", "new")
	write("boot/vmlinuz-6.11.0", "poor")
	write("lib/modules/6.11.0/modules.dep", "")
	k, err := hostKernel(root, []string{"loop"})
	if err != nil || k.version != "6.10.1-a" {
		t.Fatalf("got %q, %v", k.version, err)
	}
	f, err := k.image()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := make([]byte, 8)
	if n, err := f.ReadAt(text, 0); string(text[:n]) != "new" || err != io.EOF {
		t.Errorf("the kernel is %q, %v", text[:n], err)
	}
	if _, err := hostKernel(root, []string{"virtio_blk"}); err == nil || !strings.Contains(err.Error(), "6.9.0-cloud of this machine: the kernel has no virtio_blk") {
		t.Errorf("without one that serves: %v", err)
	}
}
