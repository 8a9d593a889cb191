package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Columns of a help text: those of the smallest terminal, and where texts begin.
const (
	helpWidth  = 80
	helpColumn = 33
)

// manyFlags is from how many flags they are grouped.
const manyFlags = 12

// helpAll is the value of --help-all: setting it asks for help.
type helpAll struct{ asked bool }

func (h *helpAll) String() string   { return "" }
func (h *helpAll) Type() string     { return "bool" }
func (h *helpAll) IsBoolFlag() bool { return true }
func (h *helpAll) Set(string) error { h.asked = true; return pflag.ErrHelp }

// addHelp gives a command, and those below it, the help of this file.
func addHelp(root *cobra.Command) {
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		// Nothing is left to be done where the help cannot be printed.
		_, _ = io.WriteString(cmd.OutOrStdout(), helpText(cmd, wantsAll(cmd)))
	})
	for _, cmd := range root.Commands() {
		cmd.DisableFlagsInUseLine = true
		if !strings.Contains(cmd.UseLine(), "[flags]") {
			continue
		}
		var ignored bool // cobra reads it
		flag{name: "help", short: "h", group: groupOutput, brief: "print this help"}.toggle(cmd.Flags(), &ignored)
		all := flag{name: "help-all", group: groupOutput, brief: "print this help with all details"}
		cmd.Flags().VarPF(&helpAll{}, all.name, "", all.brief).NoOptDefVal = "true"
		all.annotate(cmd.Flags())
	}
}

func wantsAll(cmd *cobra.Command) bool {
	flag := cmd.Flags().Lookup("help-all")
	if flag == nil {
		return false
	}
	value, ok := flag.Value.(*helpAll)
	return ok && value.asked
}

// helpText is the whole help of a command. A command with many flags has to fit
// a screen, so its long text is left to --help-all.
func helpText(cmd *cobra.Command, all bool) string {
	var b strings.Builder
	flags := visibleFlags(cmd)
	long := len(flags) >= manyFlags
	if text := cmd.Long; text != "" && (all || !long) {
		fmt.Fprintf(&b, "%s\n\n", fill(strings.TrimSpace(text)))
	} else {
		fmt.Fprintf(&b, "%s\n\n", cmd.Short)
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "Usage: %s COMMAND [flags]\n", cmd.CommandPath())
		writeCommands(&b, cmd)
	} else {
		fmt.Fprintf(&b, "Usage: %s\n", cmd.UseLine())
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", wrapExamples(cmd.Example))
	}
	writeFlags(&b, flags, long, all)
	switch {
	case cmd.HasAvailableSubCommands():
		fmt.Fprintf(&b, "\n'%s COMMAND --help' explains a command.\n", cmd.CommandPath())
	case long && !all:
		fmt.Fprintf(&b, "\n'%s --help-all' has the details.\n", cmd.CommandPath())
	}
	return b.String()
}

func writeCommands(b *strings.Builder, cmd *cobra.Command) {
	b.WriteString("\nCommands:\n")
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			b.WriteString(hang("  "+c.Name(), c.Short, 24))
		}
	}
}

// visibleFlags lists the flags that are shown in a help.
func visibleFlags(cmd *cobra.Command) []*pflag.Flag {
	var list []*pflag.Flag
	cmd.InitDefaultHelpFlag()
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			list = append(list, f)
		}
	})
	return list
}

func writeFlags(b *strings.Builder, flags []*pflag.Flag, grouped, all bool) {
	if !grouped {
		writeGroup(b, "Flags", flags, all)
		return
	}
	for _, g := range groups() {
		var here []*pflag.Flag
		for _, f := range flags {
			if where := group(note(f, noteGroup)); where == g {
				here = append(here, f)
			}
		}
		writeGroup(b, string(g), here, all)
	}
}

func writeGroup(b *strings.Builder, title string, flags []*pflag.Flag, all bool) {
	if len(flags) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	for _, f := range flags {
		b.WriteString(hang("  "+flagName(f), f.Usage, helpColumn))
		if detail := note(f, noteDetail); all && detail != "" {
			b.WriteString(hang("", detail, helpColumn+2))
		}
	}
}

// flagName is how a flag is given.
func flagName(f *pflag.Flag) string {
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	if value := note(f, noteValue); value != "" {
		name += " " + value
	}
	return name
}

// hang sets text in a column of its own beside a label. A label that is too long
// has a line for itself, unless the text fits beside it.
func hang(label, text string, column int) string {
	var b strings.Builder
	b.WriteString(label)
	at := len(label)
	if at >= column && at+2+len(text) <= helpWidth {
		b.WriteString("  " + text + "\n")
		return b.String()
	}
	if at >= column {
		b.WriteString("\n")
		at = 0
	}
	for _, line := range wrap(text, helpWidth-column) {
		b.WriteString(strings.Repeat(" ", column-at) + line + "\n")
		at = 0
	}
	return b.String()
}

// wrap breaks text into lines of at most width columns.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// fill wraps paragraphs to the terminal; indented lines stay as they are.
func fill(text string) string {
	var b strings.Builder
	var words []string
	flush := func() {
		if len(words) > 0 {
			b.WriteString(strings.Join(wrap(strings.Join(words, " "), helpWidth), "\n") + "\n")
		}
		words = nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if line != "" && !strings.HasPrefix(line, " ") && !strings.HasSuffix(line, ":") {
			words = append(words, line)
			continue
		}
		if strings.HasSuffix(line, ":") && !strings.HasPrefix(line, " ") {
			words = append(words, line)
			flush()
			continue
		}
		flush()
		b.WriteString(line + "\n")
	}
	flush()
	return strings.TrimRight(b.String(), "\n")
}

// wrapExamples continues long command lines as a shell reads them.
func wrapExamples(text string) string {
	var b strings.Builder
	for i, example := range strings.Split(text, "\n") {
		if i > 0 {
			b.WriteString("\n")
		}
		for j, line := range wrap(example, helpWidth-8) {
			if j > 0 {
				b.WriteString(" \\\n      ")
			} else {
				b.WriteString("  ")
			}
			b.WriteString(line)
		}
	}
	return b.String()
}
