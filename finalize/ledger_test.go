package finalize

import (
	"strings"
	"sync"
	"testing"

	"installer/tests/targettest"
)

func TestLedgerNamesTheCaller(t *testing.T) {
	l := NewLedger()
	first := targettest.Record(l, "map", "one")
	second := targettest.Record(l, "fd", "two")
	open := l.Open()
	if len(open) != 2 || open[0].Name != "one" || open[1].Kind != "fd" {
		t.Fatalf("open: %v", open)
	}
	if !strings.Contains(open[0].OpenedAt, "ledger_test.go:") || !strings.Contains(open[0].Stack[0], "helper.go:") {
		t.Errorf("opened at %q, stack %q", open[0].OpenedAt, open[0].Stack)
	}
	if text := open[0].String(); !strings.Contains(text, "map one, opened at "+open[0].Stack[0]+", called from "+open[0].OpenedAt) {
		t.Errorf("told as %q", text)
	}
	first()
	first() // a second time is nothing
	if open := l.Open(); len(open) != 1 || open[0].Name != "two" {
		t.Errorf("open: %v", open)
	}
	second()
	if open := l.Open(); len(open) != 0 {
		t.Errorf("open: %v", open)
	}
}

func TestLedgerConcurrently(t *testing.T) {
	l := NewLedger()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 1000 {
				l.Opened("fd", "x")()
			}
		})
	}
	group.Wait()
	if open := l.Open(); len(open) != 0 {
		t.Errorf("%d are open", len(open))
	}
}

func TestPackageOf(t *testing.T) {
	for function, want := range map[string]string{
		"installer/rootfs/ostree.(*Repo).Load": "installer/rootfs/ostree",
		"go.podman.io/image/v5/copy.Image":     "go.podman.io/image/v5/copy",
		"main.main":                            "main",
		"weird":                                "weird",
	} {
		if got := packageOf(function); got != want {
			t.Errorf("%s: %s, want %s", function, got, want)
		}
	}
}

func BenchmarkLedger(b *testing.B) {
	l := NewLedger()
	for b.Loop() {
		l.Opened("fd", "x")()
	}
}
