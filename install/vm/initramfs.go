package vm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"

	"installer/install/vm/internal/wire"
	"installer/install/vm/kmod"

	"golang.org/x/sys/unix"
)

// makeInitramfs makes a guest's initramfs: the installer, the modules and the
// instructions, which are completed.
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
	c := &cpio{out: out}
	for _, dir := range []string{"dev", "proc", "sys", wire.BaseDir, wire.NewRootDir, wire.ModulesDir} {
		c.add(dir, unix.S_IFDIR|0o755, nil)
	}
	c.device("dev/console", unix.S_IFCHR|0o600, 5, 1) // devices.txt: the kernel opens it for its first process
	c.addFile("init", exe)
	for n, file := range modules {
		data, err := k.module(file)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%03d-%s", n, path.Base(file))
		c.add(path.Join(wire.ModulesDir, name), unix.S_IFREG|0o644, data)
		todo.Modules = append(todo.Modules, name)
	}
	data, err := json.Marshal(todo)
	if err != nil {
		return fmt.Errorf("writing the guest's instructions: %w", err)
	}
	c.add(wire.InstructionsPath, unix.S_IFREG|0o644, data)
	c.add("TRAILER!!!", 0, nil)
	if c.err == nil {
		c.err = out.Flush()
	}
	if c.err != nil {
		return fmt.Errorf("writing the guest's initramfs: %w", c.err)
	}
	return nil
}

// cpio writes an archive in the format "newc", as the Linux kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst has it. Everything
// belongs to root. The first error stays.
type cpio struct {
	out  io.Writer
	ino  int
	done int64 // bytes
	err  error
}

func (c *cpio) add(name string, mode uint32, data []byte) {
	c.header(name, mode, int64(len(data)), 0, 0)
	c.write(data)
	c.pad()
}

func (c *cpio) device(name string, mode, major, minor uint32) {
	c.header(name, mode, 0, major, minor)
}

func (c *cpio) addFile(name string, f *os.File) {
	info, err := f.Stat()
	if err != nil {
		c.err = err
		return
	}
	c.header(name, unix.S_IFREG|0o755, info.Size(), 0, 0)
	if c.err == nil {
		_, c.err = io.Copy(c.out, io.NewSectionReader(f, 0, info.Size()))
		c.done += info.Size()
	}
	c.pad()
}

func (c *cpio) header(name string, mode uint32, size int64, major, minor uint32) {
	c.ino++
	const links, zero = 1, 0
	c.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.ino, mode, zero, zero, links, zero, size, zero, zero, major, minor, len(name)+1, zero, name))
	c.pad()
}

func (c *cpio) pad() {
	c.write(make([]byte, (4-c.done%4)%4))
}

func (c *cpio) write(p []byte) {
	if c.err == nil {
		_, c.err = c.out.Write(p)
		c.done += int64(len(p))
	}
}
