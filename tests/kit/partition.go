package kit

import (
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// AddPartition gives a block device a partition, without a partition table, until the end of the
// test. Not every Debian has addpart and delpart.
func AddPartition(t testing.TB, device string, number int, start, size int64) {
	t.Helper()
	blkpg(t, unix.BLKPG_ADD_PARTITION, device, number, start, size)
	t.Cleanup(func() { DeletePartition(t, device, number) })
}

// DeletePartition takes a partition out of the kernel's list.
func DeletePartition(t testing.TB, device string, number int) {
	t.Helper()
	blkpg(t, unix.BLKPG_DEL_PARTITION, device, number, 0, 0)
}

func blkpg(t testing.TB, op int32, device string, number int, start, size int64) {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	part := unix.BlkpgPartition{Start: start, Length: size, Pno: int32(number)}
	arg := unix.BlkpgIoctlArg{Op: op, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part))}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg)))
	runtime.KeepAlive(&part)
	if errno != 0 {
		t.Fatalf("operation %d on partition %d of %s: %v", op, number, device, errno)
	}
}
