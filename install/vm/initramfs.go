package vm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path"

	"installer/install/vm/cpio"
	"installer/install/vm/internal/wire"
	"installer/install/vm/kmod"

	"golang.org/x/sys/unix"
)

// makeInitramfs makes the initramfs of a guest: the installer, the modules and the instructions, to
// which it adds the list of modules.
func makeInitramfs(k kernel, todo wire.Instructions, required, optional []string) (_ *os.File, err error) {
	exe, err := ownProgram()
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	index, err := kmod.ReadIndex(k.open)
	if err != nil {
		return nil, err
	}
	modules, err := index.Resolve(required, optional)
	if err != nil {
		return nil, err
	}
	f, err := memory("initramfs")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	return f, pack(f, exe, k, modules, todo)
}

// pack writes the initramfs.
func pack(f, exe *os.File, k kernel, modules []string, todo wire.Instructions) error {
	out := bufio.NewWriterSize(f, 1<<20)
	c := cpio.NewWriter(out)
	for _, dir := range []string{"dev", "proc", "sys", wire.BaseDir, wire.NewRootDir, wire.ModulesDir} {
		c.Dir(dir)
	}
	c.Device("dev/console", unix.S_IFCHR|0o600, 5, 1) // devices.txt: the kernel opens it for its first process
	c.CopyFile("init", exe)
	for n, file := range modules {
		data, err := k.module(file)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%03d-%s", n, path.Base(file))
		c.File(path.Join(wire.ModulesDir, name), 0o644, data)
		todo.Modules = append(todo.Modules, name)
	}
	data, err := json.Marshal(todo)
	if err != nil {
		return fmt.Errorf("writing the guest's instructions: %w", err)
	}
	c.File(wire.InstructionsPath, 0o644, data)
	if err = c.Close(); err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("writing the guest's initramfs: %w", err)
	}
	return nil
}
