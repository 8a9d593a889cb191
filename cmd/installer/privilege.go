package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"installer/disk/mounts"
)

// namespaceMarker is the environment variable by which the re-executed program
// recognises its private mount namespace.
const namespaceMarker = "INSTALLER_MOUNT_NAMESPACE"

// memoryLimit is when the garbage collector begins to work harder, in bytes.
// Peak memory is promised to stay below 256 MiB.
const memoryLimit = 215 << 20

// enterWorkplace makes the process fit to install: root, in a mount namespace
// of its own. It may execute the
// program anew, so it comes before anything is opened.
func enterWorkplace() error {
	if os.Geteuid() != 0 {
		return &notRootError{"partitioning and mounting need root"}
	}
	env, err := mounts.EnterPrivate(namespaceMarker, os.Args, os.Environ())
	if err != nil {
		return err
	}
	if err := setEnvironment(env); err != nil {
		return err
	}
	return settle()
}

// notRootError refuses a command that only root can carry out.
type notRootError struct{ why string }

func (e *notRootError) Error() string { return "not root: " + e.why }

// Advice is the remedy.
func (e *notRootError) Advice() string {
	return "run it with sudo, or in a container with --privileged"
}

// settle readies the process, in the mount namespace that it is to work in.
func settle() error {
	// The name that ps and other installers show; executed through a descriptor, it is that one's
	// number.
	if err := os.WriteFile("/proc/self/comm", []byte("installer"), 0); err != nil {
		return fmt.Errorf("naming the process: %w", err)
	}
	debug.SetMemoryLimit(memoryLimit)
	return nil
}

// setEnvironment replaces the environment.
func setEnvironment(env []string) error {
	os.Clearenv()
	for _, variable := range env {
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("restoring the environment variable %q: %w", name, err)
		}
	}
	return nil
}

// untilSignal returns a context that ends when the process receives a signal to stop.
// Later signals change nothing: the undo is under way already.
func untilSignal(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 4)
	notifyStop(signals)
	// A reader of the output that went away does not stop the work; it fails the command in the end.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go func() {
		for s := range signals {
			cancel(&signalError{s})
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel(nil)
	}
}

// signalError says that a signal ended a command.
type signalError struct{ signal os.Signal }

func (e *signalError) Error() string { return fmt.Sprintf("received %v", e.signal) }

// Unwrap makes it an end that was asked for.
func (e *signalError) Unwrap() error { return context.Canceled }

// notifyStop passes on the signals that stop a command, but for those that were ignored when the
// program started: nohup(1), and a shell that starts a job in the background, do that.
func notifyStop(signals chan<- os.Signal) {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
}
