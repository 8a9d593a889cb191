package wholedisk

import (
	"errors"
	"os"
	"path/filepath"
)

// failFast has XFS give up when a write of its metadata fails. It would try again for ever, and an
// unmount, or the end of this process, would wait for it with the file system's lock held, which
// stops every sync(2) of the machine ("XFS Error handling", Documentation/admin-guide/xfs.rst of
// Linux). An installation has nothing to wait for: it fails.
func (d *Disk) failFast(device string) {
	var errs []error
	for _, class := range []string{"default", "EIO", "ENOSPC"} {
		name := filepath.Join("/sys/fs/xfs", device, "error/metadata", class, "max_retries")
		errs = append(errs, os.WriteFile(name, []byte("0"), 0))
	}
	if err := errors.Join(errs...); err != nil {
		d.log.Note("a disk that fails may be waited for instead of given up: %v", err)
	}
}
