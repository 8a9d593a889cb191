package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"installer/rootfs/image"

	"golang.org/x/sys/unix"
)

// Files of an image that hold the credentials of the host (ostree-container(5)).
const (
	pullSecretEtc = "usr/etc/ostree/auth.json"
	pullSecretUsr = "usr/lib/ostree/auth.json"
)

// CheckFetch makes sure that the installed host can get its updates: with the credentials that are
// in the image, not those of this machine.
func (s *Source) CheckFetch(ctx context.Context, target string, inv *image.Inventory) error {
	ref, err := image.ParseRef(target)
	if err != nil {
		return err
	}
	auth, err := s.imageCredentials(inv)
	if err != nil {
		return err
	}
	defer auth.Close()
	o := s.o.Open
	o.AuthFile = fmt.Sprintf("/proc/self/fd/%d", auth.Fd())
	img, err := image.Open(ctx, ref, o)
	if err != nil {
		return fmt.Errorf("the installed host could not fetch its updates, with the credentials that are in the image: %w", err)
	}
	return img.Close()
}

// imageCredentials puts the image's credentials, or that there are none, into a file in memory.
func (s *Source) imageCredentials(inv *image.Inventory) (*os.File, error) {
	secret := []byte(`{"auths":{}}`)
	for _, name := range []string{pullSecretEtc, pullSecretUsr} {
		data, err := fs.ReadFile(inv.FS(), name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, s.Fault(err)
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
