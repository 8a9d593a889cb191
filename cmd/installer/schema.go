package main

import (
	"fmt"
	"io"
	"strings"

	"installer/install/schema"

	"github.com/spf13/cobra"
)

func newSchemaCommand(stdout io.Writer) *cobra.Command {
	var names []string
	var list strings.Builder
	for _, d := range schema.Documents() {
		names = append(names, d.Name)
		fmt.Fprintf(&list, "  %-9s %s\n", d.Name, d.Text)
	}
	return &cobra.Command{
		Use:   "schema NAME",
		Short: "Print the JSON schema of a report or of the progress",
		Long: `Prints the JSON schema (draft 2020-12) of a document that the installer prints or writes.
A version of a document may gain members; programs must ignore members that they do not know.

` + strings.TrimRight(list.String(), "\n"),
		Example:   "  installer schema event > event.schema.json",
		ValidArgs: names,
		Args:      usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := schema.Get(args[0])
			if err != nil {
				return &usageError{err}
			}
			if _, err := fmt.Fprintf(stdout, "%s\n", text); err != nil {
				return fmt.Errorf("printing the schema: %w", err)
			}
			return nil
		},
	}
}
