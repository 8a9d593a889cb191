package guest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"installer/install/hostprog"

	"installer/install/vm/internal/wire"

	"golang.org/x/sys/unix"
)

// container runs the installer in a root made of the image, or in an empty root.
type container struct {
	Tree      uint64            `json:"tree"` // device number of the disk with the tree; 0 is none
	Argv      []string          `json:"argv"` // the installer's, its own name included
	SourceDir bool              `json:"source_dir"`
	Files     map[string][]byte `json:"files"`
}

// prepare waits for the disks and makes nodes for them.
func prepare(todo *wire.Instructions, events *uevents) (*container, error) {
	c := &container{SourceDir: todo.SourceDir, Files: todo.Files, Argv: todo.Argv}
	for serial, node := range todo.Nodes {
		number, err := events.disk(serial)
		if err != nil {
			return nil, err
		}
		if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(number)); err != nil {
			return nil, fmt.Errorf("making the device node %s: %w", node, err)
		}
	}
	if !todo.Tree {
		return c, nil
	}
	var err error
	c.Tree, err = events.disk(wire.TreeDisk)
	return c, err
}

// exeFD is the descriptor of the installer's program in the container's process: the first extra
// file of os/exec.
const exeFD = 3

// errorLimit is the number of bytes that the host gets of the end of the installer's error output.
const errorLimit = 8 << 10

// run starts the container and passes on the output of the installer.
func (c *container) run(out *channel) (*wire.Exit, error) {
	spec, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("describing the container: %w", err)
	}
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("opening the installer's program: %w", err)
	}
	defer exe.Close()
	errText := hostprog.NewTail(errorLimit)
	cmd := exec.Command("/proc/self/exe", wire.GuestCommand, wire.GuestContainer, string(spec))
	cmd.ExtraFiles = []*os.File{exe}
	cmd.Stderr = io.MultiWriter(os.Stderr, errText)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe for the container: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the container: %w", err)
	}
	passErr := pass(stdout, out)
	err = cmd.Wait()
	if ended := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ended) {
		return nil, fmt.Errorf("waiting for the container: %w", err)
	}
	exit := &wire.Exit{Status: cmd.ProcessState.ExitCode(), Error: errText.String()}
	if exit.Status < 0 {
		exit.Error = strings.TrimSpace(fmt.Sprintf("the installer ended by %v\n%s", cmd.ProcessState, exit.Error))
	}
	return exit, passErr
}

// pass sends every line of JSON to the host until the installer ends, and other lines to the
// console.
func pass(from io.Reader, out *channel) error {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		line = bytes.TrimSpace(line)
		switch {
		case len(line) > 0 && json.Valid(line):
			if err := out.send(wire.Message{Line: line}); err != nil {
				return err
			}
		case len(line) > 0:
			fmt.Fprintf(os.Stderr, "%s\n", line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the installer's events: %w", err)
		}
	}
}

// Container runs in the process that run starts, the first of its namespaces: it makes the image's
// tree its root and becomes the installer. It returns only on an error.
func Container(spec string) error {
	var c container
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return fmt.Errorf("reading the description of the container: %w", err)
	}
	if err := c.enter(); err != nil {
		return err
	}
	unix.CloseOnExec(exeFD)
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "TMPDIR=/run"}
	err := unix.Exec(fmt.Sprintf("/proc/self/fd/%d", exeFD), c.Argv, env)
	return fmt.Errorf("executing the installer in the container: %w", err)
}

// enter makes the tree the root of this mount namespace and unmounts the initramfs. pivot_root(2)
// cannot replace the initramfs itself, so it replaces a bind mount of it.
func (c *container) enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cutting the container's mounts off: %w", err)
	}
	base := "/" + wire.BaseDir
	if err := mountAll([]mount{{"/", base, "", unix.MS_BIND, ""}}); err != nil {
		return err
	}
	if err := errors.Join(unix.Chroot(base), unix.Chdir("/")); err != nil {
		return fmt.Errorf("entering %s: %w", base, err)
	}
	root := "/" + wire.NewRootDir
	if err := c.furnish(root); err != nil {
		return err
	}
	if err := c.place(root + wire.FilesDir); err != nil {
		return err
	}
	const old = "/run/initramfs"
	if err := os.Mkdir(root+old, 0o700); err != nil {
		return fmt.Errorf("making a place for the old root: %w", err)
	}
	if err := unix.PivotRoot(root, root+old); err != nil {
		return fmt.Errorf("making the image's tree the root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("entering the image's tree: %w", err)
	}
	if err := unix.Unmount(old, 0); err != nil {
		return fmt.Errorf("unmounting the old root: %w", err)
	}
	return os.Remove(old)
}

// furnish mounts the root, and the usual mounts of a container in it.
func (c *container) furnish(root string) error {
	tree, err := c.mountRoot(root)
	if err != nil {
		return err
	}
	if err := requireDirs(root, "proc", "sys", "dev", "run"); err != nil {
		return err
	}
	const own = unix.MS_NOSUID | unix.MS_NODEV
	list := []mount{
		{"proc", root + "/proc", "proc", own | unix.MS_NOEXEC, ""},
		{"sysfs", root + "/sys", "sysfs", own | unix.MS_NOEXEC, ""},
		{"devtmpfs", root + "/dev", "devtmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, ""},
		{"tmpfs", root + "/run", "tmpfs", own, "mode=0755"},
	}
	if requireDirs(root, "tmp") == nil { // in some images it is a link to a place of the host's
		list = append(list, mount{"tmpfs", root + "/tmp", "tmpfs", own, "mode=1777"})
	}
	if c.SourceDir {
		tree.target = root + wire.SourceDir
		list = append(list, tree)
	}
	return mountAll(list)
}

// mountRoot mounts the image's tree, or else a root that has only the directories for the mounts of
// furnish.
func (c *container) mountRoot(root string) (mount, error) {
	if c.Tree == 0 {
		empty := mount{"tmpfs", root, "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755,size=1m"}
		if err := mountAll([]mount{empty}); err != nil {
			return empty, err
		}
		for _, dir := range []string{"proc", "sys", "dev", "run", "tmp"} {
			if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
				return empty, fmt.Errorf("making the container's root: %w", err)
			}
		}
		return empty, nil
	}
	// /dev of the initramfs is not in reach any more.
	const node = "/tree-device"
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(c.Tree)); err != nil {
		return mount{}, fmt.Errorf("making a node for the disk of the image's tree: %w", err)
	}
	tree := mount{node, root, "erofs", unix.MS_RDONLY, ""}
	return tree, mountAll([]mount{tree})
}

// place writes the files for the installer to a directory of the container's /run.
func (c *container) place(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("making a place for files: %w", err)
	}
	for name, data := range c.Files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), data, 0o600); err != nil {
			return fmt.Errorf("placing a file for the installer: %w", err)
		}
	}
	return nil
}

// requireDirs refuses anything but plain directories: the tree is not the root yet, so a link in it
// would lead out of it.
func requireDirs(root string, names ...string) error {
	for _, name := range names {
		info, err := os.Lstat(filepath.Join(root, name))
		if err == nil && !info.IsDir() {
			err = errors.New("it is no directory")
		}
		if err != nil {
			return fmt.Errorf("the image cannot be a container's root: /%s: %w", name, err)
		}
	}
	return nil
}
