package finalize

import "encoding/json"

// Recorded is the evidence of a stage as read back from a report, which another process may have
// written.
type Recorded struct {
	JSON    json.RawMessage
	Summary string
}

// Line implements Evidence.
func (r Recorded) Line() string { return r.Summary }

// MarshalJSON writes the JSON that was read.
func (r Recorded) MarshalJSON() ([]byte, error) { return r.JSON, nil }

// UnmarshalJSON reads a stage back from a report; its evidence becomes [Recorded].
func (s *StageResult) UnmarshalJSON(data []byte) error {
	type plain StageResult // without this method
	read := struct {
		*plain
		Evidence json.RawMessage `json:"evidence"`
	}{plain: (*plain)(s)}
	if err := json.Unmarshal(data, &read); err != nil {
		return err
	}
	if s.Evidence = nil; len(read.Evidence) > 0 && string(read.Evidence) != "null" {
		s.Evidence = Recorded{JSON: read.Evidence, Summary: s.Summary}
	}
	return nil
}
