package main

import (
	"fmt"
	"strings"

	"installer/install"
	"installer/rootfs/image"

	"github.com/spf13/pflag"
)

// sourceFlags say which image is installed, and which one the host follows.
type sourceFlags struct {
	source          string
	target          string
	targetTransport string
	platform        string
	authFile        string
	maxLayerSize    string
	enforcePolicy   bool
}

func (f *sourceFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.source, "source-imgref", "", "image to install (default: our container's)\n"+
		"One of containers-storage:NAME, docker://NAME, oci:PATH[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE, dir:PATH or rootfs:DIR. "+
		"Without it: the image of the podman container that this runs in.")
	f.addFollowedTo(flags)
	flags.BoolVar(&f.enforcePolicy, "enforce-container-sigpolicy", false, "demand a signature, of updates too\n"+
		"The image is refused unless the signature policy demands a signature and finds it; the host's updates are held to that too.")
}

// addFollowedTo adds the flags that a command has too whose source is an argument.
func (f *sourceFlags) addFollowedTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.target, "target-imgref", "", "image that the host takes updates from\n"+
		"Default: the source; of an image in podman's storage, the registry of its name.")
	flags.StringVar(&f.targetTransport, "target-transport", "", "how the host gets it (default: registry)\n"+
		"Transport of --target-imgref: registry, oci, oci-archive, dir, docker-archive or containers-storage, unless the name has one.")
	flags.StringVar(&f.platform, "platform", "", "image of a multi-platform index to take\n"+
		"As OS/ARCHITECTURE[/VARIANT], such as linux/arm64. Default: this machine's.")
	flags.StringVar(&f.maxLayerSize, "max-layer-size", "64G", "refuse larger layers (default 64G)\n"+
		"Uncompressed size of one layer, with the suffix M (default), G or T.")
	flags.StringVar(&f.authFile, "authfile", "", "credentials for registries\n"+
		"Default: where containers-auth.json(5) says.")
}

// apply checks the flags and fills in what they say.
func (f *sourceFlags) apply(o *install.Options) (err error) {
	o.SourceOpen = image.OpenOptions{EnforceSigPolicy: f.enforcePolicy, AuthFile: f.authFile}
	if o.SourceOpen.Platform, err = parsePlatform(f.platform); err != nil {
		return err
	}
	if o.MaxLayerSize, err = install.ParseSize(f.maxLayerSize); err != nil {
		return fmt.Errorf("--max-layer-size: %w", err)
	}
	if f.source == "" {
		if o.Container, err = install.FindContainer(); err != nil {
			return err
		}
		o.Source = o.Container.Source()
	} else if o.Source, err = image.ParseRef(f.source); err != nil {
		return fmt.Errorf("--source-imgref: %w", err)
	}
	if o.Target, err = f.targetOf(o); err != nil {
		return fmt.Errorf("--target-imgref: %w", err)
	}
	return nil
}

func (f *sourceFlags) targetOf(o *install.Options) (string, error) {
	if o.Container != nil && f.target == "" {
		return o.Container.Target(f.targetTransport)
	}
	return install.TargetOf(o.Source, f.target, f.targetTransport)
}

// parsePlatform reads OS/ARCHITECTURE[/VARIANT]; "" is this machine's.
func parsePlatform(s string) (p image.Platform, err error) {
	if s == "" {
		return p, nil
	}
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] != "linux" || parts[1] == "" {
		return p, fmt.Errorf("--platform %q: want linux/ARCHITECTURE[/VARIANT], such as linux/amd64", s)
	}
	p.OS, p.Architecture = parts[0], parts[1]
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}
