package holders

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"installer/finalize/mounts"
)

// settle asks the kernel when no holder was found: its count may refute that, or make up for
// unreadable processes. A copy that goes with the mount is asked about only where something could
// not be read.
func (s *scan) settle(ctx context.Context, r *Report) error {
	if r.Target.Probe == nil || len(r.Holders) > 0 {
		return nil
	}
	referenced, err := mounts.Referenced(ctx, *r.Target.Probe)
	if err == nil && !referenced && len(r.Unseen) > 0 {
		referenced, err = s.copyReferenced(ctx, r.Target.Probe.ID)
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	if err != nil {
		r.unseen(Unseen{Spot: Answers, Subject: "the kernel's count of references to " + r.Target.Probe.Point, Reason: err.Error(), Count: 1})
		r.judge()
		return nil
	}
	r.Probed = Unreferenced
	if referenced {
		r.Probed = IsReferenced
		if len(r.Unseen) == 0 {
			r.Holders = append(r.Holders, KernelHolder(r.Target.Probe.Point, *r, "the kernel counts references to the mount (umount2 with MNT_EXPIRE: EBUSY)"))
		}
	}
	r.judge()
	return nil
}

// copyReferenced reports whether anything refers to a mount of the target other than the one with
// the given id.
func (s *scan) copyReferenced(ctx context.Context, except int) (bool, error) {
	for ns, m := range s.snapshot.All {
		if !s.own[m.ID] || m.ID == except {
			continue
		}
		if referenced, err := mounts.ReferencedIn(ctx, ns, m); referenced || err != nil {
			return referenced, err
		}
	}
	return false, nil
}

// KernelHolder stands for a holder that was not found, with the evidence that the target is held,
// and the classes that were searched for. It is the kernel only after a search that saw everything.
func KernelHolder(path string, searched Report, evidence string) Holder {
	if len(searched.Unseen) > 0 {
		return Holder{Class: OutOfSight, Path: path, Evidence: evidence + "; could not be seen: " + strings.Join(searched.Unreadable, "; "),
			Remedy: "search again where all processes and mount namespaces can be seen: " + searched.Unseen[0].Remedy()}
	}
	names := make([]string, len(searched.Searched))
	for i, c := range searched.Searched {
		names[i] = string(c)
	}
	h := Holder{Class: Kernel, Path: path,
		Evidence: fmt.Sprintf("%s; looked for and not found: %s", evidence, strings.Join(names, ", ")),
		Remedy: "no holder was found in user space; resources that the kernel gives back late (an io_uring or sockets of a process " +
			"that has just ended) may be gone soon: run this again. If it stays, look at dmesg, and reboot before the device is used for something else"}
	if n := searched.UnownedSockets; n > 0 {
		h.Evidence += fmt.Sprintf("; %d unix sockets are open in no process", n)
	}
	return h
}
