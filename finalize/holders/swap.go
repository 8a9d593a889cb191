package holders

import (
	"context"
	"slices"

	"installer/disk/block"
)

// findSwaps finds swap files on the target, and the target's own device in use as swap space.
func findSwaps(_ context.Context, s *scan) error {
	list, err := block.Live().Swaps()
	if err != nil {
		s.cannot("swap", "/proc/swaps", err)
	}
	for _, e := range list {
		if s.pathOnTarget(e.Path) || e.Kind == "partition" && s.isBlock(e.Path) {
			s.add(Holder{Class: Swap, Path: e.Path, Evidence: "/proc/swaps: " + e.Line, Remedy: "swapoff " + e.Path})
		}
	}
	return nil
}

// isBlock reports whether a path is a node of the target's block device.
func (s *scan) isBlock(path string) bool {
	n, ok := block.NumberOf(path)
	return ok && slices.Contains(s.target.Blocks, n)
}
