package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"installer/finalize/holders"
	"installer/install"
	"installer/install/printable"
)

// writeSummary ends a run that succeeded. It says "complete" of a report whose
// every proof holds, and of a run that failed nothing: the error message speaks then.
func writeSummary(w io.Writer, r *install.Report) {
	if r.Outcome == install.Planned {
		writePlan(w, r.Plan)
		fmt.Fprintln(w, "Dry run: nothing was written.")
		return
	}
	title := "Installation complete"
	switch r.Outcome {
	case install.Complete:
	case install.Unproven:
		title = "Installed; release skipped"
	default:
		return
	}
	rows := [][2]string{
		{"image", r.Source.Reference},
		{"digest", r.Source.Digest},
		{"updates from", updatesFrom(r)},
		{"deployment", r.Deployment.Path},
		{"composefs", r.Deployment.Composefs},
		{"kernel", r.Deployment.Kernel},
		{"content", fmt.Sprintf("%s in %d files", install.FormatBytes(r.Deployment.Bytes), r.Deployment.Files)},
		{"labels", r.SELinux.String()},
		{"root", fmt.Sprintf("%s, UUID %s", r.Disk.Filesystem, r.Disk.RootUUID)},
		{"boot loader", string(r.Disk.Bootloader)},
		{"released", proofs(r)},
		{"not seen", unseenBy(r)},
		{"mounted", stillMounted(r)},
		{"time", fmt.Sprintf("%.1f s", r.Ended.Sub(r.Started).Seconds())},
	}
	printable.Fprintf(w, "%s: %s (%s)\n", title, r.Disk.Path, install.FormatBytes(r.Disk.Size))
	writeRows(w, rows)
}

// writeRows writes a table of labels and values, without the rows that have no value.
func writeRows(w io.Writer, rows [][2]string) {
	for _, row := range rows {
		if row[1] != "" {
			printable.Fprintf(w, "  %-13s %s\n", row[0], row[1])
		}
	}
}

// updatesFrom returns the image that the host takes its updates from.
func updatesFrom(r *install.Report) string {
	if r.Plan == nil {
		return ""
	}
	return cmp.Or(r.Plan.Target, "nowhere: no image was named")
}

// unseenBy names the places that the search for holders could not see, with the remedy.
func unseenBy(r *install.Report) string {
	if r.Finalize == nil || len(r.Finalize.Unseen()) == 0 {
		return ""
	}
	list := r.Finalize.Unseen()
	return holders.NotSeen(list) + " (to see it: " + holders.HowToSee(list) + ")"
}

// stillMounted describes the state of the caller's mounts.
func stillMounted(r *install.Report) string {
	switch {
	case len(r.Disk.Mounted) == 0:
		return ""
	case r.Outcome == install.Unproven:
		return "as before, writable (--skip-finalize, or the running system's root)"
	}
	return "read-only, with nobody holding it; umount -R or installer finalize " + r.Disk.Path
}

// proofs lists the stages by which the disk was released.
func proofs(r *install.Report) string {
	var names []string
	for _, stage := range r.Finalize.Stages {
		names = append(names, stage.Name)
	}
	all := strings.Join(names, ", ")
	if r.Outcome == install.Unproven {
		return "not released; ended well: " + all
	}
	return all
}
