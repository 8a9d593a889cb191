package tests

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"installer/tests/layout"
)

// loopDevice makes a file look like a whole disk until the test ends.
func loopDevice(t *testing.T, raw string) string {
	t.Helper()
	info, err := os.Stat(raw)
	must(t, err)
	dev, err := attach(raw, os.O_RDWR, 0, info.Size())
	must(t, err)
	t.Cleanup(func() { must(t, dev.Close()) })
	return dev.Name()
}

// scanPartitions makes a loop device one that has partitions, as losetup --partscan does.
func scanPartitions(t *testing.T, device string) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	must(t, err)
	info.Flags |= unix.LO_FLAGS_PARTSCAN
	must(t, unix.IoctlLoopSetStatus64(int(f.Fd()), info))
}

// partitionNode makes a node of a partition that the kernel knows: nobody may run here who does.
func partitionNode(t *testing.T, device string, number int) string {
	t.Helper()
	name := fmt.Sprintf("%sp%d", filepath.Base(device), number)
	b, err := os.ReadFile(filepath.Join("/sys/class/block", name, "dev"))
	must(t, err)
	var major, minor uint32
	_, err = fmt.Sscanf(strings.TrimSpace(string(b)), "%d:%d", &major, &minor)
	must(t, err)
	node := filepath.Join(t.TempDir(), name)
	must(t, unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))))
	return node
}

// swapoff undoes a test's change, after its context has ended.
func swapoff(t *testing.T, device string) {
	t.Helper()
	_, err := command(context.Background(), "swapoff", device)
	must(t, err)
}

// ownLayout copies the small image's layout, so that it can be spoiled.
func ownLayout(t *testing.T) (string, v1.Manifest) {
	t.Helper()
	src, _ := splitRef(TinyImage(t))
	dir := filepath.Join(t.TempDir(), "oci")
	mustCommand(t, "cp", "-r", src, dir)
	_, manifest, _, err := layout.Read(dir)
	must(t, err)
	return dir, manifest
}
