package page

import (
	"fmt"
	"math"
	"time"
)

// timeline is a row of bars on one scale of time.
type timeline struct {
	Total string
	Ticks []tick
	Rows  []bar
}

// tick is a mark of the scale.
type tick struct {
	At    float64 // per cent of the width
	Label string
}

// bar is one thing that took its time.
type bar struct {
	Name     string
	Title    string
	Tone     tone
	Status   string
	Start    float64 // per cent of the width
	Width    float64
	Took     string
	Message  string
	Error    string
	Evidence *value
	Open     bool // shown unfolded
}

// span is when a bar begins and how long it is, in seconds of its timeline.
type span struct{ start, length float64 }

// leastBar is the width, in per cent, below which nothing would be seen.
const leastBar = 0.3

// scale places the bars: the whole width is the end of the last one.
func (t *timeline) scale(spans []span) {
	end := 0.0
	for _, s := range spans {
		end = max(end, s.start+s.length)
	}
	t.Total = seconds(end)
	if end <= 0 {
		end = 1
	}
	for i, s := range spans {
		t.Rows[i].Width = min(max(s.length/end*100, leastBar), 100)
		t.Rows[i].Start = min(max(s.start/end*100, 0), 100-t.Rows[i].Width)
	}
	step := niceStep(end / 5)
	for at := 0.0; at <= end*0.97; at += step {
		t.Ticks = append(t.Ticks, tick{at / end * 100, tickLabel(at, step)})
	}
}

// niceStep is the least of 1, 2, 5 times a power of ten that is not below s.
func niceStep(s float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(s)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= s {
			return m * power
		}
	}
	return 10 * power
}

func tickLabel(at, step float64) string {
	decimals := max(0, int(math.Ceil(-math.Log10(step)-1e-9)))
	return fmt.Sprintf("%.*f s", decimals, at)
}

// since is t in seconds after start; 0 if either is unknown.
func since(start, t time.Time) float64 {
	if start.IsZero() || t.IsZero() {
		return 0
	}
	return max(t.Sub(start).Seconds(), 0)
}
