package tests

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"installer/tests/layout"
)

// Kinds of image that image/make makes.
const (
	plainImage   = "debian"
	selinuxImage = "selinux" // with an SELinux policy and a root on composefs
)

var cacheImages = map[string]func() (string, error){
	plainImage:   sync.OnceValues(func() (string, error) { return makeImage(plainImage) }),
	selinuxImage: sync.OnceValues(func() (string, error) { return makeImage(selinuxImage) }),
}

func makeImage(kind string) (string, error) {
	out, err := exec.Command("image/make", kind).Output() // the tests run in their folder
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return "", fmt.Errorf("making the image: %w\n%s", err, exit.Stderr)
		}
		return "", fmt.Errorf("making the image: %w", err)
	}
	ref := strings.TrimSpace(string(out))
	dir, tag := splitRef(ref)
	// The name is a link that another run may point elsewhere; this run keeps the target that it
	// found.
	dir, err = filepath.EvalSymlinks(dir)
	return "oci:" + dir + ":" + tag, err
}

// CacheImage returns the reference of the bootable Debian image, made if it is not in the cache.
func CacheImage(t testing.TB) string {
	t.Helper()
	return cachedImage(t, plainImage)
}

// cachedImage returns the reference of the image of a kind, made if it is not in the cache.
func cachedImage(t testing.TB, kind string) string {
	t.Helper()
	ref, err := cacheImages[kind]()
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// splitRef splits "oci:DIR:TAG".
func splitRef(ref string) (dir, tag string) {
	rest := strings.TrimPrefix(ref, "oci:")
	i := strings.LastIndexByte(rest, ':')
	return rest[:i], rest[i+1:]
}

// Variant makes a throw-away image: the layers of ref, and on top of them a layer that fill writes.
func Variant(t testing.TB, ref string, fill func(*tar.Writer) error) string {
	t.Helper()
	src, tag := splitRef(ref)
	dst := filepath.Join(t.TempDir(), "oci")
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		w.CloseWithError(errors.Join(fill(tw), tw.Close()))
	}()
	err := layout.Append(src, dst, r, nil)
	r.CloseWithError(err) // so that fill ends, whatever was read of it
	if err != nil {
		t.Fatalf("making a variant of %s: %v", ref, err)
	}
	return "oci:" + dst + ":" + tag
}

// FlattenOracle returns the tree that umoci unpacks the image to: the image's meaning, by a program
// that is not ours. It is kept in the cache, and must not be written to.
func FlattenOracle(t testing.TB, ref string) string {
	t.Helper()
	dir, err := flatten(t.Context(), ref)
	if err != nil {
		t.Fatalf("unpacking %s with umoci: %v", ref, err)
	}
	return dir
}

func flatten(ctx context.Context, ref string) (string, error) {
	dir, tag := splitRef(ref)
	d, err := layout.First(dir)
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(cache, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	bundle := filepath.Join(cache, d.Digest.Encoded()[:32])
	if _, err := os.Stat(bundle); err == nil {
		return filepath.Join(bundle, "rootfs"), nil
	}
	return filepath.Join(bundle, "rootfs"), unpack(ctx, dir+":"+tag, bundle)
}

// unpack leaves either a whole bundle or none.
func unpack(ctx context.Context, image, bundle string) error {
	part := bundle + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if _, err := command(ctx, "umoci", "unpack", "--image", image, part); err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	return os.Rename(part, bundle)
}

func cacheDir() (string, error) {
	dir := os.Getenv("INSTALLER_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(base, "installer")
	}
	dir = filepath.Join(dir, "oracle")
	return dir, os.MkdirAll(dir, 0o700) // it has setuid files
}
