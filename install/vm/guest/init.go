package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"installer/install/vm/internal/wire"

	"golang.org/x/sys/unix"
)

// Init runs as the guest's first process. It returns only on an error, and the kernel then panics.
func Init() error {
	if os.Getpid() != 1 {
		return errors.New("this command is the first process of a virtual machine, and nothing else")
	}
	var out *channel
	exit, err := work(&out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "installer: guest:", err)
		exit = &wire.Exit{Status: -1, Error: err.Error()}
	}
	if out != nil {
		if err := out.close(wire.Message{Exit: exit}); err != nil {
			fmt.Fprintln(os.Stderr, "installer: guest:", err)
		}
	}
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// work carries out the instructions. It sets out as soon as the channel is open.
func work(out **channel) (*wire.Exit, error) {
	if err := mountAll(initMounts); err != nil {
		return nil, err
	}
	todo, err := readInstructions()
	if err != nil {
		return nil, err
	}
	events, err := listen()
	if err != nil {
		return nil, err
	}
	defer events.close()
	if err := loadModules(todo.Modules); err != nil {
		return nil, err
	}
	if *out, err = openChannel(events); err != nil {
		return nil, err
	}
	if err := (*out).send(wire.Message{Phase: wire.PhaseDevices}); err != nil {
		return nil, err
	}
	c, err := prepare(todo, events)
	if err != nil {
		return nil, err
	}
	if err := (*out).send(wire.Message{Phase: wire.PhaseInstaller}); err != nil {
		return nil, err
	}
	return c.run(*out)
}

// mount is one call of mount(2).
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

// initMounts are the mounts of the first process.
var initMounts = []mount{
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755"},
}

func mountAll(list []mount) error {
	for _, m := range list {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("making a mount point: %w", err)
		}
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting %s (%s) on %s: %w", m.source, m.fstype, m.target, err)
		}
	}
	return nil
}

func readInstructions() (*wire.Instructions, error) {
	data, err := os.ReadFile("/" + wire.InstructionsPath)
	if err != nil {
		return nil, fmt.Errorf("reading the instructions: %w", err)
	}
	var todo wire.Instructions
	if err := json.Unmarshal(data, &todo); err != nil {
		return nil, fmt.Errorf("reading the instructions: %w", err)
	}
	return &todo, nil
}

// loadModules loads the modules in their order. For a module that finds no hardware, such as a
// checksum by a CPU's instruction, another one stands in.
func loadModules(names []string) error {
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join("/", wire.ModulesDir, name))
		if err != nil {
			return fmt.Errorf("reading the kernel module %s: %w", name, err)
		}
		err = unix.InitModule(data, "")
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("loading the kernel module %s: %w", name, err)
		}
	}
	return nil
}
