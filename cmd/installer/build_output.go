package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"installer/install"
	"installer/install/printable"
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
	if r.Outcome != install.Complete {
		return
	}
	m := r.Machine
	var phases []string
	for _, p := range m.Phases {
		phases = append(phases, fmt.Sprintf("%s %.1f s", p.Phase, p.Seconds))
	}
	printable.Fprintf(w, "  %-12s %s, %s of %s\n", "output", m.Format, install.FormatBytes(m.Allocated), install.FormatBytes(r.Disk.Size))
	printable.Fprintf(w, "  %-12s %s: %s\n", "machine", m.Accel, strings.Join(phases, ", "))
}

// printPlan prints what a build would do.
func printPlan(ctx context.Context, o vm.Options, w io.Writer) error {
	plan, err := vm.MakePlan(ctx, o)
	if err != nil {
		return err
	}
	printable.Fprintf(w, "Would make %s (%s) of %s\n", o.Output, o.Format, o.Install.Source)
	rows := [][2]string{
		{"digest", plan.Digest},
		{"disk", install.FormatBytes(o.DiskSize)},
	}
	for _, p := range plan.Partitions {
		rows = append(rows, [2]string{"partition", fmt.Sprintf("%d %-10s %10s at byte %d", p.Number, p.Name, install.FormatBytes(p.Size), p.Start)})
	}
	rows = append(rows, [][2]string{
		{"root", string(o.Install.Filesystem)},
		{"boot loader", string(o.Install.Bootloader)},
		{"content", fmt.Sprintf("%s in %d files", install.FormatBytes(plan.Bytes), plan.Files)},
		{"kernel", plan.Kernel},
		{"modules", strings.Join(plan.Modules, " ")},
		{"machine", fmt.Sprintf("%s, %d processors, %s of memory", strings.Join(plan.Accels, ", else "), plan.CPUs, install.FormatBytes(o.Memory))},
		{"runs", plan.Machine},
		{"in it", plan.Installer},
		{"after it", plan.After},
	}...)
	for _, row := range rows {
		if row[1] != "" {
			printable.Fprintf(w, "  %-12s %s\n", row[0], row[1])
		}
	}
	return nil
}
