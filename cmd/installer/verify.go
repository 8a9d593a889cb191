package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"installer/install/confine"
	"installer/install/verify"

	"github.com/spf13/cobra"
)

const verifyHelp = `Check a finished disk: a raw disk file, a qcow2, or a block device that nothing uses.

Nothing is written, not even the replay of a log. A qcow2 is unpacked first, to a sparse
file without a name in TMPDIR, by qemu-img. Every check that finds the disk other than it
should be is a finding of severity "error"; a "note" is worth knowing and no fault.

What stands on the root file system is checked by mounting it read-only, which needs root
(in a private mount namespace: no other program sees it). Without root those checks are
listed as not made, and the outcome is "incomplete": that is no success unless --partial
says that the rest is enough.

A boot loader carries no checksums. As root it is made once more by the image's own
programs, confined and without privileges, and every byte is compared.

Exit status:
  0  sound: every check was made and found nothing wrong (with --partial: every check
     that could be made)
  1  damaged: there are findings of severity "error"; or incomplete; or the verification
     itself failed
  2  wrong usage
  4  the disk is in use: what changes while it is read cannot be judged`

// verifyFlags are the flags of verify as given.
type verifyFlags struct {
	json    bool
	partial bool
}

func newVerifyCommand(stdout io.Writer) *cobra.Command {
	var flags verifyFlags
	cmd := &cobra.Command{
		Use:   "verify [flags] DISK",
		Short: "Check a finished disk without changing a bit of it",
		Long:  verifyHelp,
		Example: `  installer verify disk.qcow2
  installer verify --json /dev/vdb`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runVerify(cmd.Context(), flags, args[0], stdout)
		},
	}
	cmd.Flags().BoolVar(&flags.json, "json", false, "print the report as one JSON object")
	cmd.Flags().BoolVar(&flags.partial, "partial", false, "succeed also when checks that need root could not be made")
	return cmd
}

func runVerify(parent context.Context, flags verifyFlags, path string, stdout io.Writer) error {
	o := verify.Options{Disk: path, TempDir: os.TempDir()}
	if os.Geteuid() != 0 {
		o.NoRoot = "it needs root, or a virtual machine"
	} else if err := enterWorkplace(); err != nil {
		o.NoRoot = "it needs to mount: " + err.Error()
	} else {
		// A place of its own: an installer may be at work in the usual one.
		o.Root = verify.Mounter{WorkDir: filepath.Join(filepath.Dir(workspaceDir), "installer-verify")}
		o.RunInTree = runInDeployment
	}
	if !flags.json {
		o.Observe = func(c verify.Check, findings []verify.Finding) { printCheck(stdout, c, findings) }
	}
	ctx, stop := untilSignal(parent)
	defer stop()
	report, err := verify.Run(ctx, o)
	if report == nil {
		return err
	}
	if flags.json {
		err = errors.Join(err, json.NewEncoder(stdout).Encode(report))
	} else {
		fmt.Fprintf(stdout, "%s: %s\n", path, verdict(report))
	}
	if err != nil {
		return err
	}
	return verifyError(report, flags.partial)
}

// runInDeployment runs a program of a deployment, confined as during an installation.
func runInDeployment(ctx context.Context, tree string, argv []string, files map[string][]byte) ([]byte, error) {
	return confine.Output(ctx, confine.Program{Root: tree, Argv: argv, Files: files})
}

// printCheck prints one check with what it found.
func printCheck(w io.Writer, c verify.Check, findings []verify.Finding) {
	word := map[verify.Status]string{
		verify.Passed: "ok", verify.Failed: "FAILED", verify.NotChecked: "not checked", verify.NotApplicable: "n/a",
	}[c.Status]
	fmt.Fprintf(w, "%-11s  %s", word, c.Title)
	if c.Detail != "" {
		fmt.Fprintf(w, ": %s", c.Detail)
	}
	fmt.Fprintln(w)
	for _, f := range findings {
		fmt.Fprintf(w, "             %s: %s\n", f.Severity, f)
	}
}

// verdict is the outcome in words.
func verdict(r *verify.Report) string {
	missing := 0
	for _, c := range r.Checks {
		if c.Status == verify.NotChecked {
			missing++
		}
	}
	text := string(r.Outcome)
	if n := r.Errors(); n > 0 {
		text += fmt.Sprintf(", %d faults", n)
	}
	if missing > 0 {
		text += fmt.Sprintf(", %d of %d checks not made", missing, len(r.Checks))
	}
	return text
}

// verifyError is nil where the outcome is success.
func verifyError(r *verify.Report, partial bool) error {
	switch {
	case r.Outcome == verify.Damaged:
		return fmt.Errorf("%s is damaged: %d faults were found", r.Disk.Path, r.Errors())
	case r.Outcome == verify.Incomplete && !partial:
		return fmt.Errorf("the verification of %s is incomplete: run it as root, or say --partial if this is enough", r.Disk.Path)
	}
	return nil
}
