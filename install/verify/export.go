package verify

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"installer/disk/mounts"
	"installer/install/hostprog"
)

// ImageOpener opens the content of a qcow2, as a machine sees it, without a copy. The file is
// closed before release is called.
type ImageOpener func(ctx context.Context, qcow2 *os.File) (disk *os.File, release func() error, err error)

// storageDaemon is the program that serves a qcow2 as a raw file (QEMU's qemu-storage-daemon(1),
// export type fuse).
const storageDaemon = "qemu-storage-daemon"

// OpenImage is an [ImageOpener] for root. It takes QEMU's storage daemon, and a kernel with FUSE.
func (m Mounter) OpenImage(ctx context.Context, qcow2 *os.File) (disk *os.File, release func() error, err error) {
	var held acquired
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("serving %s as a raw file: %w", qcow2.Name(), err), held.release())
		}
	}()
	if err := m.openWorkDir(&held); err != nil {
		return nil, nil, err
	}
	point := filepath.Join(m.WorkDir, "disk")
	if err := os.WriteFile(point, nil, 0o600); err != nil {
		return nil, nil, err
	}
	d, err := startDaemon(ctx, qcow2, point)
	if err != nil {
		return nil, nil, err
	}
	held.add(d.stop)
	// Once the mount is gone the daemon has nothing to do any more, and undoes nothing by itself.
	held.add(func() error { return unmount(point) })
	if at, err := mounts.At(point); err != nil || !strings.HasPrefix(at.FSType, "fuse") {
		return nil, nil, errors.Join(errors.New("the storage daemon mounted nothing"), err)
	}
	disk, err = os.Open(point)
	return disk, held.release, err
}

// daemon is a storage daemon that serves.
type daemon struct {
	process *os.Process
	ended   chan error
}

// startDaemon starts the daemon from a thread that lives as long as it does: the kernel kills it
// when that ends.
func startDaemon(ctx context.Context, qcow2 *os.File, point string) (*daemon, error) {
	path, err := hostprog.Find(storageDaemon)
	if err != nil {
		return nil, err
	}
	cmd := hostprog.Command([]*os.File{qcow2}, path,
		"--blockdev", "driver=file,node-name=file,filename=/proc/self/fd/3,read-only=on", // the first extra file
		"--blockdev", "driver=qcow2,node-name=disk,file=file,read-only=on",
		"--export", "type=fuse,id=disk,node-name=disk,writable=off,mountpoint="+strings.ReplaceAll(point, ",", ",,"),
		"--chardev", "stdio,id=monitor", "--monitor", "chardev=monitor") // greets when all before it is done
	said := hostprog.NewTail(4 << 10)
	cmd.Stderr = said
	if _, err := cmd.StdinPipe(); err != nil { // kept open: its end would be the daemon's
		return nil, err
	}
	greeting, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			<-started // until the greeting has been read: Wait closes the pipe
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	d := &daemon{process: cmd.Process, ended: ended}
	giveUp := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	_, err = bufio.NewReader(greeting).ReadString('\n')
	giveUp()
	close(started)
	if err != nil {
		err = errors.Join(d.stop(), fmt.Errorf("%s ended: %s", storageDaemon, said), context.Cause(ctx))
		return nil, err
	}
	return d, nil
}

// stop kills the daemon, which only reads, and waits for its end.
func (d *daemon) stop() error {
	if err := d.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending %s: %w", storageDaemon, err)
	}
	<-d.ended // by the signal, or by an error of its own
	return nil
}
