package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"installer/disk/fsinfo"
)

// VerityError says that files of a file system cannot have fs-verity, which the image demands.
type VerityError struct {
	Filesystem Filesystem
	Device     string // of a file system that is made already, "" of one that is to be made
	Kernel     bool   // the running kernel is the reason
	Err        error  // why that cannot be told
}

func (e *VerityError) Error() string {
	text := "the image demands fs-verity of its files (prepare-root.conf, composefs.enabled), and "
	switch {
	case e.Err != nil:
		return fmt.Sprintf("%swhether this kernel has it for %s is unknown: %v", text, e.Filesystem, e.Err)
	case e.Kernel:
		return fmt.Sprintf("%sthis kernel has none for %s (CONFIG_FS_VERITY); to do: use installer build, whose virtual machine runs the image's kernel, or a machine whose kernel has it",
			text, e.Filesystem)
	case e.Device != "" && e.Filesystem == Ext4:
		return fmt.Sprintf("%sthe ext4 on %s lacks that feature, or blocks of 4 KiB; to do: tune2fs -O verity %s, or mkfs.ext4 -b 4096 -O verity",
			text, e.Device, e.Device)
	case e.Device != "":
		return fmt.Sprintf("%sthe %s on %s lacks that feature; to do: make an ext4 with -b 4096 -O verity, or a btrfs", text, e.Filesystem, e.Device)
	}
	return fmt.Sprintf("%s%s has none; to do: --filesystem ext4, or --filesystem btrfs", text, e.Filesystem)
}

func (e *VerityError) Unwrap() error { return e.Err }

// CheckVerity refuses a file system that no fs-verity is made for; the error is a [*VerityError].
func (f Filesystem) CheckVerity() error {
	if f == XFS { // no released version of mkfs.xfs makes one that has it
		return &VerityError{Filesystem: f}
	}
	return nil
}

// CheckKernelVerity asks the running kernel whether files of the file system can have fs-verity;
// the error is a [*VerityError]. The module of the file system is loaded if it is not.
func (f Filesystem) CheckKernelVerity() error {
	context, err := unix.Fsopen(string(f), unix.FSOPEN_CLOEXEC)
	if err == nil {
		err = unix.Close(context)
	}
	if err != nil {
		return &VerityError{Filesystem: f, Kernel: true, Err: err}
	}
	features := "/sys/fs/" + string(f) + "/features"
	if _, err := os.Stat(features); err != nil {
		return &VerityError{Filesystem: f, Kernel: true, Err: err}
	}
	switch _, err := os.Stat(features + "/verity"); {
	case errors.Is(err, fs.ErrNotExist):
		return &VerityError{Filesystem: f, Kernel: true}
	case err != nil:
		return &VerityError{Filesystem: f, Kernel: true, Err: err}
	}
	return nil
}

// CheckMadeVerity refuses a file system that is made already, and lacks what fs-verity needs; the
// error is a [*VerityError].
func CheckMadeVerity(device string, s fsinfo.Superblock) error {
	if !s.Verity() {
		return &VerityError{Filesystem: Filesystem(s.Type), Device: device}
	}
	return nil
}
