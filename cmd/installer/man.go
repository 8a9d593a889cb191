package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"installer/install/outfile"
	"installer/install/printable"
)

// newManCommand is for those who make packages of the installer.
func newManCommand(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a directory",
		Hidden: true,
		Args:   usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			date, err := manDate(os.Getenv("SOURCE_DATE_EPOCH"), time.Now())
			if err != nil {
				return err
			}
			for _, c := range append([]*cobra.Command{cmd.Root()}, cmd.Root().Commands()...) {
				if c != cmd.Root() && (!c.IsAvailableCommand() || c.Name() == "help") {
					continue
				}
				path := filepath.Join(args[0], manName(c)+".1")
				if err := outfile.Write(path, []byte(manPage(c, date)), earlierPage); err != nil {
					return fmt.Errorf("writing the manual page %s: %w", path, err)
				}
				printable.Fprintf(stdout, "%s\n", path)
			}
			return nil
		},
	}
}

// earlierPage allows to replace a manual page of the installer, and no other file.
var earlierPage = outfile.Options{Mine: func(content []byte) bool { return bytes.HasPrefix(content, []byte(".TH INSTALLER")) }}

// manDate is the date of the pages: the one that a reproducible build sets in
// seconds since 1970 (reproducible-builds.org, SOURCE_DATE_EPOCH), else today.
func manDate(epoch string, now time.Time) (string, error) {
	if epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return "", fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		now = time.Unix(seconds, 0)
	}
	return now.UTC().Format("2006-01-02"), nil
}

func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manPage is the page of one command, in the macros of man(7).
func manPage(cmd *cobra.Command, date string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 %s installer \"User Commands\"\n", strings.ToUpper(roff(manName(cmd))), date)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(manName(cmd)), roff(lowerFirst(cmd.Short)))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(cmd.CommandPath()))
	if cmd.HasAvailableSubCommands() {
		b.WriteString("COMMAND [flags]\n")
	} else if rest := strings.TrimSpace(strings.TrimPrefix(cmd.UseLine(), cmd.CommandPath())); rest != "" {
		fmt.Fprintf(&b, "%s\n", roff(rest))
	}
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	b.WriteString(".SH DESCRIPTION\n")
	manText(&b, long)
	if cmd.HasAvailableSubCommands() {
		b.WriteString(".SH COMMANDS\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", roff(manName(c)), roff(c.Short))
			}
		}
	}
	manFlags(&b, cmd)
	if cmd.Example != "" {
		b.WriteString(".SH EXAMPLES\n.nf\n")
		manLines(&b, strings.Split(cmd.Example, "\n"))
		b.WriteString(".fi\n")
	}
	if cmd.HasParent() {
		fmt.Fprintf(&b, ".SH SEE ALSO\n.BR %s (1)\n", roff(manName(cmd.Parent())))
	}
	return b.String()
}

func manFlags(b *strings.Builder, cmd *cobra.Command) {
	flags := visibleFlags(cmd)
	if len(flags) == 0 {
		return
	}
	b.WriteString(".SH OPTIONS\n")
	for _, f := range flags {
		name := `\fB` + roff("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			name = `\fB` + roff("-"+f.Shorthand) + `\fR, ` + name
		}
		if value := note(f, noteValue); value != "" {
			name += ` \fI` + roff(value) + `\fR`
		}
		fmt.Fprintf(b, ".TP\n%s\n", name)
		manLines(b, wrap(strings.ToUpper(f.Usage[:1])+f.Usage[1:]+". "+note(f, noteDetail), manWidth))
	}
}

// manWidth is how long lines of a page's source become.
const manWidth = 70

// manText writes paragraphs; indented lines stay as they are.
func manText(b *strings.Builder, text string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		asIs := false
		for _, line := range strings.Split(paragraph, "\n") {
			if indented := strings.HasPrefix(line, "  "); indented != asIs {
				asIs = indented
				b.WriteString(map[bool]string{true: ".nf\n", false: ".fi\n"}[asIs])
			}
			manLines(b, []string{line})
		}
		if asIs {
			b.WriteString(".fi\n")
		}
	}
}

func manLines(b *strings.Builder, lines []string) {
	for _, line := range lines {
		line = roff(line)
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		b.WriteString(line + "\n")
	}
}

// roff escapes characters that the formatter would interpret.
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", `\[u2026]`).Replace(s)
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
