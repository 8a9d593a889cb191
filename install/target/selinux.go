package target

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/disk/mounts"
)

// labelAttribute holds a file's SELinux label.
const labelAttribute = "security.selinux"

// Unlabelled returns the mount options with which SELinux stores no label on the files of a new
// file system, none where this machine labels nothing. A stored label would be a part of every
// object of a repository, whose checksums were computed without it. dir is a directory whose label
// the files seem to have as long as they are mounted.
func Unlabelled(dir string) ([]string, error) {
	label := make([]byte, 4096)
	n, err := unix.Lgetxattr(dir, labelAttribute, label)
	options, err := contextOption(string(label[:max(n, 0)]), err)
	if err != nil {
		return nil, fmt.Errorf("finding out whether SELinux labels files on this machine, from the label of %s: %w", dir, err)
	}
	return options, nil
}

// LabelsFiles reports whether SELinux labels files on this machine. A file of /proc has no label
// but one of SELinux's own making.
func LabelsFiles() (bool, error) {
	options, err := Unlabelled("/proc/self/maps")
	return len(options) > 0, err
}

// contextOption chooses by the label of a directory. The kernel answers with one only while a
// policy is loaded.
func contextOption(label string, err error) ([]string, error) {
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
		return nil, nil
	case err != nil:
		return nil, err
	}
	label = strings.TrimRight(label, "\x00")
	if label == "" {
		return nil, errors.New("it is empty")
	}
	return []string{"context=" + label}, nil
}

// CheckMount refuses a mount that stores other SELinux labels than those of the new system: none of
// them, or those of this machine. labelled says whether the new system has any.
func CheckMount(m mounts.Mount, labelled bool) error {
	options := strings.Split(m.SuperOptions, ",")
	stores := slices.Contains(options, "seclabel") // selinux_sb_show_options of the kernel
	given := slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "context=") })
	switch {
	case labelled && given:
		return &disk.RefusedError{Path: m.Point, Reason: "it is mounted with context=, and stores no SELinux labels, which the image's files have; " +
			"to do: unmount it, and mount it without that option; or install without labels (--disable-selinux)"}
	case labelled || !stores:
		return nil
	}
	unlabelled, err := Unlabelled(m.Point)
	if err != nil || len(unlabelled) == 0 {
		unlabelled = []string{"context=system_u:object_r:unlabeled_t:s0"}
	}
	return &disk.RefusedError{Path: m.Point, Reason: "SELinux is on here, and would store a label of this machine on each file, " +
		"with which the checksums of the repository do not agree; to do: unmount it, and mount it with -o " + unlabelled[0]}
}

// LabelError reports that this process may not give files the labels of another system.
type LabelError struct {
	Label   string
	Process string // its own label
	Err     error
}

// Error implements error.
func (e *LabelError) Error() string {
	return fmt.Sprintf("SELinux on this machine refuses this process (%s) the label %s of the image's policy: %v", e.Process, e.Label, e.Err)
}

// Unwrap returns the cause.
func (e *LabelError) Unwrap() error { return e.Err }

// Advice names the remedies.
func (e *LabelError) Advice() string {
	return "run the installer in a domain that may set labels unknown to the running policy (permission mac_admin of capability2): " +
		"give a copy of it the type install_exec_t (chcon) and run that, or in podman --security-opt label=type:install_t; " +
		"or use installer build, whose virtual machine has no policy; or install without labels (--disable-selinux)"
}

// CheckLabels makes sure that this process may set these labels, on a file of a file system of its
// own that is never attached to a directory.
func CheckLabels(labels []string) error {
	file, err := scratchFile()
	if err != nil {
		return fmt.Errorf("trying whether SELinux lets labels be set: %w", err)
	}
	defer unix.Close(file)
	for _, label := range labels {
		if err := unix.Fsetxattr(file, labelAttribute, append([]byte(label), 0), 0); err != nil {
			process, _ := os.ReadFile("/proc/self/attr/current") // for the message alone
			return &LabelError{Label: label, Process: strings.TrimRight(string(process), "\x00\n"), Err: err}
		}
	}
	return nil
}

// scratchFile makes a file on a new tmpfs, which goes with the file.
func scratchFile() (fd int, err error) {
	made, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("making a tmpfs: %w", err)
	}
	defer unix.Close(made)
	if err := unix.FsconfigCreate(made); err != nil {
		return -1, fmt.Errorf("making a tmpfs: %w", err)
	}
	mount, err := unix.Fsmount(made, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("making a tmpfs: %w", err)
	}
	defer unix.Close(mount)
	fd, err = unix.Openat(mount, "file", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, fmt.Errorf("making a file on a tmpfs: %w", err)
	}
	return fd, nil
}
