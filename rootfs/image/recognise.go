package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	unpack "go.podman.io/image/v5/pkg/compression"
	"golang.org/x/sys/unix"
)

// recognisedBytes and recognisedEntries bound the part of an archive that is read to recognise it.
const (
	recognisedBytes   = 64 << 20
	recognisedEntries = 10_000
)

// hint puts in the place of an error of opening ref the thing that is really there, if that is an
// image of another transport.
func hint(ref Ref, err error) error {
	at := ref.path()
	if at == "" {
		return err
	}
	found := Recognise(at)
	if found.Text == "" || slices.Contains(found.transports, ref.Transport) {
		return err
	}
	return fmt.Errorf("this is %s", found.Text)
}

// Recognised is the image that stands at a path.
type Recognised struct {
	Text       string // "a dir: image; write dir:PATH"; "" for nothing that is known
	transports []string
}

// path is the file or directory that a reference names, "" if it names none.
func (r Ref) path() string {
	switch r.Transport {
	case TransportOCI, TransportOCIArchive:
		return parseLayoutName(r.Name).path
	case TransportDockerArchive:
		name, _, _ := strings.Cut(r.Name, ":")
		return name
	case TransportDir, TransportRootfs:
		return r.Name
	}
	return ""
}

// Recognise looks for an image at a path of this machine.
func Recognise(at string) Recognised {
	st, err := os.Stat(at)
	switch {
	case err != nil:
	case st.IsDir():
		return recogniseDir(at)
	case st.Mode().IsRegular():
		return recogniseFile(at)
	}
	return Recognised{}
}

// readBy is an image that the transport reads as it is.
func readBy(transport, at string) Recognised {
	article := "a"
	if strings.HasPrefix(transport, "oci") {
		article = "an"
	}
	return Recognised{fmt.Sprintf("%s %s: image; write %s:%s", article, transport, transport, at), []string{transport}}
}

func recogniseDir(at string) Recognised {
	has := func(name string) bool {
		_, err := os.Lstat(filepath.Join(at, name))
		return err == nil
	}
	switch {
	case has("oci-layout") || has("index.json"):
		return readBy(TransportOCI, at)
	case has("version") && has("manifest.json"):
		return readBy(TransportDir, at)
	case has("overlay-images") || has("vfs-images"):
		return Recognised{Text: fmt.Sprintf("a containers-storage; write containers-storage:[%s]NAME", at)}
	case has("usr") && (has("etc") || has("bin")):
		return readBy(TransportRootfs, at)
	}
	return Recognised{}
}

func recogniseFile(at string) Recognised {
	f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Recognised{}
	}
	defer f.Close()
	head := make([]byte, 4)
	if _, err := f.ReadAt(head, 0); err == nil && string(head) == "QFI\xfb" {
		return Recognised{Text: "a disk image (qcow2), and no container image"}
	}
	plain, compressed, err := unpack.AutoDecompress(f)
	if err != nil {
		return Recognised{}
	}
	defer plain.Close()
	kinds := archiveKinds(io.LimitReader(plain, recognisedBytes))
	switch {
	case len(kinds) == 0:
		return Recognised{}
	case kinds[0] == TransportRootfs:
		return Recognised{Text: fmt.Sprintf("a tar of a directory tree; unpack it, and write %s:DIR", TransportRootfs)}
	case kinds[0] == TransportOCIArchive && compressed:
		return Recognised{fmt.Sprintf("a compressed oci-archive: image; unpack %s with gunzip or unzstd, and write oci-archive:FILE", at), kinds}
	}
	found := readBy(kinds[0], at)
	found.transports = kinds
	return found
}

// dockerLayer is the form of names in archives of docker save.
var dockerLayer = regexp.MustCompile(`^[0-9a-f]{64}(\.json|\.tar|/layer\.tar|/json|/VERSION)$`)

// archiveKinds returns the transports that read such a tar. A tar of docker save can be an OCI
// layout, too. TransportRootfs stands for a tar of a directory tree.
func archiveKinds(r io.Reader) []string {
	var oci, docker, tree bool
	t := tar.NewReader(r)
	for range recognisedEntries {
		h, err := t.Next()
		if err != nil {
			break
		}
		name := path.Clean(strings.TrimPrefix(h.Name, "/"))
		oci = oci || name == "oci-layout" || name == "index.json"
		docker = docker || name == "manifest.json" || name == "repositories" || dockerLayer.MatchString(name)
		tree = tree || name == "usr" || strings.HasPrefix(name, "usr/")
	}
	var kinds []string
	if oci {
		kinds = append(kinds, TransportOCIArchive)
	}
	if docker {
		kinds = append(kinds, TransportDockerArchive)
	}
	if tree && len(kinds) == 0 {
		kinds = append(kinds, TransportRootfs)
	}
	return kinds
}

// checkRootfs refuses a directory that is an image of another transport.
func checkRootfs(at string) error {
	if _, err := os.Lstat(filepath.Join(at, "usr")); !errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if found := recogniseDir(at); found.Text != "" {
		return fmt.Errorf("this is %s", found.Text)
	}
	return nil
}
