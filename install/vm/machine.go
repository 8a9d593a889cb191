package vm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"installer/install/hostprog"
	"installer/install/vm/internal/wire"

	"golang.org/x/sys/unix"
)

// hardware lists the parts of a machine.
type hardware struct {
	accel     Accel
	memory    int64 // bytes
	kernel    *os.File
	initramfs *os.File
	tree      *os.File // nil: there is none
	source    *os.File // describes the disk of the source; nil: there is none
	target    *os.File
	format    Format // of target
	readOnly  bool   // so is target
	block     bool   // target is a block device
	sector    int    // of target, in bytes; 0: QEMU's default
	channel   *os.File
	console   *os.File
	monitor   *os.File
}

// kernelArgs returns the kernel's arguments for a guest that lives for minutes and protects nothing
// from its own programs: auditing and mitigations are off. The words after the two dashes are
// arguments of the first process. The kernel would also pass to it each word without "=" that it
// does not know, so there are only words that every kernel knows.
func kernelArgs() string {
	console := platforms[runtime.GOARCH].console
	args := []string{
		"console=" + console, "loglevel=5", "panic=-1", "rdinit=/init", "random.trust_cpu=on", "mitigations=off",
		"audit=0", "selinux=0", "rcupdate.rcu_expedited=1",
	}
	if runtime.GOARCH == "amd64" {
		// On a busy host emulated timers do not pass the kernel's check of them.
		args = append(args, "earlyprintk="+console, "no_timer_check")
	}
	return strings.Join(append(args, "--", wire.GuestCommand, wire.GuestInit), " ")
}

// args returns QEMU's command line. QEMU inherits every file and opens it again through /proc,
// since most have no name. A failed write stops the machine, and the monitor reports it; the guest
// does not see it. Flushes are ignored: in the end this program makes the whole file durable.
func (m *hardware) args(h *handles) []string {
	args := []string{
		"-machine", platforms[runtime.GOARCH].machine, "-accel", m.accelArg(), "-cpu", "max",
		"-smp", strconv.Itoa(cpus()), "-m", strconv.FormatInt(m.memory>>20, 10) + "M",
		"-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot",
		"-kernel", h.path(m.kernel), "-initrd", h.path(m.initramfs), "-append", kernelArgs(),
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d", h.fd(m.console)), "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", h.fd(m.monitor)), "-mon", "chardev=monitor,mode=control",
		"-device", "virtio-serial-pci",
		"-chardev", fmt.Sprintf("socket,id=channel,fd=%d", h.fd(m.channel)), "-device", "virtserialport,chardev=channel,name=" + wire.Port,
	}
	target := diskArgs(wire.TargetDisk, string(m.format), m.protocol(), h.path(m.target), m.readOnly)
	if m.sector != 0 {
		target[len(target)-1] += fmt.Sprintf(",logical_block_size=%[1]d,physical_block_size=%[1]d", m.sector)
	}
	args = append(args, target...)
	if m.tree != nil {
		args = append(args, diskArgs(wire.TreeDisk, "raw", "file", h.path(m.tree), true)...)
	}
	if m.source != nil {
		args = append(args, diskArgs(wire.SourceDisk, "vmdk", "file", h.path(m.source), true)...)
	}
	return args
}

func (m *hardware) accelArg() string {
	if m.accel == AccelTCG {
		return "tcg,thread=multi"
	}
	return string(m.accel)
}

// protocol returns the block driver of QEMU for the file or device of the target.
func (m *hardware) protocol() string {
	if m.block {
		return "host_device"
	}
	return "file"
}

func diskArgs(name, format, protocol, path string, readOnly bool) []string {
	file, node := "driver="+protocol+",node-name="+name+"-file,filename="+path, "driver="+format+",node-name="+name+",file="+name+"-file"
	if readOnly {
		file, node = file+",read-only=on", node+",read-only=on"
	} else {
		const free = ",discard=unmap,cache.no-flush=on"
		file, node = file+free, node+free+",detect-zeroes=unmap"
	}
	return []string{"-blockdev", file, "-blockdev", node,
		"-device", "virtio-blk-pci,drive=" + name + ",serial=" + name + ",werror=stop,rerror=stop"}
}

// machine is a running QEMU.
type machine struct {
	console chan []byte
	channel chan []byte // lines
	monitor chan []byte // lines
	exit    chan error  // one value, when QEMU is gone
	gone    sync.Once
	ended   error // the value of exit
	kill    func()
	ports   []net.Conn
	said    *hostprog.Tail // messages of QEMU
}

// boot makes the ports of a machine and starts QEMU.
func boot(p programs, m hardware, sources []*os.File) (*machine, error) {
	run := &machine{
		console: make(chan []byte, 16), channel: make(chan []byte, 16), monitor: make(chan []byte, 16),
		exit: make(chan error, 1), said: hostprog.NewTail(4 << 10),
	}
	var inner []*os.File
	defer func() {
		for _, f := range inner {
			f.Close()
		}
	}()
	for _, end := range []**os.File{&m.console, &m.channel, &m.monitor} {
		conn, f, err := port()
		if err != nil {
			run.closePorts()
			return nil, err
		}
		run.ports, inner, *end = append(run.ports, conn), append(inner, f), f
	}
	h := &handles{files: sources} // the descriptor of the source names these by their numbers
	args := m.args(h)
	if err := run.start(p.qemu, h, args); err != nil {
		run.closePorts()
		return nil, err
	}
	go pump(run.ports[0], run.console, readChunk)
	go pump(run.ports[1], run.channel, readLine)
	go pump(run.ports[2], run.monitor, readLine)
	return run, nil
}

// start runs QEMU, on a thread that lives as long as QEMU.
func (m *machine) start(path string, h *handles, args []string) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := hostprog.Command(h.files, path, args...)
		cmd.Stdout, cmd.Stderr = m.said, m.said
		err := cmd.Start()
		if err == nil {
			m.kill = func() { _ = cmd.Process.Kill() }
			// An emulator that aborts would leave a core in the user's directory.
			err = unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
		}
		if err != nil && m.kill != nil {
			m.kill()
			err = errors.Join(err, cmd.Wait())
		}
		started <- err
		if err == nil {
			m.exit <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting QEMU: %w", err)
	}
	return nil
}

// stop kills QEMU and waits for its end.
func (m *machine) stop() error {
	m.kill()
	return m.wait()
}

// wait waits for QEMU's end. It drops the rest of QEMU's output.
func (m *machine) wait() error {
	m.gone.Do(func() {
		m.ended = <-m.exit
		m.closePorts()
		for _, ch := range []chan []byte{m.console, m.channel, m.monitor} {
			for range ch {
			}
		}
	})
	return m.ended
}

func (m *machine) closePorts() {
	for _, conn := range m.ports {
		conn.Close()
	}
}

// port makes a pair of connected sockets: ours, and QEMU's.
func port() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a connection to the virtual machine: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "port"), os.NewFile(uintptr(fds[1]), "port of QEMU")
	defer ours.Close() // FileConn makes a copy
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("making a connection to the virtual machine: %w", err)
	}
	return conn, theirs, nil
}

// pump copies the output of a port to a channel, and closes the channel at its end.
func pump(from io.Reader, out chan<- []byte, read func(*bufio.Reader) ([]byte, error)) {
	defer close(out)
	r := bufio.NewReaderSize(from, 64<<10)
	for {
		data, err := read(r)
		if len(data) > 0 {
			out <- data
		}
		if err != nil {
			return
		}
	}
}

func readChunk(r *bufio.Reader) ([]byte, error) {
	data := make([]byte, 4<<10)
	n, err := r.Read(data)
	return data[:n], err
}

var errLongLine = errors.New("a line is too long")

// readLine reads a whole line. It drops an unfinished last line.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return nil, errLongLine
		case err == nil:
			return line, nil
		case err != bufio.ErrBufferFull:
			return nil, err
		}
	}
}
