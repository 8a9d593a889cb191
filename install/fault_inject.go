//go:build faults

package install

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"installer/rootfs/ostree"
)

// faultVariable names the environment variable that chooses the fault.
const faultVariable = "INSTALLER_FAULT"

// mappedSize is from where metadata objects are mapped, in bytes.
const mappedSize = 16 << 10

// injectFault leaves something on the target on purpose, as a bug would.
func injectFault(i *installation) error {
	faults := map[string]func(*installation) error{
		"":            func(*installation) error { return nil },
		"map":         leakMap,
		"fd":          leakFD,
		"child-cwd":   func(i *installation) error { return leakChild(i, 0, i.root.Path) },
		"child-mntns": func(i *installation) error { return leakChild(i, syscall.CLONE_NEWNS, "/") },
	}
	name := os.Getenv(faultVariable)
	inject, ok := faults[name]
	if !ok {
		return fmt.Errorf("%s: unknown fault %q", faultVariable, name)
	}
	return inject(i)
}

// leaked keeps the leaked objects from the garbage collector.
var leaked []any

// leakMap loads a directory object that is large enough to be mapped, and forgets to close it.
func leakMap(i *installation) error {
	objects := filepath.Join(i.root.Path, "ostree/repo/objects")
	paths, err := filepath.Glob(filepath.Join(objects, "*", "*.dirtree"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() <= mappedSize {
			continue
		}
		name := filepath.Base(filepath.Dir(path)) + strings.TrimSuffix(filepath.Base(path), ".dirtree")
		checksum, err := ostree.ParseChecksum(name)
		if err != nil {
			return err
		}
		object, err := i.system.Repo().Load(ostree.TypeDirTree, checksum)
		leaked = append(leaked, object)
		return err
	}
	return fmt.Errorf("no directory object is larger than %d bytes", mappedSize)
}

func leakFD(i *installation) error {
	path := filepath.Join(i.root.Path, i.run.report.Deployment.Path, "usr/lib/os-release")
	i.run.ledger.Opened("fd", path)
	file, err := os.Open(path)
	leaked = append(leaked, file)
	return err
}

func leakChild(i *installation, flags uintptr, dir string) error {
	cmd := exec.Command("sleep", "3600")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	return cmd.Start()
}
