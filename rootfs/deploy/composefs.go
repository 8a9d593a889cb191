package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// noComposefsArgument tells the initramfs to mount the deployment plainly, whatever its configuration asks for.
const noComposefsArgument = "ostree.prepare-root.composefs=0"

// ComposefsError is returned for an image that can only be booted through a composefs image of its deployment.
type ComposefsError struct {
	Setting string
}

func (e *ComposefsError) Error() string {
	return fmt.Sprintf("the image's prepare-root.conf has %s, which needs a composefs image of the deployment: this is not supported yet",
		e.Setting)
}

// composefsArguments returns the kernel argument without which an image whose initramfs wants a composefs image would
// not boot, since none is made. A check of signatures or digests is never turned off: that is a *ComposefsError.
func (d *deployer) composefsArguments(t *dir) ([]string, error) {
	settings, err := prepareRootSettings(t)
	if err != nil {
		return nil, err
	}
	for _, arg := range d.o.Kargs {
		if strings.HasPrefix(arg, "ostree.prepare-root.composefs=") {
			return nil, nil // whoever installs has decided
		}
	}
	enabled := settings["composefs.enabled"]
	switch {
	case enabled == "signed" || enabled == "verity":
		return nil, &ComposefsError{Setting: "composefs.enabled=" + enabled}
	case !isTrue(enabled):
		return nil, nil
	case isTrue(settings["root.transient"]):
		return nil, &ComposefsError{Setting: "root.transient=true"}
	}
	d.dep.Notes = append(d.dep.Notes, "the image asks for composefs; the system is installed to boot without it ("+noComposefsArgument+")")
	return []string{noComposefsArgument}, nil
}

// prepareRootSettings reads "group.key" of ostree-prepare-root's configuration; what /etc says wins.
func prepareRootSettings(t *dir) (map[string]string, error) {
	settings := map[string]string{}
	for _, name := range []string{"usr/lib/ostree/prepare-root.conf", "etc/ostree/prepare-root.conf"} {
		data, err := t.readFile(name, maxTextFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading how the image mounts its root: %w", err)
		}
		group := ""
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
				group = line[1 : len(line)-1]
				continue
			}
			if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
				settings[group+"."+strings.TrimSpace(key)] = strings.TrimSpace(value)
			}
		}
	}
	return settings, nil
}

// isTrue reads a boolean as libostree does, where all else is no.
func isTrue(value string) bool {
	return value == "yes" || value == "true" || value == "1"
}
