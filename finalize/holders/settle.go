package holders

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"installer/disk/mounts"
)

// settle asks the kernel when no holder was found, or suspects alone. Where something could not be
// seen, its own table of the mounts makes up for it; else its count of references may refute the
// search.
func (s *scan) settle(ctx context.Context, r *Report) error {
	if r.Target.Probe == nil || len(r.Certain()) > 0 {
		return nil
	}
	complete := len(r.Unseen) == 0 && len(r.Holders) == 0
	if !complete {
		err := r.askTable(ctx, s.snapshot, census.references, *r.Target.Probe)
		if r.judge(); err != nil || r.Probed != "" {
			return err
		}
	}
	referenced, err := mounts.Referenced(ctx, *r.Target.Probe)
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case err != nil:
		r.unseen(Unseen{Spot: Answers, Subject: "the kernel's count of references to " + r.Target.Probe.Point, Reason: err.Error(), Count: 1})
	case !referenced:
		r.Probed = Unreferenced
	default:
		r.Probed = IsReferenced
		if complete {
			r.Holders = append(r.Holders, KernelHolder(r.Target.Probe.Point, *r, "the kernel counts references to the mount (umount2 with MNT_EXPIRE: EBUSY)"))
		}
	}
	r.judge()
	return nil
}

// askTable makes the verdict of the kernel's own tables of the mounts, one for each of the file
// systems that the mounts show: they count every reference, whoever has it. Without a reference
// that counts there is no ground for a suspicion.
func (r *Report) askTable(ctx context.Context, snapshot *mounts.Snapshot, counts func(census) []string, list ...mounts.Mount) error {
	r.Probed, r.proven, r.References = Unreferenced, true, nil
	for _, m := range list {
		c, err := takeCensus(ctx, snapshot, m)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.Probed, r.proven = "", false
			r.unseen(Unseen{Spot: Tables, Subject: "references to " + m.Point, Reason: err.Error(), Count: 1})
			continue
		}
		if r.References = append(r.References, counts(c)...); len(r.References) > 0 {
			r.Probed, r.proven = IsReferenced, false
			return nil
		}
	}
	if r.proven {
		r.Holders = r.Certain()
	}
	return nil
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
