package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"installer/rootfs/beneath"
	"installer/rootfs/image"
)

// AlephPath is where the record of the first installation stands in the physical root, as bootc has it.
const AlephPath = ".bootc-aleph.json"

// Aleph records what a system was first installed from. Its fields are those that bootc writes; nothing decides by it.
type Aleph struct {
	Image       string            `json:"image,omitempty"` // source with transport and digest
	Digest      string            `json:"digest"`          // of the manifest
	TargetImage string            `json:"target-image"`    // what the host follows
	Labels      map[string]string `json:"labels,omitempty"`
	Version     *string           `json:"version"`
	Timestamp   *time.Time        `json:"timestamp"`
	Kernel      string            `json:"kernel"`  // release of the kernel that the installation ran on
	SELinux     string            `json:"selinux"` // state of SELinux during the installation, "disabled" or "enabled"
}

// NewAleph fills the record in for an image. kernel is what uname -r prints on the installing machine.
func NewAleph(img *image.Image, target, kernel, selinux string) Aleph {
	a := Aleph{
		Image: img.Ref.String(), Digest: img.ManifestDigest, TargetImage: target,
		Labels: img.Labels, Kernel: kernel, SELinux: selinux,
	}
	if v := imageVersion(img); v != "" {
		a.Version = &v
	}
	if !img.Created.IsZero() {
		created := img.Created.UTC()
		a.Timestamp = &created
	}
	return a
}

// WriteAleph writes the record into the physical root, where none may stand yet.
func WriteAleph(root *os.File, a Aleph, l Ledger) error {
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encoding the record of the installation: %w", err)
	}
	if err := beneath.Of(root, l).WriteFile(AlephPath, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the record of the installation: %w", err)
	}
	return nil
}
