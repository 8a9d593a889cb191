package main

import (
	"strings"
	"syscall"
	"time"
)

// moment is an event of a run, and some time after it.
type moment struct {
	index int
	name  string
	after time.Duration
	seen  int
}

// anyMoment chooses one of the events that a run of this setup has.
func (t *trial) anyMoment(jitter time.Duration) *moment {
	m := &moment{index: t.random.IntN(len(t.base.landmarks)), after: time.Duration(t.random.Int64N(int64(jitter) + 1))}
	m.name = t.base.landmarks[m.index]
	return m
}

// momentAmong is anyMoment among the events of these steps.
func (t *trial) momentAmong(steps ...string) *moment {
	var among []int
	for i, name := range t.base.landmarks {
		for _, step := range steps {
			if strings.Contains(name+" ", " "+step+" ") {
				among = append(among, i)
			}
		}
	}
	i := among[t.random.IntN(len(among))]
	return &moment{index: i, name: t.base.landmarks[i]}
}

// come reports whether the moment has come, once.
func (m *moment) come(e event) bool {
	if !e.landmark() {
		return false
	}
	m.seen++
	return m.seen == m.index+1
}

func killAtTime(t *trial) {
	if err := t.newRaw(); err != nil {
		t.breach("%v", err)
		return
	}
	after := time.Duration(t.random.Int64N(int64(t.base.whole)))
	s := t.start(t.raw, t.args(), nil)
	timer := time.AfterFunc(after, func() { s.signal(syscall.SIGKILL) })
	defer timer.Stop()
	t.wait(s)
	t.tell("SIGKILL %s after the start", after.Round(time.Millisecond))
	t.afterKill(s)
}

func killAtEvent(t *trial) {
	if err := t.newRaw(); err != nil {
		t.breach("%v", err)
		return
	}
	m := t.anyMoment(5 * time.Millisecond)
	s := t.install(t.raw, t.args("--report", t.dir+"/report/report.json"), func(s *session, e event) {
		if m.come(e) {
			time.AfterFunc(m.after, func() { s.signal(syscall.SIGKILL) })
		}
	})
	t.tell("SIGKILL %s after %q", m.after.Round(time.Microsecond), m.name)
	t.afterKill(s)
	t.onlyReport()
}

func (t *trial) afterKill(s *session) {
	t.injected = s.code == -1
	if s.code != 0 && s.code != -1 {
		t.breach("exit status %d, want death by the signal: %s", s.code, tail(s.stderr))
	}
	t.nothingLeft()
	if s.claims() {
		t.verified(t.raw) // the claim is true, whatever happened afterwards
	}
	t.succeeds()
}

func interruptAtEvent(t *trial) { signalAtEvent(t, syscall.SIGINT) }
func terminateAtEvent(t *trial) { signalAtEvent(t, syscall.SIGTERM) }

// signalAtEvent wants an orderly undo, a line for each thing.
func signalAtEvent(t *trial, sig syscall.Signal) {
	if err := t.newRaw(); err != nil {
		t.breach("%v", err)
		return
	}
	m := t.anyMoment(0)
	s := t.install(t.raw, t.args(), func(s *session, e event) {
		if m.come(e) {
			s.signal(sig)
		}
	})
	t.tell("%v at %q: exit status %d, %d things undone", sig, m.name, s.code, len(s.undone()))
	t.judge(s, 1)
	t.nothingLeft()
	if s.code == 0 {
		t.verified(t.raw)
		return
	}
	t.injected = true
	if !strings.Contains(s.stderr, "received "+sig.String()) {
		t.breach("the signal is not named: %s", tail(s.stderr))
	}
	// The claim is the second thing taken; until the disk has been handed over its undo must be
	// printed.
	if m.index > 2 && len(s.undone()) == 0 && !strings.Contains(s.stdout, "left mounted") {
		t.breach("nothing is said to be undone: %s", tail(s.stdout))
	}
	t.succeeds()
}
