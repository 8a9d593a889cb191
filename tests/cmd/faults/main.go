// Command faults runs the installer over and over, does something terrible to each run, and looks
// whether every promise was kept. tests/faults builds the programs and starts it.
//
// Each run has a kind and a number; with the seed they decide everything that is decided here, so
// that a run can be repeated. How far the installer was when a signal came cannot.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	count     int
	seed      uint64
	kinds     string
	run       int
	installer string
	image     string
	list      bool
	verbose   bool
}

func main() {
	var o options
	flag.IntVar(&o.count, "n", 100, "number of runs")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the place of each fault")
	flag.StringVar(&o.kinds, "kind", "", "kinds of faults, with commas between them (default: all)")
	flag.IntVar(&o.run, "run", -1, "only the run of this number of each kind")
	flag.StringVar(&o.installer, "installer", "", "the installer's binary")
	flag.StringVar(&o.image, "image", "", "a real image, which one run in ten installs (default: small ones only)")
	flag.BoolVar(&o.list, "list", false, "list the kinds")
	flag.BoolVar(&o.verbose, "v", false, "print a line for each run")
	flag.Parse()
	if o.list {
		for _, k := range kinds() {
			fmt.Printf("%-18s %s\n", k.name, k.what)
		}
		return
	}
	ok, err := run(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// run does all runs and prints the tally. It returns whether every promise was kept.
func run(o options) (bool, error) {
	chosen, err := chooseKinds(o.kinds)
	if err != nil {
		return false, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	l, err := newLab(ctx, o)
	if err != nil {
		return false, err
	}
	defer l.close()
	tally := newTally(chosen)
	began := time.Now()
	for i := range o.count {
		if ctx.Err() != nil {
			break
		}
		k, number := chosen[i%len(chosen)], i/len(chosen)
		if o.run >= 0 {
			if i >= len(chosen) {
				break
			}
			number = o.run
		}
		t := l.newTrial(k, number)
		t.perform()
		tally.add(t, o)
	}
	tally.print(os.Stdout, o, time.Since(began))
	return tally.violations == 0 && ctx.Err() == nil, ctx.Err()
}

func chooseKinds(names string) ([]kind, error) {
	all := kinds()
	if names == "" {
		return all, nil
	}
	var chosen []kind
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(k kind) bool { return k.name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown kind %q: -list shows them", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}
