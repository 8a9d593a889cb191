package finalize

import (
	"context"
	"slices"
)

// Stage is one step of a release. It does one thing and returns evidence; an error ends the release.
// The stages are the variables below: no other can be made.
type Stage struct {
	name   string
	run    func(context.Context, *Release) (Evidence, error)
	proves Proof // empty for a stage that proves nothing
}

// Name returns the name that the stage has in reports.
func (s Stage) Name() string { return s.name }

// The stages.
var (
	DropHandles     = Stage{"drop-handles", dropHandles, HandlesClosed}
	ProveSelfFree   = Stage{"prove-self-free", proveSelfFree, SelfFree}
	ProveUnshared   = Stage{"prove-unshared", proveUnshared, ""}
	Trim            = Stage{"trim", trim, ""}
	RemountReadOnly = Stage{"remount-read-only", remountReadOnly, WrittenOut}
	FreezeThaw      = Stage{"freeze-thaw", freezeThawEach, NotFrozen}
	ProveNoHolders  = Stage{"prove-no-holders", proveNoHolders, NoHolders}
	Unmount         = Stage{"unmount", unmount, TreeUnmounted}
	ProveReleased   = Stage{"prove-released", proveReleased, SuperblocksGone}
	ProveClean      = Stage{"prove-clean", proveClean, CleanOnDisk}
	Detach          = Stage{"detach", detach, Durable}
)

// Proof is the statement that a stage proves.
type Proof string

// The proofs.
const (
	HandlesClosed   Proof = "handles-closed"   // the program has closed all that it had open
	SelfFree        Proof = "self-free"        // neither this process nor a child of it refers to the target
	WrittenOut      Proof = "written-out"      // the kernel reported no lost write
	NotFrozen       Proof = "not-frozen"       // nobody keeps a file system frozen
	NoHolders       Proof = "no-holders"       // nobody was found who refers to the target
	TreeUnmounted   Proof = "unmounted"        // every mount of the tree is gone
	SuperblocksGone Proof = "superblocks-gone" // the kernel has given every superblock up, and no device stands on another
	CleanOnDisk     Proof = "clean"            // the next mount replays nothing
	Durable         Proof = "durable"          // every device was flushed, and given back if it was ours
)

// required are the proofs that make a target released. A holder that was overlooked keeps a
// superblock alive, so that NoHolders and NotFrozen follow from SuperblocksGone.
var required = []Proof{HandlesClosed, SelfFree, WrittenOut, TreeUnmounted, SuperblocksGone, CleanOnDisk, Durable}

// releases reports whether the proofs that held make the target released.
func releases(held []Proof) bool {
	return !slices.ContainsFunc(required, func(p Proof) bool { return !slices.Contains(held, p) })
}

// DiskStages returns the stages that release a target that this program has made and mounted.
func DiskStages() []Stage {
	return append(MountedStages(), Unmount, ProveReleased, ProveClean, Detach)
}

// TreeStages returns the stages that release a tree that somebody else has mounted: nothing is
// changed before it is known that nobody else has it.
func TreeStages() []Stage { return slices.Insert(DiskStages(), 2, ProveUnshared) }

// MountedStages returns the stages that leave the target mounted, read-only.
func MountedStages() []Stage {
	return []Stage{DropHandles, ProveSelfFree, Trim, RemountReadOnly, FreezeThaw, ProveNoHolders}
}

// UntilUnmount returns the stages before the unmount.
func UntilUnmount(stages []Stage) []Stage {
	at := slices.IndexFunc(stages, func(s Stage) bool { return s.proves == TreeUnmounted })
	if at < 0 {
		return stages
	}
	return stages[:at]
}
