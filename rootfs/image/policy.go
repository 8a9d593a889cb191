package image

import (
	"context"
	"errors"
	"fmt"

	ociarchive "go.podman.io/image/v5/oci/archive"
	ocilayout "go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage/pkg/configfile"
)

// checkPolicy evaluates the signature policy for an image. Without a policy file there is nothing
// to hold the image against: it passes, unless a signature is demanded.
func checkPolicy(ctx context.Context, img types.UnparsedImage, o OpenOptions) error {
	policy, err := loadPolicy(systemContext(o), o.EnforceSigPolicy)
	if policy == nil || err != nil {
		return err
	}
	pc, err := signature.NewPolicyContext(policy)
	if err != nil {
		return fmt.Errorf("preparing the signature policy: %w", err)
	}
	defer pc.Destroy()
	pc.RequireSignatureVerification(o.EnforceSigPolicy)
	allowed, err := pc.IsRunningImageAllowed(ctx, img)
	if err == nil && !allowed {
		err = errors.New("not allowed")
	}
	if err != nil {
		return fmt.Errorf("refused by the signature policy (containers-policy.json): %w", err)
	}
	return nil
}

// loadPolicy reads the policy file. It is nil if there is none where one may be missing; a file
// that was asked for must be there.
func loadPolicy(sys *types.SystemContext, enforce bool) (*signature.Policy, error) {
	policy, err := signature.DefaultPolicy(sys)
	if errors.Is(err, configfile.ErrConfigFileNotFound) && !enforce {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the signature policy (containers-policy.json): %w", err)
	}
	return policy, nil
}

// layoutImage shows a manifest of a layout to the policy.
type layoutImage struct {
	ref       types.ImageReference
	manifest  []byte
	mediaType string
}

// Reference implements types.UnparsedImage.
func (i *layoutImage) Reference() types.ImageReference { return i.ref }

// Manifest implements types.UnparsedImage.
func (i *layoutImage) Manifest(context.Context) ([]byte, string, error) {
	return i.manifest, i.mediaType, nil
}

// Signatures implements types.UnparsedImage: layouts carry none.
func (i *layoutImage) Signatures(context.Context) ([][]byte, error) { return nil, nil }

// checkLayoutPolicy evaluates the policy for an image in an OCI layout or archive.
func checkLayoutPolicy(ctx context.Context, ref Ref, manifest []byte, mediaType string, o OpenOptions) error {
	name := parseLayoutName(ref.Name)
	newReference := ocilayout.NewReference
	if ref.Transport == TransportOCIArchive {
		newReference = ociarchive.NewReference
	}
	known, err := newReference(name.path, name.tag)
	if err != nil {
		return err
	}
	return checkPolicy(ctx, &layoutImage{ref: known, manifest: manifest, mediaType: mediaType}, o)
}

// systemContext puts our options into the library's form.
func systemContext(o OpenOptions) *types.SystemContext {
	p := o.Platform.withDefaults()
	sys := &types.SystemContext{
		SignaturePolicyPath:      o.PolicyPath,
		AuthFilePath:             o.AuthFile,
		SystemRegistriesConfPath: o.RegistriesConf,
		BigFilesTemporaryDir:     o.TempDir,
		OSChoice:                 p.OS,
		ArchitectureChoice:       p.Architecture,
		VariantChoice:            p.Variant,
	}
	if o.InsecureTLS {
		sys.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	}
	return sys
}
