package tests

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"installer/tests/kit"

	"golang.org/x/sys/unix"
)

// crowdScript makes $1 idle processes, which end with its standard input, and have 14 open files.
const crowdScript = `exec 3<&0 4<&0 5<&0 6<&0 7<&1 8<&1 9<&1 11<&2 12<&2 13</ 14</dev/null
for ((i = 0; i < $1; i++)); do (read -r _ <&3) & done
echo ready
wait`

// startCrowd starts many idle processes.
func startCrowd(t testing.TB, n int) *kit.Child {
	t.Helper()
	limit := unix.Rlimit{Cur: 65536, Max: 65536}
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &limit); err != nil {
		t.Fatal(err)
	}
	c := kit.Start(t, exec.Command("bash", "-c", crowdScript, "crowd", fmt.Sprint(n)))
	t.Cleanup(c.End)
	c.Await(t, "ready")
	return c
}

// TestNoFalseHolder has nobody who holds the target, in a crowd of processes and namespaces, each of
// which has a copy of everything but the target; and then one who does.
func TestNoFalseHolder(t *testing.T) {
	LoopSnapshot(t)
	const processes, namespaces = 5000, 50
	w := newWorkplace(t)
	for range namespaces {
		startHolder(t, w.argv("unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; read _")...)
	}
	startCrowd(t, processes)
	x := w.target("ext4")
	report := x.examine(x.dir, 0)
	if report.Verdict != "free" || len(report.Holders) != 0 || report.Processes < processes || report.Namespaces < namespaces {
		t.Errorf("verdict %s, %+v in %d processes and %d namespaces", report.Verdict, report.Holders, report.Processes, report.Namespaces)
	}
	for _, class := range strings.Fields("fd map cwd root exe mount namespace detached-mount loop swap overlay file-image " +
		"fanotify unix-socket in-flight io-uring binfmt uprobe fs-context frozen") {
		if !strings.Contains(" "+strings.Join(report.Searched, " ")+" ", " "+class+" ") {
			t.Errorf("%s was not looked for", class)
		}
	}
	h := x.hold("map", x.path("file"))
	if report := x.examine(x.dir, 3); len(report.Holders) != 1 {
		t.Errorf("%+v, want one", report.Holders)
	} else {
		report.has(t, "map", h.PID, "/file")
	}
	h.Stop()
	x.released()
}
