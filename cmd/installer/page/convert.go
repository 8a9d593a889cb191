package page

import (
	"fmt"
	"strings"

	"installer/finalize"
	"installer/install"
	"installer/install/vm"
)

// installPage is the page of an installation, with its machine if it had one.
func installPage(r *vm.Report, hasMachine bool) *page {
	p := &page{Kind: "Installation", Subject: r.Disk.Path, Error: r.Error, Notes: r.Notes, Undone: r.UndoErrors}
	switch r.Outcome {
	case install.Complete:
		p.Tone, p.Verdict = good, "Installation complete"
	case install.Planned:
		p.Tone, p.Verdict = fair, "Planned, nothing was written"
	case install.Unproven:
		p.Tone, p.Verdict = fair, "Installed; release skipped"
	default:
		p.Tone, p.Verdict = bad, "Installation failed"
	}
	p.Title = p.Verdict + ": " + p.Subject
	p.Facts = installFacts(&r.Report)
	p.Kargs = r.Deployment.Kargs
	if r.Plan != nil {
		for _, f := range r.Plan.Found {
			p.Lost = append(p.Lost, fmt.Sprintf("%s, %s", f, install.FormatBytes(f.Size)))
		}
		if len(p.Kargs) == 0 {
			p.Kargs = r.Plan.Kargs
		}
	}
	p.Disk = drawDisk(r.Disk.Size, installPartitions(&r.Report))
	p.Steps = stepBars(&r.Report)
	p.release(r.Finalize)
	if hasMachine {
		p.Facts = append(p.Facts, machineFacts(r.Machine)...)
		p.Phases = phaseBars(r.Machine)
	}
	return p
}

func installFacts(r *install.Report) []fact {
	d := r.Deployment
	list := []fact{
		{"Image", r.Source.Reference},
		{"Digest", r.Source.Digest},
		{"Kernel", d.Kernel},
		{"Deployment", d.Path},
		{"Commit", d.Commit},
		{"Boot loader", string(r.Disk.Bootloader)},
		{"SELinux", r.SELinux.String()},
		{"Root", strings.Join(nonEmpty(string(r.Disk.Filesystem), r.Disk.RootUUID), ", UUID ")},
	}
	if d.Files > 0 {
		list = append(list, fact{"Content", fmt.Sprintf("%s in %d files", install.FormatBytes(d.Bytes), d.Files)})
	}
	if r.Source.Layers > 0 {
		list = append(list, fact{"Read", fmt.Sprintf("%s in %d layers", install.FormatBytes(r.Source.Bytes), r.Source.Layers)})
	}
	if base := r.Source.BaseCommit; base != "" {
		list = append(list, fact{"Base commit", fmt.Sprintf("%s, in %d of the layers", base, r.Source.BaseLayers)})
	}
	if plan := r.Plan; plan != nil {
		list = append(list,
			fact{"Updates from", plan.Target},
			fact{"Stateroot", plan.Stateroot},
			fact{"Firmware", plan.Firmware},
			fact{"Device", strings.Join(nonEmpty(plan.Model, plan.Serial), ", serial ")},
			fact{"Configured by", strings.Join(plan.Config, ", ")})
	}
	for _, m := range r.Disk.Mounted {
		list = append(list, fact{fmt.Sprintf("Mounted as %s", m.Role), fmt.Sprintf("%s: %s on %s", m.MountPoint, m.Type, strings.Join(nonEmpty(m.Device, m.UUID), ", UUID "))})
	}
	took := ""
	if !r.Started.IsZero() && !r.Ended.IsZero() {
		took = seconds(r.Ended.Sub(r.Started).Seconds())
	}
	return facts(append(list, fact{"Begun", clock(r.Started)}, fact{"Took", took})...)
}

func nonEmpty(all ...string) []string {
	var list []string
	for _, s := range all {
		if s != "" {
			list = append(list, s)
		}
	}
	return list
}

func installPartitions(r *install.Report) []partition {
	var list []partition
	for _, p := range r.Disk.Partitions {
		content := ""
		switch {
		case typeName(p.Type) == "EFI system partition":
			content = "FAT32"
		case p.Name == "root":
			content = string(r.Disk.Filesystem)
		}
		list = append(list, partition{p.Number, p.Name, p.Type, p.UUID, p.Start, p.Size, content})
	}
	return list
}

func stepBars(r *install.Report) *timeline {
	if len(r.Steps) == 0 {
		return nil
	}
	t := &timeline{}
	var spans []span
	for _, s := range r.Steps {
		row := bar{Name: s.Name, Title: s.Title, Took: seconds(s.Seconds), Message: s.Message, Error: s.Error, Tone: good, Status: "done"}
		if s.Error != "" {
			row.Tone, row.Status = bad, "failed"
		}
		t.Rows = append(t.Rows, row)
		spans = append(spans, span{since(r.Started, s.Started), s.Seconds})
	}
	t.scale(spans)
	return t
}

func machineFacts(m vm.MachineReport) []fact {
	return facts(
		fact{"Machine", fmt.Sprintf("%s, %d processors, %s of memory", m.Accel, m.CPUs, install.FormatBytes(m.Memory))},
		fact{"Machine's kernel", m.Kernel},
		fact{"Output", m.Output},
		fact{"Format", fmt.Sprintf("%s, %s on the disk", m.Format, install.FormatBytes(m.Allocated))},
		fact{"Failed attempts", strings.Join(m.Attempts, "; ")},
	)
}

// phaseBars shows the time of the machine's phases, which follow each other.
func phaseBars(m vm.MachineReport) *timeline {
	if len(m.Phases) == 0 {
		return nil
	}
	t := &timeline{}
	var spans []span
	at := 0.0
	for _, phase := range m.Phases {
		t.Rows = append(t.Rows, bar{Name: string(phase.Phase), Title: string(phase.Phase), Took: seconds(phase.Seconds), Tone: good, Status: "done"})
		spans = append(spans, span{at, phase.Seconds})
		at += phase.Seconds
	}
	t.scale(spans)
	return t
}

// release adds the evidence of the finalize pipeline.
func (p *page) release(r *finalize.Report) {
	if r == nil || len(r.Stages) == 0 {
		return
	}
	p.Stages = &timeline{}
	var spans []span
	for _, s := range r.Stages {
		row := bar{Name: s.Name, Title: s.Name, Took: seconds(s.Seconds), Status: string(s.Status), Message: s.Summary, Error: s.Error}
		row.Tone = map[finalize.Status]tone{finalize.OK: good, finalize.Failed: bad, finalize.NotRun: idle}[s.Status]
		if row.Tone == "" {
			row.Tone = fair
		}
		row.Open = s.Status == finalize.Failed
		p.Holders = append(p.Holders, s.Holders...)
		if recorded, ok := s.Evidence.(finalize.Recorded); ok {
			row.Evidence = parseValue(recorded.JSON)
		}
		p.Stages.Rows = append(p.Stages.Rows, row)
		spans = append(spans, span{since(r.Stages[0].Start, s.Start), s.Seconds})
	}
	p.Stages.scale(spans)
}
