package vm

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"installer/install/vm/kmod"

	"golang.org/x/sys/unix"
)

// kernel is a Linux kernel with its modules.
type kernel struct {
	version string
	open    kmod.Opener // of files in its directory of modules, and of "vmlinuz"
}

// module reads and unpacks a module.
func (k kernel) module(file string) ([]byte, error) {
	r, err := k.open(file)
	if err != nil {
		return nil, err
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	return kmod.Load(file, r)
}

// image copies the kernel itself to a file of its own, for QEMU.
func (k kernel) image() (*os.File, error) {
	r, err := k.open("vmlinuz")
	if err != nil {
		return nil, err
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	f, err := memory("vmlinuz")
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return nil, fmt.Errorf("copying the kernel: %w", err)
	}
	return f, nil
}

// hostKernel finds a kernel of this machine that has the required modules: the running one, else
// the one of the highest version.
func hostKernel(root string, required []string) (kernel, error) {
	root = filepath.Join("/", root)
	var why []error
	for _, version := range hostVersions(root) {
		k := kernel{version: version, open: hostOpener(root, version)}
		if err := k.usable(required); err != nil {
			why = append(why, fmt.Errorf("kernel %s of this machine: %w", version, err))
			continue
		}
		return k, nil
	}
	if len(why) == 0 {
		return kernel{}, fmt.Errorf("there is no kernel in %s", filepath.Join(root, "lib/modules"))
	}
	return kernel{}, errors.Join(why...)
}

// hostVersions lists the kernels, the best first.
func hostVersions(root string) []string {
	entries, err := os.ReadDir(filepath.Join(root, "lib/modules"))
	if err != nil {
		return nil // the caller reports that it found no kernel
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	var running unix.Utsname
	if err := unix.Uname(&running); err != nil {
		return names
	}
	slices.SortFunc(names, func(a, b string) int {
		r := unix.ByteSliceToString(running.Release[:])
		switch {
		case a == r:
			return -1
		case b == r:
			return 1
		}
		return compareVersions(b, a)
	})
	return names
}

// compareVersions compares runs of digits as numbers: 6.10 is more than 6.9.
func compareVersions(a, b string) int {
	digits := func(s string) int {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		return n
	}
	for a != "" && b != "" {
		n, m := digits(a), digits(b)
		if n == 0 || m == 0 {
			if a[0] != b[0] {
				return int(a[0]) - int(b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		x, y := strings.TrimLeft(a[:n], "0"), strings.TrimLeft(b[:m], "0")
		if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
			return c
		}
		a, b = a[n:], b[m:]
	}
	return cmp.Compare(len(a), len(b))
}

// hostOpener opens files of a kernel of this machine. The kernel itself is beside its modules, or
// in /boot.
func hostOpener(root, version string) kmod.Opener {
	return func(name string) (io.Reader, error) {
		f, err := os.Open(filepath.Join(root, "lib/modules", version, name))
		if name == "vmlinuz" && errors.Is(err, fs.ErrNotExist) {
			f, err = os.Open(filepath.Join(root, "boot", "vmlinuz-"+version))
		}
		if err != nil {
			return nil, err // not f: a nil file is no nil reader
		}
		return f, nil
	}
}

// usable returns the reason why a guest cannot run the kernel.
func (k kernel) usable(required []string) error {
	index, err := kmod.ReadIndex(k.open)
	if err != nil {
		return err
	}
	if _, err := index.Resolve(required, nil); err != nil {
		return err
	}
	r, err := k.open("vmlinuz")
	if err != nil {
		return err
	}
	if c, ok := r.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// ownProgram opens the running program, and refuses one that is linked dynamically.
func ownProgram() (*os.File, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("opening the installer's own program: %w", err)
	}
	program, err := elf.NewFile(f)
	if err == nil {
		for _, p := range program.Progs {
			if p.Type == elf.PT_INTERP {
				err = errors.New("it is linked dynamically: build it with CGO_ENABLED=0")
			}
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("the installer's own program cannot run in the guest: %w", err)
	}
	return f, nil
}
