// Command installer turns a bootable OS image into a bootable disk and hands
// the disk back provably released.
//
// This folder is the command line: one file for each subcommand, flags,
// printing and exit statuses. The work of a subcommand is in the packages
// that it calls.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"installer/finalize"
	"installer/install/confine"
	"installer/install/printable"

	"go.podman.io/storage/pkg/reexec"
)

func main() {
	if reexec.Init() { // a child in which containers-storage unpacks a layer
		return
	}
	if os.Args[0] == finalize.FreezerArg0 {
		os.Exit(finalize.FreezerMain())
	}
	if os.Args[0] == confine.Arg0 {
		fmt.Fprintln(os.Stderr, printable.Error(confine.Main()))
		os.Exit(exitFailed)
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns its exit status.
func run(args []string, stdout, stderr io.Writer) int {
	out := &sink{Writer: stdout}
	root := newRootCommand(out, stderr)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(context.Background())
	if lost := out.close(); lost != nil && !errors.Is(err, errors.Unwrap(lost)) {
		err = errors.Join(err, lost)
	}
	if err != nil && !is[*statusError](err) {
		writeError(stderr, cmd, err)
	}
	return exitStatus(err)
}
