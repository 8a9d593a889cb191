package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"installer/install/printable"

	"github.com/spf13/cobra"
)

// adviser is an error that knows its remedy. Whether an errno has one depends on the operation, so
// only the error type of the operation says so.
type adviser interface {
	error
	Advice() string
}

// detailed is an error whose message leaves out a list that is shown with --verbose.
type detailed interface {
	error
	Details() []string
}

// advisedError adds the remedy that a command knows to an error of a package that does not.
type advisedError struct {
	error
	advice string
}

func (e *advisedError) Unwrap() error  { return e.error }
func (e *advisedError) Advice() string { return e.advice }

// writeError says why a command failed, in the form of all errors: the operation, its object, the
// cause, and the remedy if there is one.
func writeError(w io.Writer, cmd *cobra.Command, err error) {
	text := printable.Error(err)
	if todo := advice(err); todo != "" {
		text += "; to do: " + printable.Line(todo)
	}
	fmt.Fprintf(w, "installer: error: %s\n", strings.ReplaceAll(text, "\n", "\ninstaller: error: "))
	if f := cmd.Flags().Lookup("verbose"); f != nil && f.Value.String() == "true" {
		for _, line := range details(err) {
			printable.Fprintf(w, "  %s\n", line)
		}
		for _, cause := range causes(err) {
			printable.Fprintf(w, "  caused by: %s\n", cause)
		}
	}
	if exitStatus(err) == exitUsage {
		fmt.Fprintf(w, "Try '%s --help'.\n", cmd.CommandPath())
	}
}

// advice returns the remedies of an error, one of each of the errors that were joined: the
// outermost, which knows most of the operation.
func advice(err error) string {
	var list []string
	walk(err, func(e error) bool {
		a, knows := e.(adviser)
		if !knows {
			return true
		}
		if text := a.Advice(); text != "" && !slices.Contains(list, text) {
			list = append(list, text)
		}
		return false
	})
	return strings.Join(list, "; ")
}

// details returns the lists that the messages of an error leave out.
func details(err error) []string {
	var list []string
	walk(err, func(e error) bool {
		d, has := e.(detailed)
		if has {
			list = append(list, d.Details()...)
		}
		return !has
	})
	return list
}

// walk visits an error and the errors that it wraps, outermost first, as long as visit returns true.
func walk(err error, visit func(error) bool) {
	if err == nil || !visit(err) {
		return
	}
	switch x := err.(type) {
	case interface{ Unwrap() error }:
		walk(x.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range x.Unwrap() {
			walk(inner, visit)
		}
	}
}

// causes lists the errors that an error wraps, outermost first, with the type of
// each; one that says the same as the one around it is left out.
func causes(err error) []string {
	var list []string
	around := err.Error()
	walk(err, func(e error) bool {
		if text := e.Error(); text != around {
			list = append(list, fmt.Sprintf("%s (%T)", text, e))
			around = text
		}
		return true
	})
	return list
}

// is reports whether an error of type T is in err's chain.
func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}
