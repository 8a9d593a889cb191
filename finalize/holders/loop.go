package holders

import (
	"context"
	"fmt"

	"installer/disk/block"
)

// findLoops finds loop devices whose backing file lies on the target. No process need be concerned.
func findLoops(_ context.Context, s *scan) error {
	list, err := block.Live().Loops()
	if err != nil {
		s.cannot("loop device", "/sys/block", err)
	}
	for _, loop := range list {
		if s.pathOnTarget(loop.Backing) || len(s.target.Mounts) == 0 && s.isBlock(loop.Backing) {
			s.add(Holder{Class: Loop, Path: loop.Backing, Evidence: loop.Dir + "/loop/backing_file: " + loop.Backing,
				Remedy: fmt.Sprintf("unmount the file systems of /dev/%s, then losetup -d /dev/%s", loop.Name, loop.Name)})
		}
	}
	return nil
}
