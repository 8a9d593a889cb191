package ostree

import (
	"errors"
	"strings"
	"testing"
)

// TestLock: shared locks go together, an exclusive one with nothing, and the ostree command waits
// for ours.
func TestLock(t *testing.T) {
	repo := createRepo(t)
	dir := t.TempDir()
	nativeCommit(t, repo.Repo, dir)
	lock := func(exclusive bool, want error) func() error {
		t.Helper()
		unlock, err := repo.Lock(exclusive)
		if !errors.Is(err, want) {
			t.Fatalf("Lock(%v): %v, want %v", exclusive, err, want)
		}
		return unlock
	}
	first, second := lock(false, nil), lock(false, nil)
	lock(true, ErrLocked)
	if list := strings.Join(repo.ledger.list(), "\n"); !strings.Contains(list, "lock ostree/repo/.lock x2") {
		t.Errorf("ledger: %s", list)
	}
	run(t, "ostree", "--repo="+repo.path, "config", "set", "core.lock-timeout-secs", "0")
	prune := []string{"ostree", "--repo=" + repo.path, "prune", "--refs-only"}
	if _, err := tryRun(prune...); err == nil || !strings.Contains(err.Error(), "Locking") {
		t.Errorf("prune beside a shared lock: %v", err)
	}
	if err := errors.Join(first(), second()); err != nil {
		t.Error(err)
	}
	if err := first(); !errors.Is(err, ErrClosed) {
		t.Errorf("second unlock: %v", err)
	}
	run(t, prune...)
	held := lock(true, nil)
	lock(false, ErrLocked)
	if err := repo.Close(); err != nil {
		t.Error(err)
	}
	if err := held(); !errors.Is(err, ErrClosed) {
		t.Errorf("unlock after the repository's Close: %v", err)
	}
	run(t, prune...)
}
