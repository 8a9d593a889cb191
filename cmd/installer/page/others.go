package page

import (
	"fmt"
	"strings"

	"installer/disk/mounts"
	"installer/finalize"
	"installer/finalize/holders"
	"installer/install"
	"installer/install/size"
	"installer/install/verify"
)

// finalizePage is the page of a release.
func finalizePage(r *finalize.Report) *page {
	p := &page{Kind: "Release", Subject: r.Mountpoint, Tone: bad, Verdict: "Not released"}
	if r.Released {
		p.Tone, p.Verdict = good, "Released"
	}
	p.release(r)
	p.Facts = facts(fact{"Mount point", r.Mountpoint}, fact{"Devices", strings.Join(r.Devices, ", ")})
	ran := len(r.Stages) > 0
	for _, s := range r.Stages {
		ran = ran && (s.Status == finalize.OK || s.Status == finalize.Note)
		if s.Error != "" {
			p.Error = s.Error
		}
	}
	if p.Tone == bad && ran {
		p.Tone, p.Verdict = fair, "Ready to be unmounted" // --keep-mounted
	}
	p.Title = p.Verdict + ": " + p.Subject
	return p
}

// holdersPage is the page of a search for holders.
func holdersPage(r *holders.Report) *page {
	p := &page{Kind: "Holders", Subject: targetName(r.Target), Holders: r.Holders, Blind: r.Unreadable}
	switch r.Verdict {
	case holders.Free:
		p.Tone, p.Verdict = good, "Nobody holds it"
	case holders.Unknown:
		p.Tone, p.Verdict = fair, "It is not known whether it is free"
	case holders.KernelHeld:
		p.Tone, p.Verdict = bad, "Held by the kernel"
	default:
		p.Tone, p.Verdict = bad, "Held"
	}
	p.Title = p.Verdict + ": " + p.Subject
	p.Facts = facts(
		fact{"Looked at", fmt.Sprintf("%d processes and %d mount namespaces", r.Processes, r.Namespaces)},
		fact{"Looked for", classes(r.Searched)},
		fact{"The kernel says", string(r.Probed)},
	)
	return p
}

func classes(list []holders.Class) string {
	names := make([]string, len(list))
	for i, c := range list {
		names[i] = string(c)
	}
	return strings.Join(names, ", ")
}

// targetName returns the numbers by which a report knows its target.
func targetName(t holders.Target) string {
	devices := t.Devices
	if len(devices) == 0 {
		devices = t.Blocks
	}
	if len(devices) > 0 {
		return "device " + joined(devices)
	}
	return "mount " + joined(t.Mounts)
}

func joined[T mounts.DevNum | int](list []T) string {
	text := make([]string, len(list))
	for i, v := range list {
		text[i] = fmt.Sprint(v)
	}
	return strings.Join(text, ", ")
}

// check is one check of a disk, with its findings.
type check struct {
	Title    string
	Tone     tone
	Status   string
	Detail   string
	Took     string
	Findings []verify.Finding
}

// verifyPage is the page of a verification.
func verifyPage(r *verify.Report) *page {
	p := &page{Kind: "Verification", Subject: r.Disk.Path}
	switch r.Outcome {
	case verify.Sound:
		p.Tone, p.Verdict = good, "The disk is sound"
	case verify.Incomplete:
		p.Tone, p.Verdict = fair, "Not all checks could be made"
	default:
		p.Tone, p.Verdict = bad, "The disk is damaged: "+size.Count(r.Errors(), "fault")
	}
	p.Title = p.Verdict + ": " + p.Subject
	p.Facts = facts(
		fact{"Format", r.Disk.Format},
		fact{"Size", install.FormatBytes(r.Disk.Size)},
		fact{"Root", strings.Join(nonEmpty(r.Disk.Filesystem, r.Disk.RootUUID), ", UUID ")},
		fact{"Begun", clock(r.Started)},
		fact{"Took", seconds(r.Ended.Sub(r.Started).Seconds())},
	)
	var parts []partition
	for _, d := range r.Disk.Partitions {
		parts = append(parts, partition{d.Number, d.Name, d.Type, d.UUID, d.Start, d.Size, ""})
	}
	p.Disk = drawDisk(r.Disk.Size, parts)
	for _, c := range r.Checks {
		p.Checks = append(p.Checks, checkRow(c, r.Findings))
	}
	return p
}

func checkRow(c verify.Check, findings []verify.Finding) check {
	row := check{Title: c.Title, Status: string(c.Status), Detail: c.Detail, Took: seconds(c.Seconds)}
	row.Tone = map[verify.Status]tone{verify.Passed: good, verify.NotApplicable: idle, verify.Failed: bad}[c.Status]
	if row.Tone == "" {
		row.Tone = fair
	}
	for _, f := range findings {
		if f.Check == c.Name {
			row.Findings = append(row.Findings, f)
		}
	}
	return row
}
