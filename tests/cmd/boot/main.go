// Command boot boots an installed disk once under QEMU, prints the report of the system inside, and
// fails when anything is not as it must be on a first boot. The disk is not changed unless asked.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"installer/tests"
)

func main() {
	var o tests.BootOptions
	flag.StringVar(&o.Format, "format", "raw", "raw or qcow2")
	flag.StringVar((*string)(&o.Firmware), "firmware", "uefi", "uefi or bios")
	flag.StringVar(&o.Accel, "accel", "", "QEMU's accelerator; software emulation when empty")
	flag.BoolVar(&o.Writable, "writable", false, "let the boot change the disk")
	flag.DurationVar(&o.Timeout, "timeout", 15*time.Minute, "limit for the whole boot")
	flag.StringVar(&o.Console, "console", "", "file that gets the serial console")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: boot [flags] DISK")
		os.Exit(2)
	}
	o.Disk = flag.Arg(0)
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "boot:", err)
		os.Exit(1)
	}
}

func run(o tests.BootOptions) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	begin := time.Now()
	o.OnPhase = func(p tests.Phase) {
		fmt.Fprintf(os.Stderr, "    %5.1f s  %s\n", time.Since(begin).Seconds(), p)
	}
	e, err := tests.Boot(ctx, o)
	if err != nil {
		return err
	}
	fmt.Print(e)
	if bad := e.Problems(); len(bad) > 0 {
		for _, b := range bad {
			fmt.Fprintln(os.Stderr, "boot: PROBLEM:", b)
		}
		return fmt.Errorf("%d problems", len(bad))
	}
	return nil
}
