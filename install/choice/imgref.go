package choice

import (
	"errors"
	"fmt"
	"net"
	"path"
	"regexp"
	"strings"

	"go.podman.io/image/v5/docker/reference"

	"installer/rootfs/deploy"
	"installer/rootfs/image"
)

// registryTransport is bootc's name of the transport docker://.
const registryTransport = "registry"

var imageIDPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// IsImageID reports whether name is the identifier of an image in podman's storage.
func IsImageID(name string) bool { return imageIDPattern.MatchString(name) }

// TargetOf returns the image that a host follows, as TRANSPORT:NAME. The user gave name, over
// transport if that is not empty (as bootc spells it: "registry" for docker://). A missing part
// comes from the source: an image of podman's storage is followed in the registry of its name, and
// a directory tree follows nothing and gives "".
func TargetOf(source image.Ref, name, transport string) (string, error) {
	if transport == "" {
		if name != "" {
			return ParseTarget(name)
		}
		return defaultTarget(source)
	}
	if name == "" {
		if name = sourceName(source); name == "" {
			return "", fmt.Errorf("the source %s has no name that could be followed: give one by --target-imgref", source)
		}
	}
	switch transport {
	case registryTransport:
		return ParseTarget(image.TransportDocker + "://" + strings.TrimPrefix(name, "//"))
	case image.TransportRootfs, image.TransportDocker:
		return "", fmt.Errorf("target transport %q: want %s, oci, oci-archive, dir, docker-archive or containers-storage", transport, registryTransport)
	}
	ref, err := ParseTarget(transport + ":" + name)
	if err != nil {
		return "", fmt.Errorf("target transport %q: %w", transport, err)
	}
	return ref, nil
}

// defaultTarget returns the image that a host follows if the user names none.
func defaultTarget(source image.Ref) (string, error) {
	switch source.Transport {
	case image.TransportRootfs:
		return "", nil
	case image.TransportContainersStorage:
		name := sourceName(source)
		if name == "" {
			return "", fmt.Errorf("%s does not say which registry updates come from: say so by --target-imgref", source)
		}
		return ParseTarget(image.TransportDocker + "://" + name)
	}
	return ParseTarget(source.String())
}

// sourceName returns the source's name without the parts that only this machine understands; empty
// if nothing is left.
func sourceName(source image.Ref) string {
	switch source.Transport {
	case image.TransportRootfs:
		return ""
	case image.TransportContainersStorage:
		name := source.Name
		if i := strings.IndexByte(name, ']'); strings.HasPrefix(name, "[") && i > 0 {
			name = name[i+1:]
		}
		name, _, _ = strings.Cut(name, "@") // a digest or identifier in that storage
		if IsImageID(name) {
			return ""
		}
		return name
	}
	return source.Name
}

// ParseTarget reads the reference that a host follows: TRANSPORT:NAME as for a source, or the bare
// name of an image in a registry. It returns the former.
func ParseTarget(s string) (string, error) {
	ref, err := image.ParseRef(s)
	var unknown *image.UnknownTransportError
	if errors.As(err, &unknown) {
		// "quay.io/x/y:latest" and "localhost:5000/x" have a colon too.
		ref, err = image.ParseRef(image.TransportDocker + "://" + s)
	}
	if err != nil {
		return "", err
	}
	if err := checkRecorded(ref.String()); err != nil {
		return "", err
	}
	switch ref.Transport {
	case image.TransportRootfs:
		return "", fmt.Errorf("a host cannot follow the directory %q: name an image", ref)
	case image.TransportDocker:
		if _, err := reference.ParseNormalizedNamed(ref.Name); err != nil {
			return "", fmt.Errorf("image reference %q: %w", s, err)
		}
	}
	return ref.String(), nil
}

// checkRecorded refuses a reference that the installed host could not keep: a line of the
// deployment's origin, and the path of a ref of the repository.
func checkRecorded(target string) error {
	const nameMax = 255 // bytes of a file's name
	bad := func(c rune) bool { return c < ' ' || c == 0x7f }
	if strings.ContainsFunc(target, bad) || strings.TrimSpace(target) != target {
		return fmt.Errorf("image reference %q holds a control character, or ends with a blank", target)
	}
	ref, err := deploy.ImageRef(target)
	if err != nil {
		return err
	}
	for part := range strings.SplitSeq(ref, "/") {
		if len(part) > nameMax {
			return fmt.Errorf("image reference %q is too long to be kept in the repository of the host", target)
		}
	}
	return nil
}

// unreachable returns why a host that was installed from source will probably not find target, ""
// if nothing speaks against it.
func unreachable(target string, source image.Ref) string {
	ref, err := image.ParseRef(target)
	if err != nil {
		return ""
	}
	switch ref.Transport {
	case image.TransportDocker:
		if host, _, _ := strings.Cut(ref.Name, "/"); isLoopback(host) {
			return "a registry on " + host + " is one on the installed host itself"
		}
	case image.TransportOCI, image.TransportOCIArchive, image.TransportDir, image.TransportDockerArchive:
		switch {
		case !path.IsAbs(ref.Name):
			return "a host finds no image at a relative path"
		case ref == source:
			return "the path is one of the machine that installs"
		}
	}
	return ""
}

// isLoopback reports whether a registry's host, which may have a port, is the machine itself.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
