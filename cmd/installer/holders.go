package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"installer/finalize"
	"installer/finalize/holders"
	"installer/install/outfile"
	"installer/install/printable"

	"github.com/spf13/cobra"
)

func newHoldersCommand(stdout io.Writer) *cobra.Command {
	var asJSON bool
	var file reportFile
	cmd := &cobra.Command{
		Use:   "holders [flags] PATH|DEVICE",
		Short: "Say who keeps a mount or a device busy, how, and what to do about it",
		Long: `holders looks for everything that keeps a mount, or the file systems of a block
device, alive: in every process, thread and mount namespace, and in the kernel.

Exit status: 0 free, 3 held (also by the kernel alone), 1 not free as far as
can be told, because something could not be read.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runHolders(cmd.Context(), args[0], asJSON, file, stdout)
		},
	}
	jsonFlag().toggle(cmd.Flags(), &asJSON)
	reportFlag().text(cmd.Flags(), &file.path)
	return cmd
}

func runHolders(ctx context.Context, path string, asJSON bool, file reportFile, stdout io.Writer) error {
	guard := outfile.NewGuard()
	if err := guard.AddFile("the path that is examined", path); err != nil {
		return err
	}
	if err := file.try(guard); err != nil {
		return err
	}
	report, err := holders.Examine(ctx, path)
	if err != nil {
		return err
	}
	if asJSON {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	} else {
		err = writeHolders(stdout, path, report)
	}
	if err != nil {
		return fmt.Errorf("printing the report: %w", err)
	}
	return errors.Join(verdictError(path, report), file.write(report))
}

// verdictError makes a verdict an exit status.
func verdictError(path string, r holders.Report) error {
	switch r.Verdict {
	case holders.Free:
		return nil
	case holders.Unknown:
		return fmt.Errorf("cannot tell whether %s is free: not everything could be read (run as root, in the host's PID namespace)", path)
	}
	return &finalize.HeldError{Stage: "holders", Why: fmt.Sprintf("%s is %s by %d", path, r.Verdict, len(r.Holders))}
}

// writeHolders prints a table for a person, the remedy below each row.
func writeHolders(w io.Writer, path string, r holders.Report) error {
	var b strings.Builder
	printable.Fprintf(&b, "%s: %s (%d holders; %d processes and %d mount namespaces were looked at)\n",
		path, r.Verdict, len(r.Holders), r.Processes, r.Namespaces)
	if len(r.Holders) > 0 {
		fmt.Fprintf(&b, "\n%-15s %7s %7s %-16s %s\n", "CLASS", "PID", "TID", "COMMAND", "PATH")
	}
	for _, h := range r.Holders {
		fmt.Fprintf(&b, "%-15s %7s %7s %-16s %s\n", h.Class, number(h.PID), number(h.TID), squeeze(h.Comm), squeeze(h.Path))
		for _, detail := range [][2]string{{"where", h.Namespace}, {"seen in", h.Evidence}, {"to do", h.Remedy}} {
			if detail[1] != "" {
				fmt.Fprintf(&b, "    %-8s %s\n", detail[0], squeeze(detail[1]))
			}
		}
	}
	for _, what := range r.Unreadable {
		fmt.Fprintf(&b, "could not look at: %s\n", squeeze(what))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// number leaves a column empty where no process is concerned.
func number(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// squeeze leaves out the padding of lines from /proc.
func squeeze(s string) string { return strings.Join(strings.Fields(printable.Line(s)), " ") }
