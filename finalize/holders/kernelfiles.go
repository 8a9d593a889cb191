package holders

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// withInstance mounts a file system of the kernel's that has one instance only, attached nowhere,
// and hands its directory to use. Nothing is seen of it outside. It does nothing where the kernel
// does not have the file system.
func (s *scan) withInstance(fsType string, use func(dir int) error) {
	err := instance(fsType, use)
	if err != nil && !errors.Is(err, unix.ENODEV) && !gone(err) {
		s.cannot(fsType, "the kernel", err)
	}
}

func instance(fsType string, use func(dir int) error) error {
	context, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return err
	}
	dir, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return use(dir)
}

// findBinfmt finds interpreters that binfmt_misc keeps open (flag F).
func findBinfmt(_ context.Context, s *scan) error {
	s.withInstance("binfmt_misc", func(dir int) error {
		names, err := entryNames(dir)
		if err != nil {
			return err
		}
		var file procFile
		for _, name := range names {
			text, err := file.read(dir, name)
			if err != nil || name == "status" || name == "register" {
				continue // register cannot be read
			}
			if path := keptInterpreter(string(text)); path != "" && s.pathOnTarget(path) {
				s.add(Holder{Class: Binfmt, Path: path,
					Evidence: fmt.Sprintf("binfmt_misc/%s: interpreter %s, flag F", name, path),
					Remedy:   fmt.Sprintf("remove the entry: echo -1 > /proc/sys/fs/binfmt_misc/%s", name)})
			}
		}
		return nil
	})
	return nil
}

func entryNames(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var names []string
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			return names, err
		}
		eachRecord(buf[:n], func(name []byte) {
			if len(name) > 0 && name[0] != '.' {
				names = append(names, string(name))
			}
		})
	}
}

// keptInterpreter returns the interpreter of a binfmt_misc entry with the flag F, see the kernel's
// documentation of binfmt_misc; empty without it.
func keptInterpreter(text string) string {
	var interpreter string
	kept := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if path, ok := strings.CutPrefix(line, "interpreter "); ok {
			interpreter = path
		}
		if flags, ok := strings.CutPrefix(line, "flags: "); ok {
			kept = strings.Contains(flags, "F")
		}
	}
	if !kept {
		return ""
	}
	return interpreter
}

// findUprobes finds probes on files of the target, as tracefs lists them.
func findUprobes(_ context.Context, s *scan) error {
	s.withInstance("tracefs", func(dir int) error {
		var file procFile
		text, err := file.read(dir, "uprobe_events")
		if err != nil {
			return err
		}
		for line := range bytes.Lines(text) {
			probe := parseUprobe(strings.TrimSuffix(string(line), "\n"))
			if probe.path != "" && s.pathOnTarget(probe.path) {
				s.add(Holder{Class: Uprobe, Path: probe.path, Evidence: "uprobe_events: " + probe.line,
					Remedy: fmt.Sprintf("remove the probe: echo -:%s >> /sys/kernel/tracing/uprobe_events", probe.event)})
			}
		}
		return nil
	})
	return nil
}

type uprobe struct{ event, path, line string }

// parseUprobe reads "p:group/event /path:0x1000 ...", see the kernel's documentation of uprobe
// tracing.
func parseUprobe(line string) uprobe {
	kind, rest, _ := strings.Cut(line, " ")
	_, event, _ := strings.Cut(kind, ":")
	end := strings.LastIndex(rest, ":0x")
	if end < 0 || event == "" {
		return uprobe{}
	}
	return uprobe{event: event, path: rest[:end], line: line}
}
