package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// Environment variables by which the program hands over to itself in another mount namespace, where
// the directory that the user was in may be another or none.
const (
	directoryVariable = "INSTALLER_DIRECTORY"
	reportVariable    = "INSTALLER_REPORT_DIRECTORY" // the descriptor of the directory of the report
)

// statusError ends the program with the exit status of another one, which has said why.
type statusError struct{ status int }

func (e *statusError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// enterNamespace moves the process, as a whole, into the mount namespace of a process or of a file;
// it executes the program anew there. It returns the directory that relative paths are relative to.
// The report stays where the user named it.
//
// /proc of a container shows the processes of its PID namespace alone. For a process of another PID
// namespace a child in that one does the work, and the error is its exit status.
func enterNamespace(name string, report *reportFile) (directory string, err error) {
	if name == "" {
		return os.Getwd()
	}
	path := name
	if pid, err := strconv.Atoi(name); err == nil {
		path = fmt.Sprintf("/proc/%d/ns/mnt", pid)
	}
	if os.Getenv(directoryVariable) == "" {
		if err := leaveDirectory(report); err != nil {
			return "", err
		}
		if err := workAmong(path); err != nil {
			return "", err
		}
	}
	env, err := mounts.EnterNamespace(namespaceMarker, path, os.Args, os.Environ())
	if err != nil {
		return "", err
	}
	if err := setEnvironment(env); err != nil {
		return "", err
	}
	if fd := os.Getenv(reportVariable); fd != "" {
		report.path = filepath.Join("/proc/self/fd", fd, filepath.Base(report.path))
	}
	directory = os.Getenv(directoryVariable)
	return directory, errors.Join(os.Unsetenv(directoryVariable), os.Unsetenv(reportVariable))
}

// leaveDirectory notes the working directory, and the directory of the report as an open file.
func leaveDirectory(report *reportFile) error {
	directory, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("finding the working directory: %w", err)
	}
	if err := os.Setenv(directoryVariable, directory); err != nil {
		return err
	}
	if report.path == "" {
		return nil
	}
	fd, err := unix.Open(filepath.Dir(report.path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return &usageError{fmt.Errorf("--report: %w", &os.PathError{Op: "open", Path: filepath.Dir(report.path), Err: err})}
	}
	return os.Setenv(reportVariable, strconv.Itoa(fd))
}

// workAmong runs the program again in the PID namespace of the processes in a mount namespace,
// unless that is the own one or no process is there.
func workAmong(mountNamespace string) error {
	processes, err := foreignProcesses(mountNamespace)
	if err != nil || processes == "" {
		return err
	}
	runtime.LockOSThread() // children of this thread alone are in the other namespace
	if err := setPIDNamespace(processes); err != nil {
		return err
	}
	return runAgain()
}

// foreignProcesses returns the PID namespace, as a file of /proc, of a process in a mount
// namespace: that of the process which the mount namespace is named by, or of any. "" means that it
// is the own one.
func foreignProcesses(mountNamespace string) (string, error) {
	wanted, err := os.Stat(mountNamespace)
	if err != nil {
		return "", fmt.Errorf("finding the mount namespace %s: %w", mountNamespace, err)
	}
	own, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return "", fmt.Errorf("finding the own PID namespace: %w", err)
	}
	candidates := []string{mountNamespace}
	if ok, _ := filepath.Match("/proc/[0-9]*/ns/mnt", mountNamespace); !ok { // the pattern is correct
		candidates, _ = filepath.Glob("/proc/[0-9]*/ns/mnt")
	}
	for _, path := range candidates {
		if info, err := os.Stat(path); err != nil || !os.SameFile(info, wanted) {
			continue // it has ended, or is in another one
		}
		processes := filepath.Join(filepath.Dir(path), "pid")
		if info, err := os.Stat(processes); err == nil && !os.SameFile(info, own) {
			return processes, nil
		}
	}
	return "", nil
}

func setPIDNamespace(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the PID namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("entering the PID namespace %s: %w", path, err)
	}
	return nil
}

// runAgain runs the program with the same arguments, passes signals on, and returns its exit status.
func runAgain() error {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	const inherited = "3" // os/exec numbers the first extra file so
	cmd.Env = os.Environ()
	if fd, err := strconv.Atoi(os.Getenv(reportVariable)); err == nil {
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "directory of the report")}
		cmd.Env = append(cmd.Env, reportVariable+"="+inherited)
	}
	signals := make(chan os.Signal, 4)
	notifyStop(signals)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("running the program in the PID namespace: %w", err)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may have ended
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return &statusError{exit.ExitCode()}
	}
	if err != nil {
		return fmt.Errorf("running the program in the PID namespace: %w", err)
	}
	return &statusError{exitDone}
}

// absolute returns a path that is relative to a directory, which may be one of another namespace.
func absolute(directory, path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return filepath.Join(directory, path)
}
