package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"

	"installer/rootfs/beneath"
	"installer/rootfs/image"
)

// AlephPath is where the record of the first installation stands in the physical root, as bootc has
// it.
const AlephPath = ".bootc-aleph.json"

// Aleph records the image that a system was first installed from. Its fields are those that bootc
// writes; nothing decides by it.
type Aleph struct {
	Image       string            `json:"image,omitempty"` // name of the source, without its transport
	Digest      string            `json:"digest"`          // of the manifest
	TargetImage string            `json:"target-image"`    // name of the image that the host follows, likewise
	Labels      map[string]string `json:"labels,omitempty"`
	Version     *string           `json:"version"`
	Timestamp   *string           `json:"timestamp"` // from the labels, RFC 3339
	Kernel      string            `json:"kernel"`    // release of the kernel that the installation ran on
	SELinux     string            `json:"selinux"`   // state of SELinux during the installation, "disabled" or "enabled"
}

// labelCreated is the label of an image's time of creation.
const labelCreated = "org.opencontainers.image.created"

// NewAleph makes the record for an image. source and target are references; an empty source stands
// for the reference by which the image was opened. kernel is the text that uname -r prints on the
// installing machine.
func NewAleph(img *image.Image, source, target, kernel, selinux string) Aleph {
	if source == "" {
		source = img.Ref.String()
	}
	a := Aleph{
		Image: imageName(source), Digest: img.ManifestDigest, TargetImage: imageName(target),
		Labels: img.Labels, Kernel: kernel, SELinux: selinux,
	}
	if strings.HasPrefix(a.Image, "/tmp") { // a place of the moment says nothing later
		a.Image = ""
	}
	if v := imageVersion(img); v != "" {
		a.Version = &v
	}
	if t, err := time.Parse(time.RFC3339, img.Labels[labelCreated]); err == nil {
		text := timestampText(t.UTC())
		a.Timestamp = &text
	}
	return a
}

// imageName is a reference without its transport.
func imageName(reference string) string {
	if ref, err := image.ParseRef(reference); err == nil {
		return ref.Name
	}
	return reference
}

// timestampText writes a fraction of a second with 3, 6 or 9 digits, as bootc does.
func timestampText(t time.Time) string {
	layout := "2006-01-02T15:04:05"
	switch ns := t.Nanosecond(); {
	case ns == 0:
	case ns%1_000_000 == 0:
		layout += ".000"
	case ns%1_000 == 0:
		layout += ".000000"
	default:
		layout += ".000000000"
	}
	return t.Format(layout + "Z")
}

// WriteAleph writes the record into the physical root, where none may stand yet.
func WriteAleph(root *os.File, a Aleph, l Ledger) error {
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encoding the record of the installation: %w", err)
	}
	if err := beneath.Of(root, l).WriteFile(AlephPath, canonicalJSON(data), 0o644); err != nil {
		return fmt.Errorf("writing the record of the installation: %w", err)
	}
	return nil
}

// canonicalJSON brings a document into the form of RFC 8785, in which bootc writes and compares it.
// One that has no such form, such as a number out of range, stays as it is.
func canonicalJSON(document []byte) []byte {
	canonical, err := jsoncanonicalizer.Transform(document)
	if err != nil {
		return document
	}
	return canonical
}
