package deploy

import (
	"fmt"
	"strings"
)

// originText is the deployment's origin file, which says where updates come from: a container image
// reference in ostree-ext's form, or the ref of a plain commit.
func originText(o Options) (string, error) {
	key, value := "container-image-reference", o.Origin
	if value == "" {
		key, value = "refspec", o.Refspec
	}
	if value == "" {
		return "", fmt.Errorf("the deployment has no origin: neither an image reference nor a ref was given")
	}
	if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f }) || strings.TrimSpace(value) != value {
		return "", fmt.Errorf("origin %q holds a control character, or begins or ends with a blank", value)
	}
	// A key file's values escape the backslash.
	return "[origin]\n" + key + "=" + strings.ReplaceAll(value, `\`, `\\`) + "\n", nil
}

// OriginReference is the image reference of an origin file: reference is the image that the host
// follows, with transport, such as docker://quay.io/x/y:latest or oci:/path. With signed, updates
// must pass a signature policy that demands a signature.
func OriginReference(reference string, signed bool) string {
	if signed {
		return "ostree-image-signed:" + reference
	}
	if name, ok := strings.CutPrefix(reference, "docker://"); ok {
		return "ostree-unverified-registry:" + name
	}
	return "ostree-unverified-image:" + reference
}
