package finalize

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Requests of linux/fs.h that golang.org/x/sys does not carry; the same on all architectures but
// mips, powerpc and sparc.
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
	fiTrim   = 0xC0185879
)

// FreezerArg0 is the name under which the program executes itself to freeze and thaw. The program's
// main hands over to FreezerMain when it was started under this name.
const FreezerArg0 = "installer-freezer"

// freezerFD is where the freezer finds the file system: os/exec numbers the first extra file so.
const freezerFD = 3

// Exit statuses of a freezer; any other is the errno of the freeze.
const (
	freezerDone   = 254
	freezerFailed = 255 // it could not thaw
)

var errNoFreezer = errors.New("the program does not know the name " + FreezerArg0)

// FreezerMain freezes and thaws the file system of its first inherited file, and returns the exit
// status.
func FreezerMain() int {
	if err := fdIoctl(freezerFD, fiFreeze, 0); err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		return int(errno)
	}
	if err := fdIoctl(freezerFD, fiThaw, 0); err != nil {
		return freezerFailed
	}
	return freezerDone
}

// freezeThaw freezes a file system and thaws it. A freeze outlives the process that made it:
// therefore a process of its own makes it, in a session of its own, and this one thaws when that
// one was killed between the two. When this one is killed, the other goes on to its end.
func freezeThaw(dir *os.File) error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args, cmd.Env, cmd.Dir = []string{FreezerArg0}, []string{}, "/"
	return freezeBy(cmd, dir)
}

func freezeBy(cmd *exec.Cmd, dir *os.File) error {
	cmd.ExtraFiles = []*os.File{dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("starting the process that freezes: %w", cmp.Or(err, errNoFreezer))
	}
	switch code := exit.ExitCode(); {
	case code == freezerDone:
		return nil
	case code > 0 && code != freezerFailed: // -1 is a signal
		return syscall.Errno(code)
	}
	if thaw := ioctl(dir, fiThaw, 0); thaw != nil && !errors.Is(thaw, unix.EINVAL) { // EINVAL: it is not frozen
		return fmt.Errorf("thawing after the process that froze (%w) did not: %w; try fsfreeze --unfreeze", err, thaw)
	}
	return fmt.Errorf("the process that freezes and thaws ended early: %w", err)
}

func ioctl(f *os.File, request, arg uintptr) error { return fdIoctl(f.Fd(), request, arg) }

func fdIoctl(fd, request, arg uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, arg); errno != 0 {
		return errno
	}
	return nil
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOSYS)
}
