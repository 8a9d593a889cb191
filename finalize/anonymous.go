package finalize

import (
	"errors"
	"fmt"

	"installer/disk/block"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// mostNumbers bounds how many free device numbers are tried.
const mostNumbers = 1024

// errNumberTaken says that a device number still belongs to a file system.
var errNumberTaken = errors.New("the kernel has not given its device number up")

// numberGivenUp proves that a superblock without a block device is gone. The kernel gives each such
// superblock a device number of its own, and gives the number to the next one when the superblock is
// freed: a new tmpfs that gets the number is the proof. The new ones are attached nowhere, and are
// kept until the number has come, as the kernel gives the lowest first.
func numberGivenUp(number mounts.DevNum) (err error) {
	var kept []int
	defer func() {
		for _, fd := range kept {
			unix.Close(fd)
		}
	}()
	for range mostNumbers {
		fd, err := newTmpfs()
		if err != nil {
			return fmt.Errorf("asking for the device number %s: %w", number, err)
		}
		kept = append(kept, fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("asking for the device number %s: %w", number, err)
		}
		switch n := (block.Split(st.Dev)); {
		case n == number:
			return nil
		case n.Minor > number.Minor:
			return errNumberTaken
		}
	}
	return fmt.Errorf("asking for the device number %s: more than %d lower ones are free", number, mostNumbers)
}
