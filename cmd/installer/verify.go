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
	"installer/install/place"
	"installer/install/printable"
	"installer/install/size"
	"installer/install/verify"
	"installer/install/vm"

	"github.com/spf13/cobra"
)

const verifyHelp = `Check a finished disk: a raw disk file, a qcow2, or a block device that nothing uses.

Nothing is written, not even the replay of a log. Every check that finds the disk other
than it should be is a finding of severity "error"; a "note" is worth knowing and no fault.

The files of the root file system are checked by mounting it read-only. Root does that in
a private mount namespace, which no other program sees. Everybody else, and root with
--image, has every check made in a virtual machine that cannot write to the disk either;
that takes QEMU, 1 GiB of memory, and a kernel with virtio and the root's file system: this
machine's own (/lib/modules, /boot) if it can be read, or that of the image given by --image,
for which there must be room in TMPDIR, unpacked. Without such a machine those checks are
listed as not made, with the reason, and the outcome is "incomplete": that is no success
unless --partial says that the rest is enough.

Where no virtual machine is used a qcow2 is read through QEMU's storage daemon and FUSE,
by root and where these are there, else it is unpacked first, by qemu-img, to a sparse file
without a name in TMPDIR.

A boot loader carries no checksums. It is made once more by the image's own programs,
confined and without privileges, and every byte is compared.

Exit status:
  0  sound: every check was made and found nothing wrong (with --partial: every
     check that could be made)
  1  damaged: there are findings of severity "error"; or incomplete; or the
     verification itself failed
  2  wrong usage
  4  the disk is in use, neither raw nor qcow2, or refers to other files
  5  the image given by --image was refused`

// verifyFlags are the flags of verify as given.
type verifyFlags struct {
	json    bool
	partial bool
	image   string
	accel   string
	backing []string
	events  bool
}

func newVerifyCommand(stdout, stderr io.Writer) *cobra.Command {
	var flags verifyFlags
	cmd := &cobra.Command{
		Use:   "verify [flags] DISK",
		Short: "Check a finished disk without changing a bit of it",
		Long:  verifyHelp,
		Example: `  installer verify disk.qcow2
  installer verify --image oci:myos:latest disk.qcow2
  sudo installer verify --json /dev/vdb`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runVerify(cmd.Context(), flags, args[0], stdout, stderr)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	flag{name: "image", value: "REF", brief: "check in a virtual machine on the kernel of this image", detail: "Any source of to-disk."}.text(f, &flags.image)
	accelFlag().text(f, &flags.accel)
	flag{name: "backing-file", value: "FILE", brief: "file that a qcow2 may refer to, as its backing file or external data file (repeatable)",
		detail: "A qcow2 that refers to another file is refused: it would show that file as its own content."}.list(f, &flags.backing)
	flag{name: "partial", brief: "succeed also when some checks could not be made"}.toggle(f, &flags.partial)
	jsonFlag().toggle(f, &flags.json)
	flag{name: "events", hidden: true, brief: "print a JSON object for each check, for the virtual machine"}.toggle(f, &flags.events)
	return cmd
}

func runVerify(parent context.Context, flags verifyFlags, path string, stdout, stderr io.Writer) error {
	if err := requireTarget(path); err != nil {
		return err
	}
	o, err := flags.options(path, stderr)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(stdout)
	var printErr error
	switch {
	case flags.events:
		o.Observe = func(c verify.Check, findings []verify.Finding) {
			printErr = errors.Join(printErr, encoder.Encode(verify.Event{Check: &c, Findings: findings}))
		}
	case !flags.json:
		o.Observe = func(c verify.Check, findings []verify.Finding) { printCheck(stdout, c, findings) }
	}
	ctx, stop := untilSignal(parent)
	defer stop()
	report, err := verify.Run(ctx, o)
	if report == nil {
		return err
	}
	switch {
	case flags.events:
		err = errors.Join(err, printErr, encoder.Encode(verify.Event{Report: report}))
	case flags.json:
		err = errors.Join(err, encoder.Encode(report))
	default:
		printable.Fprintf(stdout, "%s: %s\n", path, verdict(report))
	}
	if err != nil {
		return err
	}
	return verifyError(report, flags.partial)
}

// options chooses where the root is mounted: here, or in a virtual machine. It
// may execute the program again.
func (f *verifyFlags) options(path string, stderr io.Writer) (verify.Options, error) {
	o := verify.Options{Disk: path, BackingFiles: f.backing, TempDir: os.TempDir()}
	machine := vm.Verifier{TempDir: o.TempDir, Accel: vm.Accel(f.accel), Note: func(format string, args ...any) {
		printable.Fprintf(stderr, "note: "+format+"\n", args...)
	}}
	var err error
	if f.image != "" {
		if machine.Image, err = parseSource("--image", f.image); err != nil {
			return o, &usageError{err}
		}
	}
	if f.image != "" || os.Geteuid() != 0 {
		o.NoRoot, o.Guest = "it needs root, or a virtual machine", machine.Verify
		return o, nil
	}
	if place.InUserNamespace() {
		err = errors.New("root in a user namespace cannot mount this")
	} else {
		err = enterWorkplace()
	}
	if err != nil {
		o.NoRoot, o.Guest = "it needs to mount ("+err.Error()+"), or a virtual machine", machine.Verify
		return o, nil
	}
	// A place of its own: an installer may be at work in the usual one.
	o.Root = verify.Mounter{WorkDir: filepath.Join(filepath.Dir(workspaceDir), "installer-verify")}
	o.OpenImage = verify.Mounter{WorkDir: filepath.Join(filepath.Dir(workspaceDir), "installer-verify-image")}.OpenImage
	o.RunInTree = runInDeployment
	return o, nil
}

// runInDeployment runs a program of a deployment, confined as during an installation.
func runInDeployment(ctx context.Context, tree string, argv []string, files map[string][]byte) ([]byte, error) {
	return confine.Output(ctx, confine.Program{Root: tree, Argv: argv, Files: files})
}

// printCheck prints one check with its findings.
func printCheck(w io.Writer, c verify.Check, findings []verify.Finding) {
	word := map[verify.Status]string{
		verify.Passed: "ok", verify.Failed: "FAILED", verify.NotChecked: "not checked", verify.NotApplicable: "n/a",
	}[c.Status]
	printable.Fprintf(w, "%-11s  %s", word, c.Title)
	if c.Detail != "" {
		printable.Fprintf(w, ": %s", c.Detail)
	}
	fmt.Fprintln(w)
	for _, f := range findings {
		printable.Fprintf(w, "             %s: %s\n", f.Severity, f)
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
		text += ", " + size.Count(n, "fault")
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
		return fmt.Errorf("%s is damaged: %s found", r.Disk.Path, size.Count(r.Errors(), "fault"))
	case r.Outcome == verify.Incomplete && !partial:
		return fmt.Errorf("the verification of %s is incomplete: the reason stands beside each check that was not made; --partial accepts this", r.Disk.Path)
	}
	return nil
}
