package finalize

import "context"

// Stage is one step of a release. It does one thing and returns what it saw; an
// error ends the release.
type Stage struct {
	Name string
	Run  func(context.Context, *Release) (Evidence, error)
}

// DiskStages are the stages that release a disk, in their order.
func DiskStages() []Stage {
	return append(MountedStages(),
		Stage{"unmount", unmount},
		Stage{"prove-released", proveReleased},
		Stage{"prove-clean", proveClean},
		Stage{"detach", detach},
	)
}

// MountedStages are those of them that leave the target mounted, read-only.
func MountedStages() []Stage {
	return []Stage{
		{"drop-handles", dropHandles},
		{"prove-self-free", proveSelfFree},
		{"trim", trim},
		{"remount-read-only", remountReadOnly},
		{"freeze-thaw", freezeThaw},
		{"prove-no-holders", proveNoHolders},
	}
}
