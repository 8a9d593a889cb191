package finalize

import (
	"encoding/json"
	"testing"
	"time"
)

// countedEvidence stands for any stage's evidence.
type countedEvidence struct {
	Count int `json:"count"`
}

func (countedEvidence) Line() string { return "counted" }

// A report that is read and written again says the same.
func TestReportReadBack(t *testing.T) {
	written, err := json.Marshal(Report{Version: reportVersion, Released: true, Stages: []StageResult{
		{Name: "a", Status: OK, Start: time.Unix(5, 0).UTC(), Seconds: 0.5, Summary: "counted", Evidence: countedEvidence{7}},
		{Name: "b", Status: NotRun, Error: "no"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var read Report
	if err := json.Unmarshal(written, &read); err != nil {
		t.Fatal(err)
	}
	if e := read.Stages[0].Evidence; e == nil || e.Line() != "counted" || read.Stages[1].Evidence != nil {
		t.Errorf("evidence is %v and %v", e, read.Stages[1].Evidence)
	}
	again, err := json.Marshal(read)
	if err != nil || string(again) != string(written) {
		t.Errorf("got  %s, %v\nwant %s", again, err, written)
	}
}
