package deploy

import (
	"context"
	"io"

	"installer/rootfs/image"
	"installer/rootfs/ostree"
)

// NewSink returns a sink that stores the files of an import as file objects of repo, under their
// checksums.
func NewSink(repo *ostree.Repo) image.Sink { return sink{repo} }

type sink struct{ repo *ostree.Repo }

// Store writes one file or symbolic link.
func (s sink) Store(ctx context.Context, m image.Meta, target string, size int64, content io.Reader) (image.ContentID, error) {
	header := ostree.FileHeader{UID: m.UID, GID: m.GID, Mode: m.Mode, Xattrs: m.Xattrs, Target: target}
	sum, err := s.repo.WriteContent(ctx, header, size, content)
	return image.ContentID(sum), err
}
