package holders

import (
	"context"
	"fmt"
	"strings"

	"installer/disk/mounts"
)

// findMounts finds mounts that are not the target itself: binds of its files and directories
// elsewhere, clones in other namespaces, and mounts that stand on it.
func findMounts(_ context.Context, s *scan) error {
	for ns, m := range s.snapshot.All {
		switch {
		case s.own[m.ID]:
		case s.target.onDevice(m.Dev):
			s.add(mountHolder(ns, m, fmt.Sprintf("unmount %s%s", m.Point, inNamespace(ns))))
		case s.held[m.Parent] && m.ID != m.Parent:
			s.add(mountHolder(ns, m, fmt.Sprintf("unmount %s%s first: it stands on the target", m.Point, inNamespace(ns))))
		}
	}
	return nil
}

func mountHolder(ns mounts.Namespace, m mounts.Mount, remedy string) Holder {
	return Holder{Class: MountClass, Path: m.Point, Namespace: namespaceName(ns),
		Evidence: "mountinfo: " + m.Line(), Remedy: remedy}
}

// namespaceName is empty for the own namespace.
func namespaceName(ns mounts.Namespace) string {
	if ns.Own {
		return ""
	}
	return ns.Name()
}

func inNamespace(ns mounts.Namespace) string {
	if ns.Own {
		return ""
	}
	return " in " + namespaceName(ns)
}

// splitDeleted takes the mark off that the kernel appends to paths of files that have no name any
// more.
func splitDeleted(path string) (string, bool) { return strings.CutSuffix(path, " (deleted)") }

// pathOnTarget reports whether a path, as the kernel wrote it for us, lies on the target: the mount
// that covers it in the own namespace decides. It serves where the kernel shows nothing but a path.
func (s *scan) pathOnTarget(path string) bool {
	name, _ := splitDeleted(path)
	m, ok := mounts.Covering(s.snapshot.Own().Mounts, name)
	if ok && s.held[m.ID] {
		return true
	}
	for _, ns := range s.snapshot.Namespaces {
		if !ns.Own && s.onlyThere(name) && s.pathInNamespace(ns, name) {
			return true
		}
	}
	return false
}

// pathInNamespace reports whether a path means a file of the target to processes of a namespace.
func (s *scan) pathInNamespace(ns mounts.Namespace, path string) bool {
	m, ok := mounts.Covering(ns.Mounts, path)
	return ok && s.held[m.ID]
}

// onlyThere reports whether a path of another namespace means nothing here: only then is the other
// namespace's meaning taken.
func (s *scan) onlyThere(path string) bool {
	m, ok := mounts.Covering(s.snapshot.Own().Mounts, path)
	return !ok || m.Point == "/"
}
