package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// memory reads the kernel's memory.
type memory struct {
	program *ebpf.Program
	buffer  *ebpf.Map // one value, which is read into
	each    *ebpf.Map // one value for each processor, see processor
}

// mostBytes is the size of the buffer.
const mostBytes = 64

// request is the context of the program; each field has 8 bytes.
const (
	requestAddress   = 8 * iota // in: where to read
	requestLength               // in
	requestProcessor            // in
	answerTask                  // out: the calling thread
	answerEach                  // out: the processor's value in the map each
	answerStatus                // out: 0, or a negative errno
	requestSize
)

// BPF_F_SLEEPABLE of linux/bpf.h: programs of this type must have it.
const sleepable = 1 << 4

func openMemory() (_ *memory, err error) {
	m := &memory{}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if m.buffer, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: mostBytes, MaxEntries: 1}); err != nil {
		return nil, fmt.Errorf("making a BPF map: %w", err)
	}
	if m.each, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
		return nil, fmt.Errorf("making a BPF map: %w", err)
	}
	spec := &ebpf.ProgramSpec{Type: ebpf.Syscall, Flags: sleepable, License: license, Instructions: m.instructions()}
	if m.program, err = ebpf.NewProgram(spec); err != nil {
		return nil, fmt.Errorf("loading a BPF program: %w", err)
	}
	return m, nil
}

func (m *memory) close() {
	m.program.Close()
	m.buffer.Close()
	m.each.Close()
}

// instructions answers a request.
func (m *memory) instructions() asm.Instructions {
	const context = asm.R6
	first := func(table *ebpf.Map) asm.Instructions { // the arguments of a lookup of key 0
		return asm.Instructions{
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, table.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
		}
	}
	list := asm.Instructions{
		asm.Mov.Reg(context, asm.R1),
		asm.FnGetCurrentTask.Call(),
		asm.StoreMem(context, answerTask, asm.R0, asm.DWord),
	}
	list = append(list, first(m.each)...)
	list = append(list,
		asm.LoadMem(asm.R3, context, requestProcessor, asm.DWord),
		asm.FnMapLookupPercpuElem.Call(),
		asm.StoreMem(context, answerEach, asm.R0, asm.DWord),
	)
	list = append(list, first(m.buffer)...)
	return append(list,
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.LoadMem(asm.R2, context, requestLength, asm.DWord),
		asm.JGT.Imm(asm.R2, mostBytes, "out"),
		asm.LoadMem(asm.R3, context, requestAddress, asm.DWord),
		asm.FnProbeReadKernel.Call(),
		asm.StoreMem(context, answerStatus, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	)
}

// ask runs the program.
func (m *memory) ask(address uint64, length, processor int) (answer []byte, err error) {
	in, answer := make([]byte, requestSize), make([]byte, requestSize)
	ne := binary.NativeEndian
	ne.PutUint64(in[requestAddress:], address)
	ne.PutUint64(in[requestLength:], uint64(length))
	ne.PutUint64(in[requestProcessor:], uint64(processor))
	if _, err := m.program.Run(&ebpf.RunOptions{Context: in, ContextOut: answer}); err != nil {
		return nil, fmt.Errorf("running the BPF program: %w", err)
	}
	return answer, nil
}

// bytes reads a part of the kernel's memory.
func (m *memory) bytes(address uint64, length int) ([]byte, error) {
	answer, err := m.ask(address, length, 0)
	if err != nil {
		return nil, err
	}
	if status := int64(binary.NativeEndian.Uint64(answer[answerStatus:])); status != 0 {
		return nil, fmt.Errorf("reading the kernel's memory: %w", unix.Errno(-status))
	}
	var buffer [mostBytes]byte
	if err := m.buffer.Lookup(uint32(0), buffer[:]); err != nil {
		return nil, fmt.Errorf("reading a BPF map: %w", err)
	}
	return buffer[:length], nil
}

// number reads a number of 1, 2, 4 or 8 bytes.
func (m *memory) number(address uint64, size int) (uint64, error) {
	b, err := m.bytes(address, size)
	if err != nil {
		return 0, err
	}
	switch size {
	case 1, 2, 4, 8:
		return numberIn(b), nil
	}
	return 0, fmt.Errorf("reading the kernel's memory: a number of %d bytes", size)
}

// follow reads pointers: the one at the address, then the one at an offset from where it leads to,
// and so on.
func (m *memory) follow(address uint64, offsets ...uint64) (uint64, error) {
	for _, offset := range offsets {
		next, err := m.number(address+offset, 8)
		if err != nil {
			return 0, err
		}
		if next == 0 {
			return 0, errNoObject
		}
		address = next
	}
	return address, nil
}

// errNoObject says that a pointer leads nowhere.
var errNoObject = errors.New("reading the kernel's memory: a pointer leads nowhere")

// task returns the address of the calling thread's task_struct.
func (m *memory) task() (uint64, error) {
	answer, err := m.ask(0, 0, 0)
	if err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(answer[answerTask:]), nil
}

// ofProcessor returns the address of a processor's value in the map each.
func (m *memory) ofProcessor(n int) (uint64, error) {
	answer, err := m.ask(0, 0, n)
	if err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(answer[answerEach:]), nil
}
