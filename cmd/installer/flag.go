package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flag declares a flag, once. Its check, its help, its completion and its place on the manual page
// are all derived from this.
type flag struct {
	name, short string
	group       group
	value       string   // name of its value; "" of a switch
	choices     []string // values that it takes; none = any
	initial     string   // value where it is not given
	brief       string   // help in a line
	detail      string   // for --help-all and the manual page
	// config is the key of the image's install configuration that counts where the flag is not
	// given, and fallback the value where the image has none either.
	config, fallback string
	hidden           bool
}

// group is the heading of a flag in a long help.
type group string

// The groups, in the order of a help.
const (
	groupImage   group = "Image"
	groupTarget  group = "Target"
	groupSystem  group = "System"
	groupMachine group = "Virtual machine"
	groupOutput  group = "Output"
	groupOther   group = "Others"
)

func groups() []group {
	return []group{groupImage, groupTarget, groupSystem, groupMachine, groupOutput, groupOther}
}

// Annotations of a pflag.Flag that carry its declaration to the help.
const (
	noteGroup   = "group"
	noteValue   = "value"
	noteChoices = "choices"
	noteDetail  = "detail"
)

// text adds a flag that has a value.
func (d flag) text(flags *pflag.FlagSet, p *string) {
	*p = d.initial
	if len(d.choices) > 0 {
		flags.VarP(&choice{value: p, choices: d.choices}, d.name, d.short, d.help())
	} else {
		flags.StringVarP(p, d.name, d.short, d.initial, d.help())
	}
	d.annotate(flags)
}

// list adds a flag that may be repeated.
func (d flag) list(flags *pflag.FlagSet, p *[]string) {
	flags.StringArrayVarP(p, d.name, d.short, nil, d.help())
	d.annotate(flags)
}

// toggle adds a switch.
func (d flag) toggle(flags *pflag.FlagSet, p *bool) {
	flags.BoolVarP(p, d.name, d.short, false, d.help())
	d.annotate(flags)
}

func (d flag) annotate(flags *pflag.FlagSet) {
	f := flags.Lookup(d.name)
	f.Hidden = d.hidden
	where := d.group
	if where == "" {
		where = groupOther
	}
	detail := d.detail
	if d.config != "" {
		detail = strings.TrimSpace(detail + " Default: " + d.config + " of the image's configuration, or else " + d.fallback + ".")
	}
	f.Annotations = map[string][]string{noteGroup: {string(where)}, noteValue: {d.value}, noteChoices: d.choices, noteDetail: {detail}}
}

// note returns an annotation of a flag; "" where it has none.
func note(f *pflag.Flag, name string) string {
	if values := f.Annotations[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// choice is the value of a flag that takes one of a few.
type choice struct {
	value   *string
	choices []string
}

func (c *choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

func (c *choice) Type() string { return "string" }

// Set refuses a value that is none of the choices, and proposes the one that is nearest to it. An
// empty value is none given.
func (c *choice) Set(s string) error {
	if s != "" && !slices.Contains(c.choices, s) {
		return fmt.Errorf("unknown value %q: want %s%s", s, enumerate(c.choices), didYouMean(s, c.choices))
	}
	*c.value = s
	return nil
}

// enumerate lists alternatives: "a, b or c".
func enumerate(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " or " + list[len(list)-1]
}

// addCompletions has the shell's completion offer the values that flags take.
func addCompletions(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			var offer cobra.CompletionFunc
			switch choices := f.Annotations[noteChoices]; {
			case len(choices) > 0:
				offer = cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)
			case note(f, noteValue) == "REF":
				offer = completeRef
			default:
				return
			}
			// It fails for a flag that is not there, or is done already: neither is so.
			_ = cmd.RegisterFlagCompletionFunc(f.Name, offer)
		})
	}
}

// help returns the help of the flag in a line: its brief text, its choices and its default.
func (d flag) help() string {
	initial := d.initial
	if initial == "" {
		initial = d.fallback
	}
	if len(d.choices) == 0 {
		if initial == "" || d.value == "" {
			return d.brief
		}
		return fmt.Sprintf("%s (default: %s)", d.brief, initial)
	}
	shown := slices.Clone(d.choices)
	if i := slices.Index(shown, initial); i >= 0 {
		shown[i] += " (default)"
	}
	return d.brief + ": " + enumerate(shown)
}
