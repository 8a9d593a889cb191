package holders

import (
	"fmt"
	"os"

	"installer/disk/block"
)

// ClaimHolders stand for someone else's exclusive claim on a device whose superblock does not live:
// the devices that stand on it, as the kernel shows them. It does not show which program made a
// claim: a process that alone has the device open is the one, and of several each is a suspect.
func ClaimHolders(b Block, signs Liveness) []Holder {
	if stacked, err := sys.Claimers(b.Number); err == nil && len(stacked) > 0 {
		return stacked
	}
	claim := Holder{Class: BlockClaim, Path: b.Path, Evidence: signs.String(), Remedy: "close the exclusive open of the device"}
	openers, err := block.Live().Openers(b.Number)
	if err != nil {
		claim.Evidence += "; who has the device open is not known: " + err.Error()
		return []Holder{claim}
	}
	var users []Holder
	for _, o := range openers {
		if o.PID != os.Getpid() {
			users = append(users, Holder{Class: BlockClaim, PID: o.PID, TID: o.PID, Comm: o.Comm, Path: b.Path,
				Evidence: fmt.Sprintf("%s; the device is open in %s", signs, o.FD),
				Remedy:   "close the exclusive open of the device, or end the process that made it"})
		}
	}
	if len(users) == 1 {
		return users
	}
	for i := range users {
		users[i].Suspect = true
	}
	return append([]Holder{claim}, users...)
}
