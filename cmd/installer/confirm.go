package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"installer/install"
	"installer/install/printable"

	"golang.org/x/term"
)

// errDeclined ends an installation that the person at the terminal did not want.
var errDeclined = errors.New("not confirmed: nothing was written")

// confirmAtTerminal asks the person at the terminal, or nobody if there is no
// terminal: scripts are held by --wipe alone.
func confirmAtTerminal(in *os.File, out io.Writer) func(context.Context, *install.Plan) error {
	file, isTerminal := terminal(out)
	if !isTerminal || !term.IsTerminal(int(in.Fd())) {
		return nil
	}
	return func(ctx context.Context, p *install.Plan) error {
		fmt.Fprintln(out)
		var text strings.Builder
		writePlan(&text, p)
		fmt.Fprint(out, fold(text.String(), terminalWidth(file)))
		printable.Fprintf(out, "\nType yes to overwrite %s: ", p.Device)
		return readConsent(ctx, in)
	}
}

// readConsent waits for a line, or for the end of ctx. The read that is left
// behind then ends with the process.
func readConsent(ctx context.Context, in io.Reader) error {
	lines := make(chan string, 1)
	go func() {
		// The answer is the input up to its end, whether that is a line end or not.
		line, _ := bufio.NewReader(in).ReadString('\n')
		lines <- line
	}()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case line := <-lines:
		if strings.EqualFold(strings.TrimSpace(line), "yes") {
			return nil
		}
		return errDeclined
	}
}
