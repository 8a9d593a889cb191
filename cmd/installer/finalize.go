package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"installer/finalize"
	"installer/finalize/holders"
	"installer/install"
	"installer/install/outfile"
	"installer/install/printable"

	"github.com/spf13/cobra"
)

// finalizeFlags are the flags of finalize as given.
type finalizeFlags struct {
	keepMounted bool
	namespace   string
	everywhere  bool
	report      reportFile
	json        bool
	quiet       bool
}

func newFinalizeCommand(stdout io.Writer) *cobra.Command {
	var flags finalizeFlags
	cmd := &cobra.Command{
		Use:   "finalize [flags] ROOT",
		Short: "Release a mounted tree: prove that nothing holds it, unmount it, prove that it is gone",
		Long: `finalize releases the tree that is mounted on ROOT, with the mounts below it: it
writes everything out, makes the file systems read-only, proves that nothing holds
them, unmounts each once, never lazily, and proves that the kernel let go. A holder is
named, never killed, and the tree stays mounted as it was. A bind below ROOT of a file
system that is mounted elsewhere too is only unmounted.

Exit status: 0 released; 3 held, the message names the holders; 1 failed, or unmounted
and not proven released.`,
		Example: `  installer finalize /mnt
  installer finalize --mount-namespace 4711 /sysroot`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runFinalize(cmd.Context(), flags, args[0], stdout)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	flag{name: "keep-mounted", brief: "stop before the unmount",
		detail: "The file systems are then read-only, and nobody holds them."}.toggle(f, &flags.keepMounted)
	flag{name: "mount-namespace", value: "PID|PATH", brief: "work in another mount namespace",
		detail: "That of a process, or of a file such as /proc/PID/ns/mnt."}.text(f, &flags.namespace)
	flag{name: "all-namespaces", brief: "unmount the copies elsewhere too",
		detail: "Those in mount namespaces that the unmount does not reach; without this they are holders."}.toggle(f, &flags.everywhere)
	reportFlag().text(f, &flags.report.path)
	flag{name: "json", brief: "print each stage as one JSON object on a line"}.toggle(f, &flags.json)
	quietFlag().toggle(f, &flags.quiet)
	return cmd
}

func runFinalize(parent context.Context, flags finalizeFlags, root string, stdout io.Writer) error {
	if os.Geteuid() != 0 {
		return &notRootError{"unmounting needs root"}
	}
	directory, err := enterNamespace(flags.namespace, &flags.report)
	if err != nil {
		return err
	}
	if root, err = resolveRoot(absolute(directory, root)); err != nil {
		return err
	}
	guard := outfile.NewGuard()
	if err := guard.AddFilesystem("the target", root); err != nil {
		return err
	}
	if err := flags.report.open(guard); err != nil {
		return err
	}
	// The working directory may lie on the target.
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("leaving the working directory: %w", err)
	}
	ctx, stop := untilSignal(parent)
	defer stop()
	return release(ctx, flags, root, stdout)
}

func release(ctx context.Context, flags finalizeFlags, root string, stdout io.Writer) (err error) {
	target, closeAll, err := finalize.Discover(root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	if flags.everywhere {
		target.Copies = finalize.UnmountCopies
	}
	stages := finalize.TreeStages()
	if flags.keepMounted {
		stages = finalize.UntilUnmount(stages)
	}
	pipeline := finalize.Pipeline{Stages: stages}
	report, err := pipeline.Run(ctx, target, stageLines(flags, stdout))
	if err == nil && !flags.quiet && !flags.json {
		printable.Fprintf(stdout, "%s\n", closingLine(report, flags.keepMounted))
	}
	return errors.Join(err, flags.report.write(report))
}

// closingLine says in what state the tree is, and what the search for holders could not see.
func closingLine(r *finalize.Report, keptMounted bool) string {
	line := "released: " + r.Mountpoint
	if keptMounted {
		line = "mounted, no holder found: " + r.Mountpoint
		if r.Succeeded(finalize.RemountReadOnly) {
			line = "mounted read-only, no holder found: " + r.Mountpoint
		}
	}
	if list := r.Unseen(); len(list) > 0 {
		line += "; not seen: " + holders.NotSeen(list) + " (to see it: " + holders.HowToSee(list) + ")"
	}
	return line
}

// stageLines prints each stage as it ends.
func stageLines(flags finalizeFlags, stdout io.Writer) func(finalize.StageResult) {
	encoder := json.NewEncoder(stdout)
	return func(s finalize.StageResult) {
		switch {
		case flags.quiet:
		case flags.json:
			// As for any progress: a reader that went away does not stop the release.
			_ = encoder.Encode(install.Event{Time: s.Start, Kind: install.EventStage, Stage: &s})
		default:
			fmt.Fprintf(stdout, "%-18s %-10s %s\n", s.Name, s.Status, squeeze(s.Summary))
		}
	}
}
