package tests

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// rival is a tool that answers a part of the same question.
type rival struct {
	name string
	argv func(x *target) []string
}

func rivals(b testing.TB) []rival {
	return []rival{
		{"installer holders", func(x *target) []string { return []string{BuildInstaller(b), "holders", x.dir} }},
		{"lsof +f --", func(x *target) []string { return []string{"lsof", "+f", "--", x.dir} }},
		{"fuser -vm", func(x *target) []string { return []string{"fuser", "-vm", x.dir} }},
		{"findmnt", func(x *target) []string { return []string{"findmnt", "--source", x.node} }},
	}
}

// BenchmarkHolders prints how long a full scan takes beside other tools, with 1,000 and 5,000 idle
// processes of 14 open files each, of a target that nobody uses and of one with a holder: medians of
// five, taken in turn, and as a share of lsof's time. Run it on an idle machine:
//
//	go test ./tests -run '^$' -bench Holders -benchtime 1x
func BenchmarkHolders(b *testing.B) {
	w := newWorkplace(b)
	x := w.target("ext4")
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		b.Fatal(err)
	}
	fmt.Printf("load before: %s", load)
	for _, n := range []int{1000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := startCrowd(b, n)
			defer c.End()
			for b.Loop() {
				measure(b, x, n, "unused")
				h := x.hold("fd", x.path("file"))
				measure(b, x, n, "held")
				h.Stop()
			}
		})
	}
}

// measure runs every tool five times.
func measure(b *testing.B, x *target, n int, state string) {
	const rounds = 5
	tools := rivals(b)
	walls, cpus := make([][]time.Duration, len(tools)), make([][]time.Duration, len(tools))
	for range rounds {
		for i, tool := range tools {
			wall, cpu := timed(x.argv(tool.argv(x)...))
			walls[i], cpus[i] = append(walls[i], wall), append(cpus[i], cpu)
		}
	}
	lsof := median(walls[1])
	for i, tool := range tools {
		wall := median(walls[i])
		share := wall.Seconds() / lsof.Seconds()
		fmt.Printf("%5d processes  %-6s  %-18s %8.1f ms  cpu %8.1f ms  %5.2f of lsof\n", n, state, tool.name,
			wall.Seconds()*1e3, median(cpus[i]).Seconds()*1e3, share)
		b.ReportMetric(share, state+"-"+strings.ReplaceAll(tool.name, " ", "-")+"/lsof")
	}
}

// timed runs a tool, whose status depends on its finding, and returns the time it took and used.
func timed(argv []string) (wall, cpu time.Duration) {
	cmd := exec.Command(argv[0], argv[1:]...)
	begin := time.Now()
	_ = cmd.Run()
	return time.Since(begin), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}
