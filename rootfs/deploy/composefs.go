package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"

	"installer/rootfs/beneath"
	"installer/rootfs/keyfile"
)

// maxTextFile bounds a configuration file, in bytes.
const maxTextFile = 1 << 20

// noComposefsArgument makes the initramfs mount the deployment plainly, whatever its configuration
// asks for.
const noComposefsArgument = "ostree.prepare-root.composefs=0"

// ComposefsError is returned for an image that can only be booted through a composefs image of its
// deployment.
type ComposefsError struct {
	Setting string
}

func (e *ComposefsError) Error() string {
	return fmt.Sprintf("the image's prepare-root.conf has %s, which needs a composefs image of the deployment: this is not supported yet",
		e.Setting)
}

// PrepareRootError is returned for an image whose initramfs would refuse its own configuration.
type PrepareRootError struct {
	Name string // of the file
	Err  error
}

func (e *PrepareRootError) Error() string {
	return fmt.Sprintf("%s of the image, which its initramfs reads, is no key file: %v", e.Name, e.Err)
}

func (e *PrepareRootError) Unwrap() error { return e.Err }

// CheckComposefs reports whether the tree of an image can be booted without a composefs image of
// its deployment, with the kernel arguments; the error is a *ComposefsError or a *PrepareRootError.
// It is there to refuse an image before anything is written. The contents of PrepareRootFiles have
// to be readable.
func CheckComposefs(tree fs.FS, kargs []string) error {
	settings, err := prepareRootSettings(func(name string) ([]byte, error) { return fs.ReadFile(tree, name) })
	if err == nil {
		_, err = withoutComposefs(settings, kargs)
	}
	return err
}

// PrepareRootFiles are the configuration files of ostree-prepare-root(1) in a deployment; the later
// one wins.
func PrepareRootFiles() []string {
	return []string{"usr/lib/ostree/prepare-root.conf", "etc/ostree/prepare-root.conf"}
}

// composefsArguments returns the kernel argument without which an image whose initramfs wants a
// composefs image would not boot, since none is made.
func (d *deployer) composefsArguments(t *beneath.Dir) ([]string, error) {
	settings, err := prepareRootSettings(func(name string) ([]byte, error) { return t.ReadFile(name, maxTextFile) })
	if err != nil {
		return nil, err
	}
	needed, err := withoutComposefs(settings, d.o.Kargs)
	if err != nil || !needed {
		return nil, err
	}
	d.dep.Notes = append(d.dep.Notes, "the image asks for composefs; the system is installed to boot without it ("+noComposefsArgument+")")
	return []string{noComposefsArgument}, nil
}

// withoutComposefs reports whether noComposefsArgument is needed. A check of signatures or digests
// is never turned off: that is a *ComposefsError.
func withoutComposefs(settings map[string]string, kargs []string) (needed bool, err error) {
	for _, arg := range kargs {
		if strings.HasPrefix(arg, "ostree.prepare-root.composefs=") {
			return false, nil // whoever installs has decided
		}
	}
	enabled := settings["composefs.enabled"]
	switch {
	case enabled == "signed" || enabled == "verity":
		return false, &ComposefsError{Setting: "composefs.enabled=" + enabled}
	case !keyfile.IsTrue(enabled):
		return false, nil
	case keyfile.IsTrue(settings["root.transient"]):
		return false, &ComposefsError{Setting: "root.transient=true"}
	}
	return true, nil
}

// prepareRootSettings reads "group.key" of ostree-prepare-root's configuration.
func prepareRootSettings(read func(name string) ([]byte, error)) (map[string]string, error) {
	settings := map[string]string{}
	for _, name := range PrepareRootFiles() {
		data, err := read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading how the image mounts its root: %w", err)
		}
		keys, err := keyfile.Parse(string(data))
		if err != nil {
			return nil, &PrepareRootError{Name: "/" + name, Err: err}
		}
		maps.Copy(settings, keys)
	}
	return settings, nil
}
