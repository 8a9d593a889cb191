package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

// point is a moment of an installation at which it is killed: some time after its n-th event.
type point struct {
	event int // index among the events that are no progress
	name  string
	after time.Duration

	seen int
}

func (p *point) String() string {
	return fmt.Sprintf("%s after event %d (%s)", p.after, p.event, p.name)
}

// killPoint chooses the i-th point: by turns at a random time of the whole run, most of which is the
// import, and right after a random event, most of which are near the end.
func killPoint(random *rand.Rand, i int, events []runEvent, whole time.Duration) *point {
	marks := landmarks(events)
	if i%2 == 0 {
		return &point{name: "start", after: time.Duration(random.Int64N(int64(whole)))}
	}
	n := random.IntN(len(marks))
	return &point{event: n, name: marks[n], after: time.Duration(random.Int64N(int64(5 * time.Millisecond)))}
}

// landmarks names the events that each run has alike.
func landmarks(events []runEvent) []string {
	var names []string
	for _, e := range events {
		if landmark(e) {
			name := e.Event + " " + e.Step
			if e.Stage != nil {
				name += " " + e.Stage.Name
			}
			names = append(names, name)
		}
	}
	return names
}

func landmark(e runEvent) bool { return e.Event == "step" || e.Event == "done" || e.Event == "stage" }

// see has the process killed when the point has come: aside, as the reader must go on. One that has
// ended meanwhile is left alone.
func (p *point) see(process *os.Process, e runEvent) {
	if !landmark(e) {
		return
	}
	if p.seen == p.event {
		time.AfterFunc(p.after, func() { _ = process.Kill() })
	}
	p.seen++
}
