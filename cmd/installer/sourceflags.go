package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"installer/install"
	"installer/rootfs/image"

	"github.com/spf13/pflag"
)

// sourceFlags name the image that is installed, and the one that the host follows.
type sourceFlags struct {
	source          string
	argument        string // that source was given by; "" = --source-imgref
	target          string
	targetTransport string
	platform        string
	authFile        string
	maxLayerSize    string
	enforcePolicy   bool
}

// registryTransport is bootc's name of the transport docker://.
const registryTransport = "registry"

func (f *sourceFlags) addTo(flags *pflag.FlagSet) {
	flag{name: "source-imgref", group: groupImage, value: "REF", brief: "image to install", fallback: "the container's own",
		detail: "One of containers-storage:NAME, docker://NAME, oci:PATH[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE, dir:PATH or rootfs:DIR. " +
			"Without it: the image of the podman container that this runs in."}.text(flags, &f.source)
	f.addFollowedTo(flags)
	flag{name: "enforce-container-sigpolicy", group: groupImage, brief: "demand a signature, of updates too",
		detail: "The image is refused unless the signature policy demands a signature and finds it; the host's updates are held to that too.",
		config: "enforce-container-sigpolicy", fallback: "false"}.toggle(flags, &f.enforcePolicy)
}

// addFollowedTo adds the flags that are common to commands with and without --source-imgref.
func (f *sourceFlags) addFollowedTo(flags *pflag.FlagSet) {
	flag{name: "target-imgref", group: groupImage, value: "REF", brief: "image that the host takes updates from",
		detail: "Default: the source; of an image in podman's storage, the registry of its name."}.text(flags, &f.target)
	flag{name: "target-transport", group: groupImage, value: "KIND", brief: "transport of updates", fallback: registryTransport,
		detail: "Transport of --target-imgref: registry, oci, oci-archive, dir, docker-archive or containers-storage, unless the name has one."}.text(flags, &f.targetTransport)
	platformFlag().text(flags, &f.platform)
	flag{name: "max-layer-size", group: groupImage, value: "SIZE", initial: "64G", brief: "refuse larger layers",
		detail: "Uncompressed size of one layer, with the suffix M (default), G or T."}.text(flags, &f.maxLayerSize)
	flag{name: "authfile", group: groupImage, value: "FILE", brief: "credentials for registries",
		detail: "Default: as containers-auth.json(5) describes."}.text(flags, &f.authFile)
}

func platformFlag() flag {
	return flag{name: "platform", group: groupImage, value: "OS/ARCH", brief: "image of a multi-platform index to take",
		detail: "As OS/ARCHITECTURE[/VARIANT], such as linux/arm64. Default: this machine's."}
}

// apply checks the flags and sets the options.
func (f *sourceFlags) apply(o *install.Options) (err error) {
	o.SourceOpen = image.OpenOptions{EnforceSigPolicy: f.enforcePolicy, AuthFile: f.authFile}
	if o.SourceOpen.Platform, err = parsePlatform(f.platform); err != nil {
		return err
	}
	if o.MaxLayerSize, err = install.ParseSize(f.maxLayerSize); err != nil {
		return fmt.Errorf("--max-layer-size: %w", err)
	}
	if err := readable("--authfile", f.authFile); err != nil {
		return err
	}
	if f.source == "" {
		if o.Container, err = install.FindContainer(); err != nil {
			return err
		}
		o.Source = o.Container.Source()
	} else if o.Source, err = parseSource(cmp.Or(f.argument, "--source-imgref"), f.source); err != nil {
		return err
	}
	if o.Target, err = f.targetOf(o); err != nil {
		return fmt.Errorf("--target-imgref: %w", err)
	}
	return nil
}

// readable refuses a file that cannot be read. No path is no file.
func readable(flag, path string) error {
	if path == "" {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.IsDir() {
		return fmt.Errorf("%s: %s is a directory", flag, path)
	}
	return nil
}

// parseSource reads a reference to a source. One without a transport, as podman and docker take it,
// is answered with the reference that was probably meant.
func parseSource(flag, s string) (image.Ref, error) {
	ref, err := image.ParseRef(s)
	if is[*image.UnknownTransportError](err) {
		err = &transportError{ref: s, unknown: err}
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", flag, err)
	}
	return ref, err
}

// transportError is a reference without a transport that is known.
type transportError struct {
	ref     string
	unknown error
}

func (e *transportError) Error() string { return e.unknown.Error() }
func (e *transportError) Unwrap() error { return e.unknown }

// Advice names the reference that was probably meant.
func (e *transportError) Advice() string {
	if found := image.Recognise(e.ref); found.Text != "" {
		return "this is " + found.Text
	}
	transport, name, hasColon := strings.Cut(e.ref, ":")
	name = strings.TrimPrefix(name, "//")
	switch {
	case hasColon && (transport == registryTransport || transport == "http" || transport == "https"):
		return fmt.Sprintf("for an image of a registry give docker://%s", name)
	case strings.Contains(e.ref, "://"), strings.HasPrefix(e.ref, "/"), strings.HasPrefix(e.ref, "."):
		return ""
	}
	if meant := nearestTransport(transport); hasColon && meant != "" {
		return fmt.Sprintf("did you mean %s?", meant+e.ref[len(transport):])
	}
	if strings.ContainsAny(e.ref, " \t\\") {
		return ""
	}
	return fmt.Sprintf("for an image of a registry give docker://%s; for one of podman's storage, containers-storage:%s", e.ref, e.ref)
}

func nearestTransport(typed string) string {
	best, least := "", 3
	for _, t := range image.Transports() {
		if d := distance(typed, t); d < least && d < len(t) && d < len(typed) {
			best, least = t, d
		}
	}
	return best
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
