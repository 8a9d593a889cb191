package holders

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// findLoops finds loop devices whose backing file lies on the target. No process need be concerned.
func findLoops(_ context.Context, s *scan) error {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return fmt.Errorf("listing loop devices: %w", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // detached meanwhile
		}
		if err != nil {
			s.cannot("loop device", file, err)
			continue
		}
		path := strings.TrimSuffix(string(text), "\n")
		if s.pathOnTarget(path) || len(s.target.Mounts) == 0 && s.isBlock(path) {
			name := strings.Split(file, "/")[3]
			s.add(Holder{Class: Loop, Path: path, Evidence: file + ": " + path,
				Remedy: fmt.Sprintf("unmount the file systems of /dev/%s, then losetup -d /dev/%s", name, name)})
		}
	}
	return nil
}
