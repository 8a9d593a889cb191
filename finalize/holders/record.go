package holders

import (
	"os"
	"strings"
)

// record holds the findings of one worker, until the scan collects them. Failures go to the scan at
// once.
type record struct {
	scan  *scan
	file  *procFile
	found []Holder
	uses  []socketUse
}

// note records that a file of a task could not be read.
func (r *record) note(t task, name string, err error) {
	if err != nil {
		r.scan.cannot(name, t.path(), err)
	}
}

// hit completes a holder with the task it was found at.
func (r *record) hit(t task, h Holder) {
	h.PID, h.TID = t.pid, t.tid
	h.Self, h.Child = t.pid == os.Getpid(), t.pid != os.Getpid() && r.scan.family[t.pid]
	h.Comm = r.comm(t)
	r.found = append(r.found, h)
}

// keeps notes that a task keeps a namespace with a mount of the target.
func (r *record) keeps(t task, link, evidence, remedy string) {
	inode, ok := namespaceInode(link)
	if !ok || !r.scan.foreign[inode] {
		return
	}
	k := keeper{task: t, comm: r.comm(t), family: r.scan.family[t.pid], evidence: evidence, remedy: remedy}
	r.scan.mu.Lock()
	defer r.scan.mu.Unlock()
	r.scan.keepers[inode] = append(r.scan.keepers[inode], k)
}

func (r *record) comm(t task) string {
	text, err := r.file.read(t.dir, "comm")
	if err != nil {
		return "?"
	}
	return strings.TrimSuffix(string(text), "\n")
}
