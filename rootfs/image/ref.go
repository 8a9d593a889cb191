package image

import (
	"fmt"
	"regexp"
	"strings"
)

// Names of the transports, as skopeo and podman spell them; "rootfs" is ours.
const (
	TransportOCI               = "oci"
	TransportOCIArchive        = "oci-archive"
	TransportRootfs            = "rootfs"
	TransportDocker            = "docker"
	TransportDir               = "dir"
	TransportDockerArchive     = "docker-archive"
	TransportContainersStorage = "containers-storage"
)

// Transports lists the known transports.
func Transports() []string {
	return []string{
		TransportContainersStorage, TransportDir, TransportDocker, TransportDockerArchive,
		TransportOCI, TransportOCIArchive, TransportRootfs,
	}
}

// Ref names an image: a transport, and a name that this transport understands.
type Ref struct {
	Transport string
	Name      string // without the transport; for docker without the two slashes
}

// ParseRef reads TRANSPORT:NAME in the syntax of skopeo and podman (containers-transports(5)), or
// rootfs:DIR. It returns an [*UnknownTransportError] if the transport is none of [Transports].
func ParseRef(s string) (Ref, error) {
	transport, name, _ := strings.Cut(s, ":")
	if !knownTransport(transport) {
		return Ref{}, &UnknownTransportError{Ref: s}
	}
	if transport == TransportDocker {
		var ok bool
		if name, ok = strings.CutPrefix(name, "//"); !ok {
			return Ref{}, fmt.Errorf("image reference %q: write docker://HOST/NAME[:TAG|@DIGEST]", s)
		}
	}
	if name == "" {
		return Ref{}, fmt.Errorf("image reference %q names no image after %q", s, transport+":")
	}
	if strings.ContainsRune(name, 0) {
		return Ref{}, fmt.Errorf("image reference %q contains a NUL byte", s)
	}
	return Ref{Transport: transport, Name: name}, nil
}

func knownTransport(name string) bool {
	for _, t := range Transports() {
		if t == name {
			return true
		}
	}
	return false
}

// String is the reference as [ParseRef] reads it.
func (r Ref) String() string {
	if r.Transport == TransportDocker {
		return r.Transport + "://" + r.Name
	}
	return r.Transport + ":" + r.Name
}

// layoutName is the name of an image in an OCI layout or archive.
type layoutName struct {
	path   string
	tag    string // org.opencontainers.image.ref.name; empty: the only image
	digest string // sha256:HEX of the manifest or index; empty: not pinned
}

var digestSuffix = regexp.MustCompile(`^(.*)@(sha256:[0-9a-f]{64})$`)

// parseLayoutName splits PATH[:TAG][@sha256:HEX]. As in containers-transports(5) the path ends at
// the first colon.
func parseLayoutName(name string) layoutName {
	var n layoutName
	if m := digestSuffix.FindStringSubmatch(name); m != nil {
		name, n.digest = m[1], m[2]
	}
	n.path, n.tag, _ = strings.Cut(name, ":")
	return n
}
