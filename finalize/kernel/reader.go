package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// reader reads many places of the kernel's memory at a time. Its programs run in an RCU read-side
// critical section: an object that was in a list when a run began is not freed before the run has
// ended.
type reader struct {
	blocks *ebpf.Program
	chain  *ebpf.Program
	in     *ebpf.Map
	out    *ebpf.Map
	// input has the addresses, output a status byte for each and the bytes that were read; both are
	// the memory of the maps.
	input, output []byte
}

const (
	mostPlaces = 4096 // in a run
	mostBlock  = 256  // bytes at each place
	// mostEntriesRead is how much of a list a run reads.
	mostEntriesRead = mostPlaces * mostBlock / 8
)

// Arguments of the program blocks, in its context; see argument.
const (
	blocksCount = iota
	blocksOffset
	blocksSize
)

// Arguments of the program chain.
const (
	chainFrom = iota
	chainUntil
)

// Answers of the programs, where they are no number of entries.
const (
	failed        = mostEntriesRead + 1 + iota
	chainUnlinked // the first entry has left the list
)

// argument is where the context of a program has its n-th argument.
func argument(n int) int16 { return int16(8 * n) }

func openReader() (_ *reader, err error) {
	r := &reader{}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	for _, m := range []struct {
		table  **ebpf.Map
		memory *[]byte
		size   int
	}{
		{&r.in, &r.input, 8 * mostPlaces},
		{&r.out, &r.output, mostPlaces + mostPlaces*mostBlock},
	} {
		spec := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(m.size), MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE}
		if *m.table, err = ebpf.NewMap(spec); err != nil {
			return nil, fmt.Errorf("making a BPF map: %w", err)
		}
		if *m.memory, err = unix.Mmap((*m.table).FD(), 0, m.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return nil, fmt.Errorf("mapping a BPF map: %w", err)
		}
	}
	for _, p := range []struct {
		program **ebpf.Program
		text    asm.Instructions
	}{{&r.blocks, r.blocksText()}, {&r.chain, r.chainText()}} {
		spec := &ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: license, Instructions: p.text}
		if *p.program, err = ebpf.NewProgram(spec); err != nil {
			return nil, fmt.Errorf("loading a BPF program: %w", err)
		}
	}
	return r, nil
}

func (r *reader) close() {
	r.blocks.Close()
	r.chain.Close()
	for _, memory := range [][]byte{r.input, r.output} {
		if memory != nil {
			unix.Munmap(memory)
		}
	}
	r.in.Close()
	r.out.Close()
}

// Where the programs keep their values on the stack, below the frame of the first function. The
// other function, which bpf_loop calls, has a pointer to the place state.
const (
	stackKey = -8
	state    = -64
)

// Values in the state.
const (
	stateInput = 8 * iota
	stateOutput
	stateSize
	stateOffset
	stateAt
	stateUntil
	stateCount
)

// value is a lookup of the one value of a map, which is always there, and keeps it in the state.
func value(table *ebpf.Map, place int16) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(asm.RFP, stackKey, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, table.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.StoreMem(asm.RFP, state+place, asm.R0, asm.DWord),
	}
}

// keep keeps a value of the context in the state.
func keep(context asm.Register, n int, place int16) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R2, context, argument(n), asm.DWord),
		asm.StoreMem(asm.RFP, state+place, asm.R2, asm.DWord),
	}
}

// loop calls the function step so many times as R1 has, until it returns 1. The verifier wants to
// know the types of both functions.
func loop(first, step asm.Instructions) asm.Instructions {
	number := &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	function := func(name string, linkage btf.FuncLinkage, params ...btf.FuncParam) *btf.Func {
		return &btf.Func{Name: name, Linkage: linkage, Type: &btf.FuncProto{Return: number, Params: params}}
	}
	pointer := &btf.Pointer{Target: &btf.Void{}}
	list := append(first,
		asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R2, Src: asm.PseudoFunc, Constant: -1}.WithReference("step"),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, state),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnLoop.Call(),
		asm.LoadMem(asm.R0, asm.RFP, state+stateCount, asm.DWord),
		asm.Ja.Label("end"),
		asm.Mov.Imm(asm.R0, failed).WithSymbol("out"),
		asm.Return().WithSymbol("end"),
	)
	list[0] = btf.WithFuncMetadata(list[0].WithSymbol("read"), function("read", btf.GlobalFunc, btf.FuncParam{Name: "context", Type: pointer}))
	step[0] = btf.WithFuncMetadata(step[0].WithSymbol("step"), function("step", btf.StaticFunc,
		btf.FuncParam{Name: "index", Type: number}, btf.FuncParam{Name: "state", Type: pointer}))
	return append(append(list, step...),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("stop"),
		asm.Return(),
	)
}

// blocksText reads as many bytes at an offset from each of some addresses.
func (r *reader) blocksText() asm.Instructions {
	const index, state = asm.R6, asm.R7
	first := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	first = append(first, keep(asm.R6, blocksOffset, stateOffset)...)
	first = append(first, keep(asm.R6, blocksSize, stateSize)...)
	first = append(first, keep(asm.R6, blocksCount, stateCount)...)
	first = append(first, value(r.in, stateInput)...)
	first = append(first, value(r.out, stateOutput)...)
	first = append(first, asm.LoadMem(asm.R1, asm.R6, argument(blocksCount), asm.DWord))
	return loop(first, asm.Instructions{
		asm.Mov.Reg(index, asm.R1),
		asm.Mov.Reg(state, asm.R2),
		asm.JGE.Imm(index, mostPlaces, "stop"),
		asm.LoadMem(asm.R2, state, stateSize, asm.DWord),
		asm.JEq.Imm(asm.R2, 0, "stop"),
		asm.JGT.Imm(asm.R2, mostBlock, "stop"),
		asm.LoadMem(asm.R3, state, stateInput, asm.DWord),
		asm.Mov.Reg(asm.R1, index),
		asm.LSh.Imm(asm.R1, 3),
		asm.Add.Reg(asm.R3, asm.R1),
		asm.LoadMem(asm.R3, asm.R3, 0, asm.DWord),
		asm.LoadMem(asm.R1, state, stateOffset, asm.DWord),
		asm.Add.Reg(asm.R3, asm.R1),
		asm.LoadMem(asm.R1, state, stateOutput, asm.DWord),
		asm.Add.Imm(asm.R1, mostPlaces),
		asm.Mov.Reg(asm.R4, index),
		asm.Mul.Reg(asm.R4, asm.R2),
		asm.JGT.Imm(asm.R4, (mostPlaces-1)*mostBlock, "stop"), // Linux 6.1 does not see it by itself
		asm.Add.Reg(asm.R1, asm.R4),
		asm.FnProbeReadKernel.Call(),
		asm.LoadMem(asm.R1, state, stateOutput, asm.DWord),
		asm.Add.Reg(asm.R1, index),
		asm.StoreMem(asm.R1, 0, asm.R0, asm.Byte),
	})
}

// chainText follows a circular list of the kernel's from an entry of it, to another one at most,
// and returns the number of entries that it passed. The first one is in the list: its predecessor
// leads to it.
func (r *reader) chainText() asm.Instructions {
	const index, pointer = asm.R6, asm.R7
	const cell = -16
	follow := func(fault string) asm.Instructions { // the pointer at R3
		return asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.RFP),
			asm.Add.Imm(asm.R1, cell),
			asm.Mov.Imm(asm.R2, 8),
			asm.FnProbeReadKernel.Call(),
			asm.JNE.Imm(asm.R0, 0, fault),
			asm.LoadMem(asm.R3, asm.RFP, cell, asm.DWord),
		}
	}
	first := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	first = append(first, keep(asm.R6, chainFrom, stateAt)...)
	first = append(first, keep(asm.R6, chainUntil, stateUntil)...)
	first = append(first, value(r.out, stateOutput)...)
	first = append(first, asm.LoadMem(asm.R3, asm.RFP, state+stateAt, asm.DWord), asm.Add.Imm(asm.R3, 8))
	first = append(append(first, follow("unlinked")...), follow("unlinked")...)
	first = append(first,
		asm.LoadMem(asm.R1, asm.RFP, state+stateAt, asm.DWord),
		asm.JNE.Reg(asm.R1, asm.R3, "unlinked"),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, state+stateCount, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R1, mostEntriesRead+1), // the last one finds the end
		asm.Ja.Label("walk"),
		asm.Mov.Imm(asm.R0, chainUnlinked).WithSymbol("unlinked"),
		asm.Return(),
		asm.Mov.Reg(asm.R1, asm.R1).WithSymbol("walk"),
	)
	step := asm.Instructions{asm.Mov.Reg(index, asm.R1), asm.Mov.Reg(pointer, asm.R2), asm.LoadMem(asm.R3, pointer, stateAt, asm.DWord)}
	step = append(step, follow("broken")...)
	step = append(step,
		asm.LoadMem(asm.R1, pointer, stateUntil, asm.DWord),
		asm.JEq.Reg(asm.R1, asm.R3, "stop"),
		asm.LoadMem(asm.R1, pointer, stateAt, asm.DWord),
		asm.JEq.Reg(asm.R1, asm.R3, "broken"), // an entry that has left the list leads to itself
		asm.JGE.Imm(index, mostEntriesRead, "stop"),
		asm.LoadMem(asm.R2, pointer, stateOutput, asm.DWord),
		asm.Mov.Reg(asm.R1, index),
		asm.LSh.Imm(asm.R1, 3),
		asm.Add.Reg(asm.R2, asm.R1),
		asm.StoreMem(asm.R2, mostPlaces, asm.R3, asm.DWord),
		asm.StoreMem(pointer, stateAt, asm.R3, asm.DWord),
		asm.Add.Imm(index, 1),
		asm.StoreMem(pointer, stateCount, index, asm.DWord),
		asm.Ja.Label("on"),
		asm.Mov.Imm(asm.R1, failed).WithSymbol("broken"),
		asm.StoreMem(pointer, stateCount, asm.R1, asm.DWord),
		asm.Ja.Label("stop"),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("on"),
	)
	return loop(first, step)
}

// execute runs a program with arguments.
func execute(p *ebpf.Program, arguments ...uint64) (uint32, error) {
	context := make([]byte, 8*len(arguments))
	for i, a := range arguments {
		binary.NativeEndian.PutUint64(context[8*i:], a)
	}
	answer, err := p.Run(&ebpf.RunOptions{Context: context})
	if err != nil {
		return 0, fmt.Errorf("running a BPF program: %w", err)
	}
	return answer, nil
}

// each reads the bytes at an offset from each address, and hands them to visit with the index of
// the address. Where there is no memory at an address it hands nil.
func (r *reader) each(addresses []uint64, offset uint64, size int, visit func(i int, block []byte)) error {
	if size <= 0 || size > mostBlock {
		return fmt.Errorf("reading the kernel's memory: %d bytes at a place", size)
	}
	for begin := 0; begin < len(addresses); begin += mostPlaces {
		part := addresses[begin:min(begin+mostPlaces, len(addresses))]
		for i, a := range part {
			binary.NativeEndian.PutUint64(r.input[8*i:], a)
		}
		n, err := execute(r.blocks, uint64(len(part)), offset, uint64(size))
		if err == nil && n != uint32(len(part)) {
			err = fmt.Errorf("running a BPF program: it answers %d", n)
		}
		if err != nil {
			return err
		}
		for i := range part {
			var block []byte
			if r.output[i] == 0 {
				at := mostPlaces + i*size
				block = r.output[at : at+size]
			}
			visit(begin+i, block)
		}
	}
	return nil
}

// values reads a number at each address; where there is none it is 0.
func (r *reader) values(addresses []uint64, f field) ([]uint64, error) {
	list := make([]uint64, len(addresses))
	err := r.each(addresses, f.offset, f.size, func(i int, block []byte) { list[i] = numberIn(block) })
	return list, err
}

// numberIn is the number in 0, 1, 2, 4 or 8 bytes.
func numberIn(block []byte) uint64 {
	ne := binary.NativeEndian
	switch len(block) {
	case 1:
		return uint64(block[0])
	case 2:
		return uint64(ne.Uint16(block))
	case 4:
		return uint64(ne.Uint32(block))
	case 8:
		return ne.Uint64(block)
	}
	return 0
}

// mostListed bounds a list of the kernel's: there are at most 4 million tasks.
const mostListed = 1 << 22

// list returns the entries of a circular list after head, which must stay in it. An entry that
// leaves the list meanwhile may be among them.
func (r *reader) list(head uint64) ([]uint64, error) {
	var list []uint64
	for steps := 0; steps < mostListed; steps += mostEntriesRead {
		from := head
		if len(list) > 0 {
			from = list[len(list)-1]
		}
		n, err := execute(r.chain, from, head)
		switch {
		case err != nil:
			return nil, err
		case n == chainUnlinked && len(list) > 0:
			list = list[:len(list)-1] // go on at the one before
			continue
		case n >= failed:
			return nil, fmt.Errorf("reading a list of the kernel's: %w", errChanged)
		}
		for i := range int(n) {
			list = append(list, binary.NativeEndian.Uint64(r.output[mostPlaces+8*i:]))
		}
		if n < mostEntriesRead {
			return list, nil
		}
	}
	return nil, errors.New("reading a list of the kernel's: it does not end")
}

// license of the programs: the helpers that read the kernel's memory ask for one that is compatible
// with the GPL.
const license = "Dual MIT/GPL"
