package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"installer/rootfs/image"
)

// checkFetch makes sure that the installed host can get its updates: with the
// credentials that are in the image, not those of this machine.
func (r *run) checkFetch(ctx context.Context, inv *image.Inventory) error {
	if !r.opts.FetchCheck {
		return nil
	}
	ref, err := image.ParseRef(r.opts.Target)
	if err != nil {
		return err
	}
	auth, err := r.imageCredentials(inv)
	if err != nil {
		return err
	}
	o := r.opts.SourceOpen
	o.AuthFile = auth
	img, err := image.Open(ctx, ref, o)
	if err != nil {
		return fmt.Errorf("the installed host could not fetch its updates, with the credentials that are in the image: %w", err)
	}
	return img.Close()
}

// imageCredentials writes the image's credentials, or that there are none, to
// a file in the workspace, which goes with this process.
func (r *run) imageCredentials(inv *image.Inventory) (string, error) {
	secret := []byte(`{"auths":{}}`)
	for _, name := range []string{pullSecretEtc, pullSecretUsr} {
		data, err := fs.ReadFile(inv.FS(), name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", r.sourceFault(err)
		}
		secret = data
		break
	}
	name := filepath.Join(r.target.paths.dir, "auth.json")
	if err := os.WriteFile(name, secret, 0o600); err != nil {
		return "", fmt.Errorf("writing the image's credentials: %w", err)
	}
	return name, nil
}
