package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Main is the life of the process that Output starts: first process of its namespaces, it arranges
// the Program's surroundings and then becomes it. It returns only when that failed; the caller
// prints the error and exits.
func Main() error {
	// Capabilities belong to a thread; the one that drops them must be the one that executes.
	runtime.LockOSThread()
	p, err := readSpec()
	if err != nil {
		return err
	}
	if err := enter(p.Root); err != nil {
		return err
	}
	if err := furnish(p.Files); err != nil {
		return err
	}
	path, err := lookup(p.Argv[0])
	if err != nil {
		return err
	}
	if err := dropPrivileges(); err != nil {
		return err
	}
	if err := limit(); err != nil {
		return err
	}
	return become(path, p.Argv, os.Environ())
}

// become executes the program with its memory limited, by two system calls with nothing between them: this
// process has reserved more memory than the limit, and an allocation after it would end the process. It
// returns only when that failed.
func become(path string, argv, env []string) error {
	name, err := syscall.BytePtrFromString(path)
	if err != nil {
		return fmt.Errorf("executing %s: %w", path, err)
	}
	args, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return fmt.Errorf("executing %s: %w", path, err)
	}
	vars, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return fmt.Errorf("executing %s: %w", path, err)
	}
	bounds := unix.Rlimit{Cur: memoryLimit, Max: memoryLimit}
	debug.SetGCPercent(-1)
	runtime.GC() // one that is under way ends, and none begins
	_, _, errno := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_AS, uintptr(unsafe.Pointer(&bounds)), 0, 0, 0)
	if errno == 0 {
		_, _, errno = unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&args[0])), uintptr(unsafe.Pointer(&vars[0])))
	}
	return fmt.Errorf("limiting the memory of %s and executing it: %w", path, errno)
}

func readSpec() (*Program, error) {
	f := os.NewFile(specFD, "program")
	defer f.Close()
	var p Program
	if err := json.NewDecoder(f).Decode(&p); err != nil {
		return nil, fmt.Errorf("reading the description of the program: %w", err)
	}
	if p.Root == "" || len(p.Argv) == 0 {
		return nil, errors.New("reading the description of the program: no root or no program")
	}
	return &p, nil
}

// mount is one call of mount(2) with the reason for it.
type mount struct {
	what, source, target, fstype string
	flags                        uintptr
	data                         string
}

func (m mount) do() error {
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("%s (%s): %w", m.what, m.target, err)
	}
	return nil
}

// enter makes root the root directory, read-only for this namespace alone. The files of a
// deployment are hard links to repository objects: a program that wrote to one would corrupt the
// repository.
func enter(root string) error {
	for _, m := range []mount{
		{"cutting propagation", "", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{"binding the root", root, root, "", unix.MS_BIND, ""},
		{"making the root read-only", "", root, "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV, ""},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	if err := unix.Chroot(root); err != nil {
		return fmt.Errorf("making %s the root: %w", root, err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("entering the root %s: %w", root, err)
	}
	return nil
}

// furnish gives the new root a private /tmp that holds files, and the devices that programs take
// for granted. It runs inside the root, so that a symlink the image put at /tmp or /dev leads
// nowhere outside.
func furnish(files map[string][]byte) error {
	for _, m := range []mount{
		{"mounting a private /tmp", "tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0700,size=256m"},
		{"mounting a private /dev", "tmpfs", "/dev", "tmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755,size=64k"},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join("/tmp", name), content, 0o600); err != nil {
			return fmt.Errorf("placing a file for the program: %w", err)
		}
	}
	// Numbers from the kernel's devices.txt: memory devices have major 1.
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "urandom": 9} {
		node := filepath.Join("/dev", name)
		if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return fmt.Errorf("making %s: %w", node, err)
		}
	}
	if err := unix.Chdir("/tmp"); err != nil {
		return fmt.Errorf("entering /tmp: %w", err)
	}
	return nil
}

// lookup finds a program below the new root: at its path, or in the usual directories. PATH is not
// asked: it is the caller's, not the image's.
func lookup(name string) (string, error) {
	candidates := []string{name}
	if !filepath.IsAbs(name) {
		candidates = nil
		for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"} {
			candidates = append(candidates, filepath.Join(dir, name))
		}
	}
	for _, path := range candidates {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("finding %s in the image: %w", name, os.ErrNotExist)
}

// limit bounds the program but for its memory; it would exhaust this machine otherwise. A program that
// exceeds a bound is ended.
func limit() error {
	for _, l := range []struct {
		resource int
		most     uint64
	}{
		{unix.RLIMIT_FSIZE, outputLimit}, {unix.RLIMIT_CPU, cpuLimit}, {unix.RLIMIT_CORE, 0},
	} {
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.most, Max: l.most}); err != nil {
			return fmt.Errorf("limiting the program (resource %d): %w", l.resource, err)
		}
	}
	return nil
}

// dropPrivileges leaves the program root in name only. Without CAP_SYS_ADMIN and CAP_SYS_CHROOT it
// can neither mount nor leave its root.
func dropPrivileges() error {
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: unknown to this kernel
			return fmt.Errorf("dropping capability %d from the bounding set: %w", c, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("dropping all capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	return nil
}
