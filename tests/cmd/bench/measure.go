package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// sample is the cost of one run.
type sample struct {
	wall    time.Duration
	cpu     time.Duration // user and system, of the programs; not of the kernel's own threads
	maxRSS  int64         // bytes, of the largest program
	written int64         // bytes, to the loop devices of the disk
}

// meter runs programs and adds up their cost.
type meter struct {
	ctx    context.Context
	total  sample
	output bytes.Buffer
}

// run runs a program to its end. Its output is in the error.
func (m *meter) run(name string, args ...string) error {
	cmd := exec.CommandContext(m.ctx, name, args...)
	m.output.Reset()
	cmd.Stdout, cmd.Stderr = &m.output, &m.output
	err := cmd.Run()
	if s := cmd.ProcessState; s != nil {
		m.total.cpu += s.UserTime() + s.SystemTime()
		if use, ok := s.SysUsage().(*syscall.Rusage); ok {
			m.total.maxRSS = max(m.total.maxRSS, use.Maxrss<<10)
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, m.output.Bytes())
	}
	return nil
}

// all runs programs one after the other, until one fails.
func (m *meter) all(commands ...[]string) error {
	for _, c := range commands {
		if err := m.run(c[0], c[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// median is, of each value, the one in the middle.
func median(samples []sample) sample {
	return sample{
		wall:    middle(samples, func(s sample) time.Duration { return s.wall }),
		cpu:     middle(samples, func(s sample) time.Duration { return s.cpu }),
		maxRSS:  middle(samples, func(s sample) int64 { return s.maxRSS }),
		written: middle(samples, func(s sample) int64 { return s.written }),
	}
}

func middle[T int64 | time.Duration](samples []sample, value func(sample) T) T {
	values := make([]T, 0, len(samples))
	for _, s := range samples {
		values = append(values, value(s))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// ratio is the median of how the rounds' times relate.
func ratio(of, to []sample) float64 {
	ratios := make([]float64, len(of))
	for i := range of {
		ratios[i] = of[i].wall.Seconds() / to[i].wall.Seconds()
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

// output runs a program that is not measured and returns its output.
func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		err = fmt.Errorf("%w\n%s", err, failed.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
