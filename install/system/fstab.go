package system

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"installer/install/choice"
	"installer/rootfs/beneath"
)

// writeFstab has the installed system mount its separate /boot. Read-only, as bootc does it: /boot
// is ostree's, which makes it writable for itself.
func (s *System) writeFstab(deployment *beneath.Dir) error {
	if s.choice.BootSpec == "" {
		return nil
	}
	old, err := deployment.ReadFile(choice.FstabPath, choice.MaxFstab)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the deployment's fstab: %w", err)
	}
	text, replaced := fstabWithBoot(string(old), s.choice.BootSpec)
	if replaced != "" {
		s.log.Note("the image's fstab has another /boot, which is left out: %s", replaced)
	}
	if err := deployment.Replace(choice.FstabPath, strings.NewReader(text), int64(len(text)), 0o644); err != nil {
		return fmt.Errorf("writing /boot into the deployment's fstab: %w", err)
	}
	return nil
}

// fstabWithBoot adds the line of /boot to an fstab(5), in place of one that is there.
func fstabWithBoot(old, spec string) (text, replaced string) {
	var b strings.Builder
	for line := range strings.Lines(old) {
		line = strings.TrimSuffix(line, "\n")
		fields := strings.Fields(line)
		if len(fields) > 1 && !strings.HasPrefix(fields[0], "#") && filepath.Clean(fields[1]) == "/boot" {
			replaced = line
			continue
		}
		b.WriteString(line + "\n")
	}
	fmt.Fprintf(&b, "%s /boot auto ro 0 0\n", spec)
	return b.String(), replaced
}
