package image

import (
	"errors"
	"io/fs"
	"net"
	"os"

	cstorage "go.podman.io/storage"
)

// Advice is the remedy of a source that could not be read; "" where none is known.
func (e *SourceError) Advice() string {
	var network net.Error
	switch {
	case errors.As(e.Err, &network):
		return "check the registry's name and the network; or fetch the image first: skopeo copy docker://NAME oci:DIR:TAG"
	case errors.Is(e.Err, cstorage.ErrImageUnknown):
		return "choose one of the images that podman images lists"
	case errors.Is(e.Err, fs.ErrNotExist):
		return e.missing()
	}
	return ""
}

// missing reports whether the image is not there, rather than incomplete.
func (e *SourceError) missing() string {
	ref, err := ParseRef(e.Ref)
	if err != nil {
		return ""
	}
	paths, err := ref.Paths()
	if err != nil || len(paths) == 0 || ref.Transport == TransportContainersStorage {
		return ""
	}
	if _, err := os.Stat(paths[0]); errors.Is(err, fs.ErrNotExist) {
		return "check the path of the image; skopeo copy docker://NAME oci:DIR:TAG makes an oci directory"
	}
	return "the image is incomplete: copy it again"
}
