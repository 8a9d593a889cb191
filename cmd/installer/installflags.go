package main

import (
	"context"
	"errors"
	"io"
	"os"

	"installer/install"
	"installer/install/outfile"

	"github.com/spf13/pflag"
)

// streams are the outputs of a command.
type streams struct{ stdout, stderr io.Writer }

// installFlags are the common flags of to-disk and to-filesystem.
type installFlags struct {
	image   sourceFlags
	config  configFlags
	output  outputFlags
	yes     bool
	dryRun  bool
	generic bool
}

func (f *installFlags) addTo(flags *pflag.FlagSet) {
	f.image.addTo(flags)
	flag{name: "yes", group: groupTarget, brief: "do not ask for confirmation at a terminal"}.toggle(flags, &f.yes)
	dryRunFlag().toggle(flags, &f.dryRun)
	flag{name: "generic-image", group: groupSystem, brief: "start under every firmware, not just this one",
		detail: "Install the boot loader for every kind of firmware that it has a place for, not only for the one that started this machine."}.toggle(flags, &f.generic)
	f.config.addTo(flags)
	f.output.addTo(flags)
}

func dryRunFlag() flag {
	return flag{name: "dry-run", group: groupTarget, brief: "print the plan, and write nothing"}
}

// apply checks the flags and sets the options.
func (f *installFlags) apply(o *install.Options) error {
	o.DryRun, o.GenericImage = f.dryRun, f.generic
	if err := f.image.apply(o); err != nil {
		return err
	}
	return f.config.apply(o)
}

// job is the part of an installation that differs between the commands.
type job struct {
	protect func(*outfile.Guard) error // adds the target to the files that no report may replace
	enter   func() error               // readies the process
	run     func(context.Context, install.Options, install.Observer) (*install.Report, error)
}

// perform runs an installation in this process, from the checked options to the report.
func (f *installFlags) perform(parent context.Context, s streams, o install.Options, j job) error {
	if err := j.enter(); err != nil {
		return err
	}
	guard, err := protectInputs(o, f.image.authFile, f.config.sshKeys)
	if err == nil {
		err = j.protect(guard)
	}
	if err != nil {
		return err
	}
	if !f.yes {
		o.Confirm = confirmAtTerminal(os.Stdin, s.stderr)
	}
	out, err := f.output.open(s.stdout, s.stderr, guard)
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(parent)
	defer stop()
	report, err := j.run(ctx, o, out.event)
	if is[*signalError](err) {
		err = &advisedError{err, "the changes of this machine are undone; give the same command again to start anew"}
	}
	return errors.Join(err, out.finish(report))
}

// protectInputs lists the files that an installation reads: no output may replace one of them.
func protectInputs(o install.Options, files ...string) (*outfile.Guard, error) {
	guard := outfile.NewGuard()
	paths, err := o.Source.Paths()
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if err := guard.AddTree("the source image", path); err != nil {
			return nil, err
		}
	}
	for _, path := range files {
		if err := guard.AddFile("an input of this command", path); err != nil {
			return nil, err
		}
	}
	return guard, nil
}
