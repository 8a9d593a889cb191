// Command hold holds a file system in one way until its standard input ends:
//
//	hold KIND [PATH...]
//
// It prints "ready" when it does. The kinds are those of package hold.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"

	"installer/tests/hold"
)

// The main goroutine keeps the process's first thread, which some kinds end.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: hold KIND [PATH...]")
		os.Exit(2)
	}
	if err := hold.Hold(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "hold:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // an error ends it as well
}
