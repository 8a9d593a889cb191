package main

import (
	"fmt"
	"io"
	"strings"

	"installer/install"
	"installer/install/vm"
)

// finishBuild shows the end of a build and writes its report.
func finishBuild(o *output, r *vm.Report) error {
	if err := o.report.write(r); err != nil {
		return err
	}
	switch p := o.printer.(type) {
	case *jsonPrinter:
		// A reader that went away changes nothing about the build.
		_ = p.out.Encode(struct {
			Kind   string     `json:"event"`
			Report *vm.Report `json:"report"`
		}{"report", r})
	case *plainPrinter:
		p.summary(&r.Report)
		writeMachine(p.out, r)
	case *ttyPrinter:
		p.summary(&r.Report)
		p.show(func(w io.Writer) { writeMachine(w, r) })
	}
	return nil
}

// writeMachine goes on where writeSummary ends.
func writeMachine(w io.Writer, r *vm.Report) {
	m := r.Machine
	var rows [][2]string
	switch {
	case r.Outcome == install.Complete:
		var phases []string
		for _, p := range m.Phases {
			phases = append(phases, fmt.Sprintf("%s %.1f s", p.Phase, p.Seconds))
		}
		rows = [][2]string{
			{"output", fmt.Sprintf("%s, %s of %s", m.Format, install.FormatBytes(m.Allocated), install.FormatBytes(r.Disk.Size))},
			{"machine", fmt.Sprintf("%s: %s", m.Accel, strings.Join(phases, ", "))},
		}
	case r.Outcome == install.Planned && m.Planned != nil:
		p := m.Planned
		rows = [][2]string{
			{"machine", fmt.Sprintf("%s, %d processors, %s of memory", strings.Join(p.Accels, ", else "), m.CPUs, install.FormatBytes(m.Memory))},
			{"its kernel", fmt.Sprintf("%s, with the modules %s", m.Kernel, strings.Join(p.Modules, " "))},
			{"runs", p.Machine},
			{"after it", strings.Join(p.After, ", ")},
		}
	}
	writeRows(w, rows)
}
