package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"installer/rootfs/image"

	"golang.org/x/sys/unix"
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
	defer auth.Close()
	o := r.opts.SourceOpen
	o.AuthFile = fmt.Sprintf("/proc/self/fd/%d", auth.Fd())
	img, err := image.Open(ctx, ref, o)
	if err != nil {
		return fmt.Errorf("the installed host could not fetch its updates, with the credentials that are in the image: %w", err)
	}
	return img.Close()
}

// imageCredentials puts the image's credentials, or that there are none, into a
// file in memory.
func (r *run) imageCredentials(inv *image.Inventory) (*os.File, error) {
	secret := []byte(`{"auths":{}}`)
	for _, name := range []string{pullSecretEtc, pullSecretUsr} {
		data, err := fs.ReadFile(inv.FS(), name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, r.sourceFault(err)
		}
		secret = data
		break
	}
	fd, err := unix.MemfdCreate("credentials", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a file for the image's credentials: %w", err)
	}
	file := os.NewFile(uintptr(fd), "credentials")
	if _, err := file.Write(secret); err != nil {
		return nil, errors.Join(fmt.Errorf("writing the image's credentials: %w", err), file.Close())
	}
	return file, nil
}
