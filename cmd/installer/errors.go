package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"

	"installer/disk"
	"installer/rootfs/image"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// writeError says why a command failed, in the form of all errors: what was
// being done, to what, why it failed; and what to do.
func writeError(w io.Writer, cmd *cobra.Command, err error) {
	text := err.Error()
	if todo := advice(err); todo != "" {
		text += "; to do: " + todo
	}
	fmt.Fprintf(w, "installer: error: %s\n", text)
	if f := cmd.Flags().Lookup("verbose"); f != nil && f.Value.String() == "true" {
		for _, line := range details(err) {
			fmt.Fprintf(w, "  %s\n", line)
		}
		for _, cause := range causes(err) {
			fmt.Fprintf(w, "  caused by: %s\n", cause)
		}
	}
	if exitStatus(err) == exitUsage {
		fmt.Fprintf(w, "Try '%s --help'.\n", cmd.CommandPath())
	}
}

// details lists what an error leaves out of its one line, such as each use of a disk.
func details(err error) []string {
	var long interface{ Details() []string }
	if errors.As(err, &long) {
		return long.Details()
	}
	return nil
}

// advice is what to do about an error that does not say so itself; "" for
// nothing, or where it depends.
func advice(err error) string {
	if strings.Contains(err.Error(), "to do: ") || is[*usageError](err) {
		return ""
	}
	switch {
	case errors.Is(err, context.Canceled):
		return "what was begun was given back; give the same command again to start anew"
	case is[*disk.TooSmallError](err):
		return "take a larger disk; a disk file grows by truncate -s SIZE FILE"
	case errors.Is(err, unix.ENOSPC):
		return "make room there, or have TMPDIR name a directory with more"
	case is[*image.SourceError](err):
		return sourceAdvice(err)
	case errors.Is(err, fs.ErrNotExist):
		return "check the path"
	case errors.Is(err, fs.ErrPermission):
		return "run it as root: sudo installer …"
	}
	return ""
}

// sourceAdvice is advice about an image that cannot be read.
func sourceAdvice(err error) string {
	switch {
	case is[*net.OpError](err), is[*net.DNSError](err):
		return "check the registry's name and the network; or fetch the image first: skopeo copy docker://NAME oci:DIR:TAG"
	case strings.Contains(err.Error(), "of the image: "):
		return "give an image that is made to be booted, with its kernel's modules"
	case errors.Is(err, fs.ErrNotExist):
		return "check the path of the image; skopeo copy docker://NAME oci:DIR:TAG makes an oci directory"
	case strings.Contains(err.Error(), "does not resolve to an image ID"):
		return "podman images lists the images that are there"
	}
	return ""
}

// causes lists what an error was made of, outermost first, with the type of
// each; what says the same as the one around it is left out.
func causes(err error) []string {
	var list []string
	var walk func(error, string)
	walk = func(e error, around string) {
		if text := e.Error(); text != around {
			list = append(list, fmt.Sprintf("%s (%T)", text, e))
			around = text
		}
		switch x := e.(type) {
		case interface{ Unwrap() error }:
			if inner := x.Unwrap(); inner != nil {
				walk(inner, around)
			}
		case interface{ Unwrap() []error }:
			for _, inner := range x.Unwrap() {
				walk(inner, around)
			}
		}
	}
	walk(err, err.Error())
	return list
}
