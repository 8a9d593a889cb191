package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// fstabPath is the table of file systems in a deployment.
const fstabPath = "etc/fstab"

// writeFstab has the installed system mount its separate /boot. Read-only, as
// bootc does it: /boot is ostree's, which makes it writable for itself.
func (r *run) writeFstab(deployment string) error {
	if r.target.bootSpec == "" {
		return nil
	}
	dir := filepath.Join(r.target.root, deployment)
	released := r.ledger.Opened("fd", dir)
	defer released()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening the deployment for its fstab: %w", err)
	}
	defer root.Close()
	old, err := root.ReadFile(fstabPath)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading the deployment's fstab: %w", err)
	}
	text, replaced := fstabWithBoot(string(old), r.target.bootSpec)
	if replaced != "" {
		r.note("the image's fstab has another /boot, which is left out: %s", replaced)
	}
	if err := root.Remove(fstabPath); err != nil && !errors.Is(err, os.ErrNotExist) { // it may share its content with the repository
		return fmt.Errorf("replacing the deployment's fstab: %w", err)
	}
	if err := putFile(root, fstabPath, text); err != nil {
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
