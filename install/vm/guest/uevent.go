package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// uevents are the kernel's announcements of devices (NETLINK_KOBJECT_UEVENT, group 1). Listening
// begins before the modules are loaded, so that no announcement is missed.
type uevents struct{ fd int }

func listen() (*uevents, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listening to the kernel's announcements of devices: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listening to the kernel's announcements of devices: %w", err)
	}
	return &uevents{fd: fd}, nil
}

func (u *uevents) close() { unix.Close(u.fd) }

// await calls look after each announcement until look finds something. It has no time limit: the
// host has one.
func (u *uevents) await(look func() (string, error)) (string, error) {
	buf := make([]byte, 16<<10)
	for {
		found, err := look()
		if err != nil || found != "" {
			return found, err
		}
		_, _, err = unix.Recvfrom(u.fd, buf, 0)
		// ENOBUFS: announcements were lost, so that look is called, too.
		if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			return "", fmt.Errorf("waiting for a device: %w", err)
		}
	}
}

// byAttribute returns a function that finds the node of a device of a class whose attribute has a
// value; "" if there is none yet.
func byAttribute(class, attribute, value string) func() (string, error) {
	return func() (string, error) {
		files, err := filepath.Glob(filepath.Join(class, "*", attribute))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil || strings.TrimSpace(string(text)) != value {
				continue // not every device of a class has the attribute
			}
			node := filepath.Join("/dev", filepath.Base(filepath.Dir(file)))
			if _, err := os.Stat(node); err == nil {
				return node, nil
			}
		}
		return "", nil
	}
}

// disk waits for the disk with a serial number, and returns its device number.
func (u *uevents) disk(serial string) (uint64, error) {
	node, err := u.await(byAttribute("/sys/block", "serial", serial))
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return 0, fmt.Errorf("looking at the disk %s (%s): %w", serial, node, err)
	}
	return st.Rdev, nil
}
