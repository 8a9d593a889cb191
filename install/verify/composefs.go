package verify

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"installer/install/size"
	"installer/rootfs/composefs"
	"installer/rootfs/deploy"
	"installer/rootfs/ostree"
)

// composefsCheck compares the composefs images of deployments with their commits.
type composefsCheck struct {
	*findings
	tree    tree
	repo    *ostree.Repo
	digests []string // of the images that are as they must be
}

func (c *composefsCheck) check(ctx context.Context, deployments []*deployment) error {
	for _, d := range deployments {
		if err := c.one(ctx, d); err != nil {
			return err
		}
	}
	if len(c.digests) == 0 && c.result.Status != Failed {
		c.notApplicable("no deployment is mounted from a composefs image")
		return nil
	}
	c.say("%s as the commits say; digest %s", size.Count(len(c.digests), "composefs image"), strings.Join(c.digests, ", "))
	return nil
}

// imageTree is a deployment as its image had it, with the image's /etc.
type imageTree struct{ deploymentFS }

func (t imageTree) Open(name string) (fs.File, error) {
	if rest, ok := strings.CutPrefix(name, "etc/"); ok {
		name = "usr/etc/" + rest
	}
	return t.deploymentFS.Open(name)
}

// one looks at one deployment.
func (c *composefsCheck) one(ctx context.Context, d *deployment) error {
	settings, err := c.settings(d)
	if err != nil {
		c.fault("/"+d.path, "%v", err)
		return nil
	}
	name := path.Join(d.path, deploy.ComposefsName)
	_, err = c.tree.stat(name)
	switch {
	case err == nil:
		return c.image(ctx, d, name, settings)
	case !errors.Is(err, fs.ErrNotExist):
		c.fault("/"+name, "%v", err)
	case settings.Composefs == deploy.ComposefsYes:
		c.faultWith("deploy the image anew", "/"+name, "it is missing, and the initramfs mounts no root without it")
	case settings.Composefs == deploy.ComposefsMaybe:
		c.note("/"+name, "it is missing, so that the root will be mounted without composefs")
	}
	return nil
}

// settings reads how the initramfs mounts a deployment.
func (c *composefsCheck) settings(d *deployment) (s deploy.RootSettings, err error) {
	err = c.tree.inDeployment(d, func(f deploymentFS) error {
		s, err = deploy.ReadRootSettings(imageTree{f})
		return err
	})
	if err == nil && d.entry != nil {
		s, err = s.With(d.entry.options)
	}
	return s, err
}

// image compares an image with the one that libostree would write.
func (c *composefsCheck) image(ctx context.Context, d *deployment, name string, s deploy.RootSettings) error {
	verity := s.Verity || c.repo.Config().Verity
	want, unprotected, err := deploy.ComposefsImage(ctx, c.repo, d.commit, verity)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		c.fault("/"+name, "the image of the deployment's commit cannot be laid out: %v", err)
		return nil
	}
	if s.Verity && unprotected > 0 {
		c.fault("/"+d.path, "%s without fs-verity: no start could read them", size.Count(unprotected, "file"))
	}
	var digest composefs.Digest
	err = c.tree.regular(name, func(f *os.File, _ int64) error {
		if digest, err = compareImage(want, f); err == nil && s.Verity {
			err = checkMeasured(f, digest)
		}
		return err
	})
	if err != nil {
		c.faultWith("deploy the image anew", "/"+name, "%v", err)
		return nil
	}
	c.digests = append(c.digests, digest.String())
	return nil
}

// checkMeasured compares the kernel's fs-verity digest of an image with that of its bytes.
func checkMeasured(f *os.File, want composefs.Digest) error {
	got, err := ostree.Measure(f)
	if err == nil && got != want {
		err = fmt.Errorf("the kernel has the fs-verity digest %s for it", got)
	}
	if err != nil {
		return fmt.Errorf("the initramfs mounts it with fs-verity alone: %w", err)
	}
	return nil
}

// compareImage compares a file with an image, and returns the digest of both.
func compareImage(want *composefs.Image, f io.Reader) (composefs.Digest, error) {
	digest := composefs.NewHash()
	c := &comparer{with: bufio.NewReaderSize(f, 1<<20)}
	_, err := want.WriteTo(io.MultiWriter(c, digest))
	if err != nil {
		return composefs.Digest{}, err
	}
	if _, err := c.with.ReadByte(); err != io.EOF {
		return composefs.Digest{}, errors.New("it is longer than the image of the deployment's commit")
	}
	return composefs.Digest(digest.Sum(nil)), nil
}

// comparer compares the bytes that are written to it with those that it reads.
type comparer struct {
	with *bufio.Reader
	buf  []byte
}

func (c *comparer) Write(p []byte) (int, error) {
	if len(c.buf) < len(p) {
		c.buf = make([]byte, len(p))
	}
	n, err := io.ReadFull(c.with, c.buf[:len(p)])
	if !bytes.Equal(c.buf[:n], p[:n]) || err == io.EOF || err == io.ErrUnexpectedEOF {
		return 0, errors.New("it differs from the image of the deployment's commit")
	}
	return n, err
}
