package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"installer/finalize"
	"installer/finalize/holders"
	"installer/install/outfile"
	"installer/install/printable"
	"installer/install/size"

	"github.com/spf13/cobra"
)

func newHoldersCommand(stdout io.Writer) *cobra.Command {
	var asJSON, verbose, watch bool
	var file reportFile
	cmd := &cobra.Command{
		Use:   "holders [flags] PATH|DEVICE",
		Short: "Name the holders of a mount or a device, with the evidence and the remedy",
		Long: `holders looks for everything that keeps a mount, or the file systems of a block
device, alive: in every process, thread and mount namespace, and in the kernel.
It changes nothing. A copy of the mount in another mount namespace that goes when
the mount is unmounted is no holder.

Exit status: 0 free, 3 held (also by the kernel alone), 1 unknown: no holder was
found, and not everything could be seen.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			flags := holdersFlags{asJSON, verbose, file}
			if !watch {
				return runHolders(cmd.Context(), args[0], flags, stdout)
			}
			if file.path != "" {
				return &usageError{errors.New("--watch has no end that a --report could be of: leave one of the two out")}
			}
			return watchHolders(cmd.Context(), args[0], flags, stdout)
		},
	}
	flag{name: "watch", short: "w", group: groupOutput, brief: "print holders as they come and go",
		detail: "It looks five times a second, from now until the target is free after it was held, or until Ctrl-C; one that is free at first may become " +
			"held. A terminal shows the present holders, a file or pipe gets a line for each event; with --json each line is an object."}.toggle(cmd.Flags(), &watch)
	flag{name: "verbose", short: "v", group: groupOutput, brief: "show more, and the causes of an error",
		detail: "Every holder, where 20 of each class are listed without it, and everything that was not seen."}.toggle(cmd.Flags(), &verbose)
	jsonFlag().toggle(cmd.Flags(), &asJSON)
	reportFlag().text(cmd.Flags(), &file.path)
	return cmd
}

// holdersFlags are the flags of holders as given.
type holdersFlags struct {
	json, verbose bool
	file          reportFile
}

func runHolders(ctx context.Context, path string, flags holdersFlags, stdout io.Writer) error {
	if err := requireTarget(path); err != nil {
		return err
	}
	guard := outfile.NewGuard()
	if err := guard.AddFile("the path that is examined", path); err != nil {
		return err
	}
	if err := flags.file.try(guard); err != nil {
		return err
	}
	report, err := holders.Examine(ctx, path)
	if err != nil {
		return err
	}
	if flags.json {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	} else {
		err = writeHolders(stdout, path, report, flags.verbose)
	}
	if err != nil {
		return fmt.Errorf("printing the report: %w", err)
	}
	return errors.Join(verdictError(path, report), flags.file.write(report))
}

// verdictError makes a verdict an exit status.
func verdictError(path string, r holders.Report) error {
	switch r.Verdict {
	case holders.Free:
		return nil
	case holders.Unknown:
		return &unknownError{path, r}
	}
	why := fmt.Sprintf("%s is held by %s", path, classSummary(r))
	if r.Verdict == holders.KernelHeld {
		why = path + " is held by the kernel alone, as far as can be seen"
	}
	if len(r.Unseen) > 0 {
		why += "; not seen: " + holders.NotSeen(r.Unseen)
	}
	return &finalize.HeldError{Stage: "holders", Why: why}
}

// unknownError says that a search found no holder and did not see everything.
type unknownError struct {
	path   string
	report holders.Report
}

func (e *unknownError) Error() string {
	reason := "no holder was found"
	if suspects := len(e.report.Holders); suspects > 0 {
		reason = fmt.Sprintf("no holder was found but %s", size.Count(suspects, "suspect"))
	}
	if e.report.Probed == holders.IsReferenced {
		reason = "the kernel counts references to it"
	}
	if len(e.report.References) > 0 {
		reason += ": " + strings.Join(e.report.References, "; ")
	}
	text := fmt.Sprintf("cannot tell whether %s is free: %s", e.path, reason)
	if len(e.report.Unseen) > 0 {
		text += "; not seen: " + holders.NotSeen(e.report.Unseen)
	}
	return text
}

// Advice returns how to see the rest.
func (e *unknownError) Advice() string { return holders.HowToSee(e.report.Unseen) }

// rowsShown is the number of holders of one class that are listed without --verbose.
const rowsShown = 20

// writeHolders prints a summary by class, and then the holders of each class, those with the same
// remedy together.
func writeHolders(w io.Writer, path string, r holders.Report, verbose bool) error {
	var b strings.Builder
	printable.Fprintf(&b, "%s: %s", path, r.Verdict)
	if len(r.Holders) > 0 {
		fmt.Fprintf(&b, " by %s", classSummary(r))
	}
	fmt.Fprintf(&b, "\nsearched: %s, %s\n", size.Count(r.Processes, "process"), size.Count(r.Namespaces, "mount namespace"))
	if len(r.Unseen) > 0 {
		fmt.Fprintf(&b, "not seen: %s\n", squeeze(holders.NotSeen(r.Unseen)))
		switch {
		case r.Verdict == holders.Free:
			fmt.Fprintf(&b, "          the kernel counts no reference and no claim, which settles it\n")
		default:
			fmt.Fprintf(&b, "          to see it: %s\n", holders.HowToSee(r.Unseen))
		}
	}
	for _, class := range classes(r) {
		writeClass(&b, class, r, verbose)
	}
	if verbose {
		for _, u := range r.Unseen {
			fmt.Fprintf(&b, "not seen: %s\n", squeeze(u.String()))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeClass prints the holders of one class.
func writeClass(b *strings.Builder, class holders.Class, r holders.Report, verbose bool) {
	list := slices.DeleteFunc(slices.Clone(r.Holders), func(h holders.Holder) bool { return h.Class != class })
	first := map[string]int{} // of each remedy: the search has them in the order in which they must be taken
	for i, h := range slices.Backward(list) {
		first[h.Remedy] = i
	}
	slices.SortStableFunc(list, func(a, b holders.Holder) int { return cmp.Compare(first[a.Remedy], first[b.Remedy]) })
	fmt.Fprintf(b, "\n%s\n", size.Count(len(list), string(class)+" holder"))
	for i, h := range list {
		if i == rowsShown && !verbose {
			fmt.Fprintf(b, "  and %d more (--verbose and --json list all)\n", len(list)-i)
			return
		}
		if i == 0 || h.Remedy != list[i-1].Remedy {
			fmt.Fprintf(b, "  to do: %s\n", squeeze(h.Remedy))
		}
		fmt.Fprintf(b, "    %s\n      %s\n", holderRow(h), squeeze(h.Evidence))
	}
}

// holderRow is a holder in a line, without its class.
func holderRow(h holders.Holder) string {
	row := ""
	switch {
	case h.PID == 0 && h.HostPID != 0:
		row = fmt.Sprintf("process %d outside of this PID namespace (%s) ", h.HostPID, squeeze(h.Comm))
	case h.PID != 0:
		row = fmt.Sprintf("process %d (%s) ", h.PID, squeeze(h.Comm))
		if h.TID != 0 && h.TID != h.PID {
			row = fmt.Sprintf("process %d thread %d (%s) ", h.PID, h.TID, squeeze(h.Comm))
		}
	}
	row = strings.TrimSpace(row + squeeze(h.Path))
	if h.Namespace != "" {
		row += " in " + squeeze(h.Namespace)
	}
	if h.Suspect {
		row += " (suspect)"
	}
	return row
}

// classes returns the classes of the holders that were found, the most frequent first. Claims of
// devices on top come last: they end when nobody uses these.
func classes(r holders.Report) []holders.Class {
	numbers := map[holders.Class]int{}
	for _, h := range r.Holders {
		numbers[h.Class]++
	}
	rank := map[holders.Class]int{holders.BlockClaim: 1}
	return slices.SortedFunc(maps.Keys(numbers), func(a, b holders.Class) int {
		return cmp.Or(cmp.Compare(rank[a], rank[b]), cmp.Compare(numbers[b], numbers[a]), cmp.Compare(a, b))
	})
}

// classSummary counts the holders, in all and by class.
func classSummary(r holders.Report) string {
	parts := make([]string, 0, len(r.Holders))
	for _, class := range classes(r) {
		n := 0
		for _, h := range r.Holders {
			if h.Class == class {
				n++
			}
		}
		parts = append(parts, fmt.Sprintf("%d %s", n, class))
	}
	return fmt.Sprintf("%s (%s)", size.Count(len(r.Holders), "holder"), strings.Join(parts, ", "))
}

// squeeze leaves out the padding of lines from /proc.
func squeeze(s string) string { return strings.Join(strings.Fields(printable.Line(s)), " ") }
