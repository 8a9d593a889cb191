package target

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/finalize/mounts"
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

// CheckUnlabelled refuses a mount on whose files SELinux stores labels.
func CheckUnlabelled(m mounts.Mount) error {
	if !slices.Contains(strings.Split(m.SuperOptions, ","), "seclabel") { // selinux_sb_show_options of the kernel
		return nil
	}
	options, err := Unlabelled(m.Point)
	if err != nil || len(options) == 0 {
		options = []string{"context=system_u:object_r:unlabeled_t:s0"}
	}
	return &disk.RefusedError{Path: m.Point, Reason: "SELinux is on here, and would store a label of this machine on each file, " +
		"with which the checksums of the repository do not agree; to do: unmount it, and mount it with -o " + options[0]}
}
