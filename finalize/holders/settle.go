package holders

import (
	"fmt"
	"strings"

	"installer/finalize/mounts"
)

// settle asks the kernel when no holder was found: it may refute that, or make up
// for what could not be read.
func settle(r *Report) error {
	if r.Target.Probe == nil || len(r.Holders) > 0 {
		return nil
	}
	referenced, err := mounts.Referenced(*r.Target.Probe)
	if err != nil {
		return err
	}
	r.Probed = Unreferenced
	if referenced {
		r.Probed = IsReferenced
		if len(r.Unreadable) == 0 {
			r.Holders = append(r.Holders, r.kernelHolder())
		}
	}
	r.judge()
	return nil
}

func (r *Report) kernelHolder() Holder {
	names := make([]string, len(r.Searched))
	for i, c := range r.Searched {
		names[i] = string(c)
	}
	return Holder{Class: Kernel, Path: r.Target.Probe.Point,
		Evidence: fmt.Sprintf("the kernel counts references to the mount (umount2 with MNT_EXPIRE: EBUSY); looked for and not found: %s",
			strings.Join(names, ", ")),
		Remedy: "nothing in user space was found to hold it: look at dmesg; a reference that the kernel gives back late (io_uring, sockets) may be gone soon"}
}
