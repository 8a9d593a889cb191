package holders

import (
	"errors"
	"fmt"
	"io/fs"
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
	if errors.Is(err, fs.ErrPermission) {
		r.Unreadable = append(r.Unreadable, fmt.Sprintf("whether the kernel counts references to the mount: %v", err))
		r.judge()
		return nil
	}
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
	return KernelHolder(r.Target.Probe.Point, *r, "the kernel counts references to the mount (umount2 with MNT_EXPIRE: EBUSY)")
}

// KernelHolder stands for what holds the target and shows nowhere, with evidence
// that it is held, and of what was searched for.
func KernelHolder(path string, searched Report, evidence string) Holder {
	names := make([]string, len(searched.Searched))
	for i, c := range searched.Searched {
		names[i] = string(c)
	}
	h := Holder{Class: Kernel, Path: path,
		Evidence: fmt.Sprintf("%s; looked for and not found: %s", evidence, strings.Join(names, ", ")),
		Remedy: "nothing in user space was found to hold it; what the kernel gives back late (an io_uring or sockets of a process " +
			"that has just ended) may be gone soon: run this again. If it stays, look at dmesg, and reboot before the device is used for something else"}
	if n := searched.UnownedSockets; n > 0 {
		h.Evidence += fmt.Sprintf("; %d unix sockets are open in no process", n)
	}
	return h
}
