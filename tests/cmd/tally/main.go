// Command tally reads the events of `go test -json`, prints a line for each package and whatever
// failing tests said, and ends with "N passed, N failed, N skipped". It fails when a test failed or
// was skipped, and when none ran: a suite that tests nothing must not look like one that passes.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	summary := flag.String("summary", "", "file that gets the last line, instead of standard output")
	flag.Parse()
	t := newTally(os.Stdout)
	err := t.read(os.Stdin)
	if err == nil {
		err = conclude(t, *summary, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(1)
	}
	if !t.good() {
		os.Exit(1)
	}
}

func conclude(t *tally, file string, out io.Writer) error {
	if file == "" {
		_, err := fmt.Fprintln(out, t.summary())
		return err
	}
	return os.WriteFile(file, []byte(t.summary()+"\n"), 0o644)
}
