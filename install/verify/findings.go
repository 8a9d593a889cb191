package verify

import "fmt"

// maxFindings bounds how many findings of one severity a check lists.
const maxFindings = 100

// findings collects the result of one check.
type findings struct {
	path   string // of the disk
	result Check
	list   []Finding
	found  map[Severity]int // by it
}

// fault records something that is not as it should be.
func (f *findings) fault(where, format string, args ...any) {
	f.faultWith("", where, format, args...)
}

// faultWith is fault with advice.
func (f *findings) faultWith(remedy, where, format string, args ...any) {
	f.result.Status = Failed
	f.find(Finding{f.result.Name, Error, where, fmt.Sprintf(format, args...), remedy})
}

// note records something worth knowing.
func (f *findings) note(where, format string, args ...any) {
	f.find(Finding{f.result.Name, Note, where, fmt.Sprintf(format, args...), ""})
}

// find lists a finding, or counts it where there are too many to be read.
func (f *findings) find(found Finding) {
	f.found[found.Severity]++
	if f.found[found.Severity] <= maxFindings {
		f.list = append(f.list, found)
	}
}

// countRest adds the number of findings that were not listed.
func (f *findings) countRest() {
	for _, severity := range []Severity{Error, Note} {
		if rest := f.found[severity] - maxFindings; rest > 0 {
			what := fmt.Sprintf("there are %d more findings of this kind", rest)
			f.list = append(f.list, Finding{f.result.Name, severity, f.path, what, ""})
		}
	}
}

// say sets the detail of a check that passes.
func (f *findings) say(format string, args ...any) { f.result.Detail = fmt.Sprintf(format, args...) }

// notApplicable ends a check for which the disk has nothing.
func (f *findings) notApplicable(format string, args ...any) {
	f.result.Status = NotApplicable
	f.say(format, args...)
}
