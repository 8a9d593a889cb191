package kernel

import (
	"bytes"
	"fmt"
	"slices"
)

// thread is a thread of a process, of whatever PID namespace, as it was when it was read.
type thread struct {
	at, started                  uint64
	process, id                  int // as the first PID namespace numbers them
	files, fs, space, namespaces uint64
	pid, flags                   uint64
}

// kernelThread is PF_KTHREAD of linux/sched.h. The other flags change all the time.
const kernelThread = 0x200000

// tasks reads the threads of all processes.
type tasks struct {
	*tables
	// level is how deep the own PID namespace is below the first one, namespace its address.
	level     int
	namespace uint64
}

// leaders returns the addresses of the first threads of all processes.
func (k *tasks) leaders() ([]uint64, error) {
	own, err := k.memory.task()
	if err != nil {
		return nil, err
	}
	leader, err := k.memory.follow(own, k.task.leader.offset)
	if err != nil {
		return nil, err
	}
	list, err := k.reader.list(leader + k.task.next.offset)
	for i := range list {
		list[i] -= k.task.next.offset
	}
	return append(list, leader), err
}

// countProcesses counts the processes that are none of the kernel's own.
func (k *tasks) countProcesses() (int, error) {
	leaders, err := k.leaders()
	if err != nil {
		return 0, err
	}
	flags, err := k.reader.values(leaders, k.task.flags)
	count := 0
	for _, f := range flags {
		if f&kernelThread == 0 {
			count++
		}
	}
	return count, err
}

// threads reads all threads of the machine but the kernel's own, each process's first one before its
// others. It returns the first threads of those processes apart whose threads changed each time that
// they were read.
func (k *tasks) threads() (list, changed []thread, err error) {
	leaders, err := k.leaders()
	if err != nil {
		return nil, nil, err
	}
	all, err := k.readThreads(leaders)
	if err != nil {
		return nil, nil, err
	}
	others, changed, err := k.otherThreads(all)
	if err != nil {
		return nil, nil, err
	}
	more, err := k.readThreads(others)
	return slices.DeleteFunc(append(all, more...), thread.ofKernel), changed, err
}

// ofKernel reports whether it is a thread of the kernel's, which uses nothing in the way of a
// process.
func (t thread) ofKernel() bool {
	return t.flags != 0
}

// otherThreads returns the threads that are not the first of their process, see threads.
func (k *tasks) otherThreads(leaders []thread) (others []uint64, changed []thread, err error) {
	signals, err := k.reader.values(column(leaders, func(t thread) uint64 { return t.at }), k.task.signal)
	if err != nil {
		return nil, nil, err
	}
	counts, err := k.reader.values(signals, k.task.threadCount)
	if err != nil {
		return nil, nil, err
	}
	for i, leader := range leaders {
		if signals[i] == 0 || counts[i] < 2 {
			continue
		}
		head := signals[i] + k.task.threads.offset
		entries, err := k.reader.list(head)
		if err != nil {
			changed = append(changed, leader)
			continue
		}
		for _, at := range entries {
			if at -= k.task.thread.offset; at != leader.at {
				others = append(others, at)
			}
		}
	}
	return others, changed, nil
}

// readThreads reads the fields of threads.
func (k *tasks) readThreads(at []uint64) ([]thread, error) {
	list := make([]thread, len(at))
	for i := range list {
		list[i].at = at[i]
	}
	for _, column := range []struct {
		f   field
		set func(*thread, uint64)
	}{
		{k.task.started, func(t *thread, n uint64) { t.started = n }},
		{k.task.process, func(t *thread, n uint64) { t.process = int(n) }},
		{k.task.id, func(t *thread, n uint64) { t.id = int(n) }},
		{k.task.files, func(t *thread, n uint64) { t.files = n }},
		{k.task.fs, func(t *thread, n uint64) { t.fs = n }},
		{k.task.space, func(t *thread, n uint64) { t.space = n }},
		{k.task.namespaces, func(t *thread, n uint64) { t.namespaces = n }},
		{k.task.flags, func(t *thread, n uint64) { t.flags = n & kernelThread }},
		{k.task.pid, func(t *thread, n uint64) { t.pid = n }},
	} {
		err := k.reader.each(at, column.f.offset, column.f.size, func(i int, block []byte) { column.set(&list[i], numberIn(block)) })
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// numbering finds the own PID namespace, and how deep it is below the first one.
func (k *tasks) numbering() error {
	own, err := k.memory.task()
	if err != nil {
		return err
	}
	pid, err := k.memory.follow(own, k.task.pid.offset)
	if err != nil {
		return err
	}
	level, err := k.memory.number(pid+k.task.level.offset, k.task.level.size)
	if err != nil {
		return err
	}
	k.level = int(level)
	k.namespace, err = k.memory.number(pid+k.numberAt(k.level)+k.task.numbered.offset, 8)
	return err
}

// numberAt is where a struct pid has the number in a namespace.
func (k *tasks) numberAt(level int) uint64 {
	return k.task.numbers.offset + uint64(level*k.task.numberSize)
}

// here returns the number of a thread in the own PID namespace, 0 if it has none.
func (k *tasks) here(t thread) (int, error) {
	level, err := k.memory.number(t.pid+k.task.level.offset, k.task.level.size)
	if err != nil || int(level) < k.level {
		return 0, err
	}
	at := t.pid + k.numberAt(k.level)
	namespace, err := k.memory.number(at+k.task.numbered.offset, 8)
	if err != nil || namespace != k.namespace {
		return 0, err
	}
	n, err := k.memory.number(at, 4)
	return int(n), err
}

// command returns the name of a thread's program.
func (k *tasks) command(t thread) (string, error) {
	text, err := k.memory.bytes(t.at+k.task.name.offset, k.task.name.size)
	if err != nil {
		return "", fmt.Errorf("reading the name of process %d: %w", t.process, err)
	}
	name, _, _ := bytes.Cut(text, []byte{0})
	return string(name), nil
}
