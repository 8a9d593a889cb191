// Package confine runs programs that are not the installer's own: file system makers, and programs
// of the image such as the boot loader's image builder.
//
// Each program gets a PID, mount, network, IPC and UTS namespace that ends with it, so that nothing
// it starts, mounts or listens on outlives it, and is killed by the kernel if the installer dies. A
// program of the image also gets the image's tree as its root, read-only, and no capabilities,
// since an image is input written by others.
//
// The choice of programs belongs to the callers.
package confine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"installer/install/hostprog"
)

// namespaces are the ones every program gets for itself. Mounts made in the installer's namespace
// do not propagate into the program's, nor back.
const namespaces = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS

// stderrLimit is how much of a program's last error output an error quotes, in bytes.
const stderrLimit = 8192

// Bounds of a program of the image. A boot loader's image maker takes seconds and a few MiB.
const (
	outputLimit = 64 << 20  // bytes of a file, such as its standard output
	memoryLimit = 1 << 30   // bytes of address space
	cpuLimit    = 10 * 60   // seconds of one processor
	timeLimit   = time.Hour // whatever it does
)

// ExitError is a program that ran and failed.
type ExitError struct {
	Argv   []string
	Stderr string // the end of its standard error
	Cause  error
}

func (e *ExitError) Error() string {
	msg := fmt.Sprintf("running %s: %v", strings.Join(e.Argv, " "), e.Cause)
	if e.Stderr != "" {
		msg += ": " + strings.Join(strings.Split(e.Stderr, "\n"), "; ")
	}
	return msg
}

func (e *ExitError) Unwrap() error { return e.Cause }

// Run runs a program of this machine, found by [hostprog.Find], in namespaces of its own. It keeps
// its view of the file system and its privileges: a file system maker must write to a device.
func Run(ctx context.Context, argv []string) error {
	path, err := hostprog.Find(argv[0])
	if err != nil {
		return err
	}
	cmd := exec.Command(path, argv[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+hostprog.Path())
	_, err = wait(ctx, cmd, argv)
	return err
}

// Program is a program of the image.
type Program struct {
	Root  string            // directory that becomes the program's root
	Argv  []string          // Argv[0] is an absolute path below Root, or looked up in the usual directories there
	Files map[string][]byte // placed in the program's private /tmp; names without a slash
}

// Arg0 is the name under which the installer re-executes itself to set a Program's surroundings up
// from inside its namespaces. The installer's main hands over to Main when it was started under
// this name.
const Arg0 = "installer-confined"

// specFD is where the re-executed installer finds the Program: os/exec numbers the first extra file
// so.
const specFD = 3

// Output runs a program of the image and returns its standard output.
func Output(ctx context.Context, p Program) ([]byte, error) {
	for name := range p.Files {
		if name == "" || name != filepath.Base(name) || name == ".." {
			return nil, fmt.Errorf("running %s: %q is not a plain file name", p.Argv[0], name)
		}
	}
	spec, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("describing %s to its helper: %w", p.Argv[0], err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe for %s: %w", p.Argv[0], err)
	}
	defer r.Close()
	// The pipe is fed aside: a spec may be larger than its buffer. A helper that dies closes the
	// last reader, which ends the goroutine.
	fed := make(chan error, 1)
	go func() {
		_, err := io.Copy(w, bytes.NewReader(spec))
		fed <- errors.Join(err, w.Close())
	}()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{Arg0}
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/tmp", "TMPDIR=/tmp"}
	cmd.ExtraFiles = []*os.File{r}
	ctx, cancel := context.WithTimeoutCause(ctx, timeLimit, fmt.Errorf("it did not end within %s", timeLimit))
	defer cancel()
	out, err := wait(ctx, cmd, p.Argv)
	r.Close()
	if feedErr := <-fed; err == nil && feedErr != nil {
		err = fmt.Errorf("describing %s to its helper: %w", p.Argv[0], feedErr)
	}
	return out, err
}

// wait starts cmd in its namespaces and waits for its end, or kills it when ctx ends first. The PID
// namespace's first process is the program itself, so its end is the end of all that it started.
func wait(ctx context.Context, cmd *exec.Cmd, argv []string) ([]byte, error) {
	// The parent-death signal is sent when the *thread* that forked ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	// Not a pipe: some programs sync their output, which a pipe refuses.
	fd, err := unix.MemfdCreate("stdout", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a file for the output of %s: %w", argv[0], err)
	}
	stdout := os.NewFile(uintptr(fd), "stdout")
	defer stdout.Close()
	stderr := hostprog.NewTail(stderrLimit)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL, Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	err = cmd.Wait()
	if !stop() && ctx.Err() != nil {
		return nil, fmt.Errorf("running %s: %w", argv[0], context.Cause(ctx))
	}
	if err != nil {
		return nil, &ExitError{Argv: argv, Stderr: stderr.String(), Cause: err}
	}
	out, err := io.ReadAll(io.NewSectionReader(stdout, 0, outputLimit)) // the program's limit is the same
	if err != nil {
		return nil, fmt.Errorf("reading the output of %s: %w", argv[0], err)
	}
	return out, nil
}
