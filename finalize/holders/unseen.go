package holders

import (
	"fmt"
	"slices"
	"strings"
)

// NotSeen names everything that a search could not see in one phrase, without advice.
func NotSeen(list []Unseen) string {
	var parts []string
	add := func(text string) {
		if !slices.Contains(parts, text) {
			parts = append(parts, text)
		}
	}
	var pids []int
	for _, u := range list {
		switch u.Spot {
		case OtherPIDNamespaces:
			add("processes outside of this PID namespace")
		case OtherUsers:
			add("processes of other users")
		case OtherNamespaces:
			add("mount namespaces that no visible process is in")
		case OldKernel:
			add(u.Subject)
		case Processes:
			pids = append(pids, u.Processes...)
		default:
			add(u.String())
		}
	}
	slices.Sort(pids)
	if pids = slices.Compact(pids); len(pids) > 0 {
		add(fmt.Sprintf("files, mappings or directories of %s", processList(pids)))
	}
	return strings.Join(parts, "; ")
}

// processList names the first few processes.
func processList(pids []int) string {
	const most = 5
	if len(pids) == 1 {
		return fmt.Sprintf("process %d", pids[0])
	}
	var texts []string
	for _, pid := range pids[:min(most, len(pids))] {
		texts = append(texts, fmt.Sprint(pid))
	}
	text := fmt.Sprintf("%d processes (%s", len(pids), strings.Join(texts, ", "))
	if len(pids) > most {
		text += ", …"
	}
	return text + ")"
}

// HowToSee joins the remedies of blind spots.
func HowToSee(list []Unseen) string {
	var parts []string
	for _, u := range list {
		if remedy := u.Remedy(); !slices.Contains(parts, remedy) {
			parts = append(parts, remedy)
		}
	}
	return strings.Join(parts, "; ")
}
