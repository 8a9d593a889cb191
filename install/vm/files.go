package vm

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// memory makes a file in memory.
func memory(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a file in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// allocated returns the bytes that a file takes of its file system.
func allocated(f *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("looking at the output: %w", err)
	}
	const unit = 512 // of st_blocks, see stat(2)
	return st.Blocks * unit, nil
}
