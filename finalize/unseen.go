package finalize

import "installer/finalize/holders"

// Unseen returns the things that the last search for holders could not see. None of them holds the
// target if a later stage has proven the release.
func (r *Report) Unseen() []holders.Unseen {
	var list []holders.Unseen
	for _, stage := range r.Stages {
		if search, ok := stage.Evidence.(Search); ok && len(search.Report.Unseen) > 0 {
			list = search.Report.Unseen
		}
	}
	return list
}
