package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"installer/cmd/installer/page"
	"installer/install/outfile"
	"installer/install/printable"

	"github.com/spf13/cobra"
)

const reportHelp = `Makes one HTML page of a report: the JSON of --report, or the output of holders --json,
verify --json or --progress json. The page is complete in itself, and needs
neither scripts nor a network.

FILE may be - for standard input. The page goes to FILE with the suffix .html instead of
its own, or where -o says; - is standard output.`

func newReportCommand(stdout io.Writer) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "report [flags] FILE",
		Short: "Make an HTML page of a report",
		Long:  reportHelp,
		Example: `  installer report report.json
  installer holders --json /mnt | installer report -o holders.html -`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runReport(cmd.InOrStdin(), args[0], output, stdout)
		},
	}
	flag{name: "output", short: "o", value: "FILE", brief: "file of the page", fallback: "FILE with the suffix .html"}.text(cmd.Flags(), &output)
	return cmd
}

func runReport(stdin io.Reader, input, output string, stdout io.Writer) error {
	data, err := readInput(stdin, input)
	if err != nil {
		return fmt.Errorf("reading the report: %w", err)
	}
	var html bytes.Buffer
	if err := page.WriteHTML(&html, data); err != nil {
		return fmt.Errorf("reading the report %s: %w", input, err)
	}
	if output == "" {
		output = pageName(input)
	}
	if output == "-" {
		if _, err := html.WriteTo(stdout); err != nil {
			return fmt.Errorf("printing the page: %w", err)
		}
		return nil
	}
	guard := outfile.NewGuard()
	if input != "-" {
		if err := guard.AddFile("the report that the page is made of", input); err != nil {
			return err
		}
	}
	if err := guard.Check(output); err != nil {
		return &usageError{fmt.Errorf("--output: %w", err)}
	}
	if err := outfile.Write(output, html.Bytes(), replaceable(guard)); err != nil {
		return fmt.Errorf("writing the page %s: %w", output, err)
	}
	printable.Fprintf(stdout, "%s\n", output)
	return nil
}

func readInput(stdin io.Reader, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}

// pageName is where a page goes that nobody named a place for.
func pageName(input string) string {
	if input == "-" {
		return "-"
	}
	return strings.TrimSuffix(input, filepath.Ext(input)) + ".html"
}
