package page

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"installer/finalize"
	"installer/finalize/holders"
	"installer/install/verify"
	"installer/install/vm"
)

// ErrNoReport refuses a file that is no report.
var ErrNoReport = errors.New("this is no report of the installer: want the JSON of --report, or the output of holders --json, verify --json or --progress json")

// WriteHTML writes the page of a report: one JSON object, or the lines of
// --progress json, which end with one.
func WriteHTML(w io.Writer, report []byte) error {
	p, err := parse(report)
	if err != nil {
		return err
	}
	return p.write(w)
}

// Recognises reports whether data is a report, as one JSON object or as a page: one that a newer
// report may replace.
func Recognises(data []byte) bool {
	head, _, _ := strings.Cut(pageText, "<title>")
	if bytes.HasPrefix(data, []byte(head)) {
		return true
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(data, &object) != nil || object["event"] != nil {
		return false
	}
	_, err := parse(data)
	return err == nil
}

// parse makes a page of a report of any kind, which it recognises by the members.
func parse(data []byte) (*page, error) {
	data, err := lastReport(data)
	if err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoReport, err)
	}
	has := func(name string) bool { _, ok := members[name]; return ok }
	switch {
	case has("steps") && has("disk"):
		return decode(data, func(r *vm.Report) *page { return installPage(r, has("machine")) })
	case has("stages") && has("released"):
		return decode(data, finalizePage)
	case has("verdict") && has("holders"):
		return decode(data, holdersPage)
	case has("checks") && has("findings"):
		return decode(data, verifyPage)
	}
	return nil, ErrNoReport
}

// decode reads a report into its type, and makes a page of that.
func decode[T finalize.Report | holders.Report | verify.Report | vm.Report](data []byte, make func(*T) *page) (*page, error) {
	var r T
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoReport, err)
	}
	return make(&r), nil
}

// lastReport returns the report among the events of --progress json, or the one
// object that is no event.
func lastReport(data []byte) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	var last json.RawMessage
	events := false
	for {
		var value json.RawMessage
		err := decoder.Decode(&value)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w (%w)", ErrNoReport, err)
		}
		var event struct {
			Kind   string          `json:"event"`
			Report json.RawMessage `json:"report"`
		}
		// A value of another kind is no event.
		if json.Unmarshal(value, &event) == nil && event.Kind != "" {
			events = true
			if event.Report != nil {
				last = event.Report
			}
			continue
		}
		last = value
	}
	switch {
	case last == nil && events:
		return nil, fmt.Errorf("%w: these events end before their report: the run was killed, or is still under way", ErrNoReport)
	case last == nil:
		return nil, ErrNoReport
	}
	return last, nil
}
