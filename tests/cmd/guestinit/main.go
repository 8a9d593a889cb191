// Command guestinit is the first process of the virtual machines in which the tests run a shell
// script. It loads kernel modules and, if there is one, an SELinux policy; makes the tree on the
// disk "tree" its root, read-only; runs the script there; writes its exit status to the port of the
// script's output; and switches the machine off.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// spec is the file /spec.json of the initramfs, which tests/guest_test.go writes.
type spec struct {
	Modules []string // files in /modules, in the order to load them
	Policy  bool     // load /policy
	Enforce bool
	Systemd bool // the script is a service of systemd, with udevd and logind
	Script  string
	Files   []string // of the initramfs, to be seen in /run/files
}

const (
	outputPort = "/dev/ttyS1"
	newRoot    = "/newroot"
)

func main() {
	status, err := work()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guestinit:", err)
		status = 125
	}
	if out, err := os.OpenFile(outputPort, os.O_WRONLY, 0); err == nil {
		fmt.Fprintf(out, "\nexit status %d\n", status)
		out.Close()
	}
	unix.Sync()
	fmt.Fprintln(os.Stderr, "guestinit:", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func work() (int, error) {
	text, err := os.ReadFile("/spec.json")
	if err != nil {
		return 0, err
	}
	var s spec
	if err := json.Unmarshal(text, &s); err != nil {
		return 0, err
	}
	for _, m := range [][3]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := mount(m[0], m[1], m[0], 0, ""); err != nil {
			return 0, err
		}
	}
	for _, name := range s.Modules {
		data, err := os.ReadFile(filepath.Join("/modules", name))
		if err == nil {
			err = unix.InitModule(data, "")
		}
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			return 0, fmt.Errorf("loading the module %s: %w", name, err)
		}
	}
	if s.Policy {
		if err := loadPolicy(s.Enforce); err != nil {
			return 0, err
		}
	}
	if err := enter(s); err != nil {
		return 0, err
	}
	if s.Systemd {
		return 0, becomeSystemd(s.Script)
	}
	return run(s.Script)
}

// service is the unit of the script. Its output goes where run sends it.
const service = `[Unit]
Wants=systemd-udevd.service systemd-udev-trigger.service systemd-logind.service dbus.service
After=systemd-udevd.service systemd-udev-trigger.service systemd-logind.service dbus.service
[Service]
Type=oneshot
TimeoutStartSec=infinity
Environment=PATH=/run/files:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
ExecStart=/bin/sh -c '{ s=0; /bin/sh -eu /run/guest-script || s=$$?; echo; echo exit status $$s; } 2>&1 | cat >/dev/ttyS1; sync; echo o >/proc/sysrq-trigger'
`

// becomeSystemd makes this process systemd, which starts the service that the kernel's command line
// names.
func becomeSystemd(script string) error {
	for name, text := range map[string]string{"/run/systemd/system/guest.service": service, "/run/guest-script": script} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	return unix.Exec("/usr/lib/systemd/systemd", []string{"systemd"}, []string{"PATH=/usr/sbin:/usr/bin"})
}

// loadPolicy makes this machine one with SELinux. The kernel takes a policy as one write.
func loadPolicy(enforce bool) error {
	if err := mount("selinuxfs", "/sys/fs/selinux", "selinuxfs", 0, ""); err != nil {
		return err
	}
	policy, err := os.ReadFile("/policy")
	if err != nil {
		return err
	}
	if err := os.WriteFile("/sys/fs/selinux/load", policy, 0); err != nil {
		return fmt.Errorf("loading the SELinux policy: %w", err)
	}
	if !enforce {
		return nil
	}
	return os.WriteFile("/sys/fs/selinux/enforce", []byte("1"), 0)
}

// enter makes the tree the root. Nodes of the disks are named by their serial numbers:
// /dev/disk-NAME.
func enter(s spec) error {
	serials, err := filepath.Glob("/sys/block/*/serial")
	if err != nil {
		return err
	}
	for _, file := range serials {
		name, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		disk := filepath.Base(filepath.Dir(file))
		if err := os.Symlink(disk, "/dev/disk-"+strings.TrimSpace(string(name))); err != nil {
			return err
		}
	}
	if err := mount("/dev/disk-tree", newRoot, "erofs", unix.MS_RDONLY, ""); err != nil {
		return err
	}
	for _, m := range [][3]string{{"run", "tmpfs"}, {"tmp", "tmpfs"}, {"var", "tmpfs"}} {
		if err := mount(m[1], filepath.Join(newRoot, m[0]), m[1], 0, "mode=0755"); err != nil {
			return err
		}
	}
	for _, dir := range []string{"proc", "sys", "dev"} {
		if err := mount("/"+dir, filepath.Join(newRoot, dir), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	for _, name := range s.Files {
		to := filepath.Join(newRoot, "run/files", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, nil, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount(filepath.Join("/files", name), to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("showing the file %s: %w", name, err)
		}
	}
	if _, err := os.Lstat("/dev/disk-image"); err == nil {
		if err := mount("/dev/disk-image", filepath.Join(newRoot, "run/image"), "erofs", unix.MS_RDONLY, ""); err != nil {
			return err
		}
	}
	if err := errors.Join(unix.Chdir(newRoot), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/")); err != nil {
		return fmt.Errorf("entering the tree: %w", err)
	}
	return nil
}

func run(script string) (int, error) {
	out, err := os.OpenFile(outputPort, os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd := exec.Command("/bin/sh", "-euc", script)
	pipe := struct{ io.Writer }{out} // a script that runs at a terminal would be asked questions
	cmd.Stdout, cmd.Stderr = pipe, pipe
	cmd.Env = []string{"PATH=/run/files:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", source, target, err)
	}
	return nil
}
