package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// event is one line of `go test -json`; see `go doc test2json` and `go help buildjson`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of the package that a build event is about
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// tally counts tests as they end, and keeps their output until it is known whether it matters.
type tally struct {
	out                     io.Writer
	passed, failed, skipped int
	packages                map[string]int      // tests that passed, by package
	failedIn                map[string]int      // tests that failed, by package
	output                  map[string][]string // by package and test
}

// slow is the least duration of a test that gets a line of its own, so that a long run is seen to
// move.
const slow = 5 * time.Second

func newTally(out io.Writer) *tally {
	return &tally{out: out, packages: map[string]int{}, failedIn: map[string]int{}, output: map[string][]string{}}
}

func (t *tally) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			t.line(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the events: %w", err)
		}
	}
}

func (t *tally) line(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		t.out.Write(line) // output of the go command outside of its events
		return
	}
	switch e.Action {
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "output":
		key := e.Package + " " + e.Test
		t.output[key] = append(t.output[key], e.Output)
	case "pass", "fail", "skip":
		t.end(e)
	}
}

// end closes a test, or the package when the event names no test.
func (t *tally) end(e event) {
	key := e.Package + " " + e.Test
	if e.Test == "" {
		t.endPackage(e, key)
	} else {
		t.endTest(e, key)
	}
	delete(t.output, key)
}

func (t *tally) endTest(e event, key string) {
	took := time.Duration(e.Elapsed * float64(time.Second))
	switch e.Action {
	case "pass":
		t.passed++
		t.packages[e.Package]++
		if took >= slow && !strings.Contains(e.Test, "/") {
			fmt.Fprintf(t.out, "    %-60s %5.1f s\n", e.Test, e.Elapsed)
		}
		return
	case "fail":
		t.failed++
		t.failedIn[e.Package]++
	case "skip":
		t.skipped++
	}
	fmt.Fprintf(t.out, "%s %s %s:\n%s", strings.ToUpper(e.Action), e.Package, e.Test, strings.Join(t.output[key], ""))
}

// endPackage counts a package that failed by itself: its build, a panic, a time-out.
func (t *tally) endPackage(e event, key string) {
	switch {
	case e.Action == "fail":
		if t.failedIn[e.Package] == 0 {
			t.failed++
		}
		fmt.Fprintf(t.out, "FAIL %s\n%s", e.Package, strings.Join(t.output[key], ""))
		t.unfinished(e.Package)
	case t.packages[e.Package] > 0:
		fmt.Fprintf(t.out, "ok   %-60s %5.1f s, %d tests\n", e.Package, e.Elapsed, t.packages[e.Package])
	}
}

// unfinished prints the output of the tests that were running when their package's process ended. Its
// last words, such as a panic of another goroutine, are among it.
func (t *tally) unfinished(pkg string) {
	for _, key := range slices.Sorted(maps.Keys(t.output)) {
		if test, ok := strings.CutPrefix(key, pkg+" "); ok && test != "" {
			fmt.Fprintf(t.out, "UNFINISHED %s %s:\n%s", pkg, test, strings.Join(t.output[key], ""))
		}
	}
}

// good reports whether tests ran, all of them, and none failed.
func (t *tally) good() bool { return t.passed > 0 && t.failed == 0 && t.skipped == 0 }

func (t *tally) summary() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", t.passed, t.failed, t.skipped)
}
