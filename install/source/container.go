package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"installer/install/choice"
	"installer/rootfs/image"
)

// containerEnvPath is the file in which podman describes a container to the programs in it
// (podman-run(1)). Every container has it; it is empty in one that is not privileged.
const containerEnvPath = "/run/.containerenv"

// Container is the podman container that this program runs in.
type Container struct {
	Image   string // name that the image was run by, such as quay.io/x/y:latest
	ImageID string // of the image in podman's storage, hex
}

// mountHint is the advice where podman's storage cannot be read in a container.
const mountHint = "podman's storage must be in the container where it is on the host: " +
	"podman run --privileged --pid=host -v /var/lib/containers:/var/lib/containers …; or name another image by --source-imgref"

// ErrNoContainer says that no source was named, and that there is no container whose image could be
// meant.
var ErrNoContainer = errors.New("not in a podman container, whose own image would be installed; name the image to install by --source-imgref, such as oci:PATH:TAG")

// FindContainer describes the container that this program runs in. Outside of one the error is
// ErrNoContainer.
func FindContainer() (*Container, error) {
	f, err := os.Open(containerEnvPath)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNoContainer
	}
	if err != nil {
		return nil, fmt.Errorf("finding out which image this container was made from: %w", err)
	}
	defer f.Close()
	return parseContainerEnv(f)
}

// parseContainerEnv reads lines of the form KEY="VALUE".
func parseContainerEnv(r io.Reader) (*Container, error) {
	values := map[string]string{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "=")
		if text, err := strconv.Unquote(value); err == nil {
			value = text
		}
		values[key] = value
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", containerEnvPath, err)
	}
	c := &Container{Image: values["image"], ImageID: values["imageid"]}
	if !choice.IsImageID(c.ImageID) {
		return nil, fmt.Errorf("%s does not say which image this container was made from: run the container with --privileged, or name the image by --source-imgref", containerEnvPath)
	}
	if values["rootless"] == "1" {
		return nil, errors.New("this container was started by a user who is not root, so it can neither mount nor read root's images: run podman as root")
	}
	return c, nil
}

// Source is the container's image, in podman's storage. The identifier is the digest of the image's
// configuration, so that the source is this very image, whatever its name has come to mean since
// the container was started.
func (c *Container) Source() image.Ref {
	return image.Ref{Transport: image.TransportContainersStorage, Name: "@" + c.ImageID}
}

// Target is where a host takes updates of the image from: the name that the container was started
// by, over a transport as [choice.TargetOf] takes it.
func (c *Container) Target(transport string) (string, error) {
	if c.Image == "" || choice.IsImageID(strings.TrimPrefix(c.Image, "sha256:")) {
		return "", errors.New("the container was started by the image's identifier, so where updates come from is unknown: name it")
	}
	return choice.TargetOf(c.Source(), c.Image, transport)
}

// storageError adds the advice to an error of reading the container's own image.
func (c *Container) storageError(err error) error {
	return fmt.Errorf("the image that this container was made from, %s (%.12s): %w; %s", c.Image, c.ImageID, err, mountHint)
}
