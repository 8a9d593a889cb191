package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"installer/install/size"
	"installer/rootfs/beneath"
	"installer/rootfs/bootloader"
	"installer/rootfs/bootloader/payload"
	"installer/rootfs/ostree"
)

// loaderCheck compares the boot loader of the disk with one that is made anew.
type loaderCheck struct {
	*findings
	*layout
	disk        device
	tree        tree
	rootPath    string // where programs of this machine find the root
	runInTree   RunInTree
	deployments []*deployment
	repo        *ostree.Repo
}

// check makes the boot loader once more, from the deployment that it was made from and by that
// one's own programs, and compares every byte with the disk. Equal input gives equal bytes.
func (c *loaderCheck) check(ctx context.Context) error {
	kind := c.bootLoaderKind(c.tree)
	if kind == bootloader.None {
		c.notApplicable("none that an installation makes")
		return nil
	}
	d, err := firstDeployment(c.tree, c.repo, c.deployments)
	if err != nil {
		return err
	}
	if d == nil {
		c.notApplicable("the deployment that it was made from is not on the disk any more")
		return nil
	}
	made, inBoot := &remade{files: map[string]remadeFile{}}, &remade{files: map[string]remadeFile{}}
	if err := c.remake(ctx, kind, d, made, inBoot); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.fault("/"+d.path, "the boot loader cannot be made once more to be compared: %v", err)
		return nil
	}
	c.compareESP(made)
	c.compareBoot(ctx, inBoot)
	if err := c.compareDisk(made); err != nil {
		return err
	}
	c.say("%s: %s and %s of the disk, as the image has them or its own programs make them", kind,
		size.Count(len(made.files)+len(inBoot.files), "file"), size.Count(len(made.ranges), "range"))
	return nil
}

// hasLoader reports whether firmware finds a boot loader, of whoever made it.
func (l *layout) hasLoader() bool {
	return l.bootCode || l.fat != nil && slices.ContainsFunc(l.fat.Names, func(name string) bool {
		lower := strings.ToLower(name)
		return strings.HasPrefix(lower, "efi/") && strings.HasSuffix(lower, ".efi")
	})
}

// bootLoaderKind returns the loader on the EFI system partition, or of a disk without one. A
// distribution's own GRUB, which comes with other programs in its directory, was not put there by
// an installation unless the configuration was.
func (l *layout) bootLoaderKind(t tree) bootloader.Kind {
	kind := bootloader.None
	if l.fat == nil {
		if l.biosGRUB(t) {
			kind = bootloader.GRUB
		}
		return kind
	}
	for _, name := range l.fat.Names {
		lower := strings.ToLower(name)
		switch dir, base := path.Split(lower); {
		case !strings.HasPrefix(lower, "efi/"):
		case base == "grub.cfg":
			kind = bootloader.GRUB
		case strings.HasPrefix(base, "systemd-boot") && strings.HasSuffix(base, ".efi"):
			return bootloader.SystemdBoot
		case dir != "efi/boot/" && (strings.HasPrefix(base, "shim") || strings.HasPrefix(base, "grub")) && strings.HasSuffix(base, ".efi") && !l.ownConfigured():
			return bootloader.None
		}
	}
	return kind
}

// firstDeployment finds the deployment that the disk was installed with: the one of the image that
// the record of the installation names. It is nil when that one is gone.
func firstDeployment(t tree, repo *ostree.Repo, deployments []*deployment) (*deployment, error) {
	aleph, exists, err := readAleph(t)
	if err != nil || !exists {
		return nil, err
	}
	for _, d := range deployments {
		if repo == nil || d.entry == nil {
			continue
		}
		c, err := repo.LoadCommit(d.commit)
		if err == nil && metadata(c, keyManifestDigest) == aleph.Digest {
			return d, nil
		}
	}
	return nil, nil
}

// remake installs the boot loader into memory: the files of the directory boot into inBoot, the
// rest into made.
func (c *loaderCheck) remake(ctx context.Context, kind bootloader.Kind, d *deployment, made, inBoot *remade) error {
	release, err := osRelease(c.tree, d)
	if err != nil {
		return err
	}
	treeFS, err := beneath.OpenFS(c.tree.root, d.path, c.tree.ledger)
	if err != nil {
		return err
	}
	defer treeFS.Close()
	bootFS, err := beneath.OpenFS(c.tree.root, "boot", c.tree.ledger)
	if err != nil {
		return err
	}
	defer bootFS.Close()
	loader, _ := efiLoader(c.architecture())
	uefi := false
	if c.fat != nil {
		_, uefi = c.fat.Find(loader)
	}
	t := bootloader.Target{
		Arch:     c.architecture(),
		Firmware: bootloader.Firmware{UEFI: uefi, BIOS: c.bootCode && c.bios != nil},
		Vendor:   release.ID,
		Tree:     treeFS,
		Run: func(ctx context.Context, argv []string, files map[string][]byte) ([]byte, error) {
			return c.runInTree(ctx, path.Join(c.rootPath, d.path), argv, files)
		},
		Boot:       bootFS,
		Entry:      bootloader.Entry{Name: d.entry.name, Text: d.entry.text},
		Filesystem: string(c.super.Type), BootUUID: c.super.UUID, BootPartition: c.rootfs.Number,
		BootDir: inBoot,
		Disk:    made, SectorSize: c.disk.sector,
	}
	if c.boot != nil {
		t.Filesystem, t.BootUUID, t.BootPartition = string(c.bootSuper.Type), c.bootSuper.UUID, c.boot.Number
	}
	if c.esp != nil {
		t.ESP, t.ESPPartition = made, c.esp.Number
	}
	if c.bios != nil {
		t.BIOSBoot = &bootloader.Range{Start: c.bios.Start, Size: c.bios.Size}
	}
	if c.shimmed() {
		if t.Signed, err = payload.Find(payload.TreeOf(treeFS), t.Arch, signedLoader(kind)); err != nil {
			return err
		}
	}
	return bootloader.Install(ctx, kind, t)
}

// compareESP compares the files of the EFI system partition with those made once more.
func (c *loaderCheck) compareESP(made *remade) {
	for _, name := range slices.Sorted(maps.Keys(made.files)) {
		want := made.files[name]
		f, ok := c.fat.Find(name)
		if !ok {
			c.fault(espPath(name), "it is missing")
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, c.fat.Reader(f)); err != nil {
			c.fault(espPath(name), "it cannot be read: %v", err)
			continue
		}
		if f.Size != want.size || !bytes.Equal(sum.Sum(nil), want.sum[:]) {
			c.faultWith("if another version of the installer made this disk, its boot loader may differ and be well",
				espPath(name), "it differs from the one that the image's own programs make: %d bytes instead of %d, or other ones", f.Size, want.size)
		}
	}
}

// compareBoot compares the boot loader's files in the directory boot.
func (c *loaderCheck) compareBoot(ctx context.Context, made *remade) {
	for _, name := range slices.Sorted(maps.Keys(made.files)) {
		at, sum := path.Join("boot", name), sha256.New()
		if err := c.tree.hashInto(ctx, at, sum); err != nil {
			c.fault("/"+at, "it cannot be read: %v", err)
			continue
		}
		if want := made.files[name].sum; !bytes.Equal(sum.Sum(nil), want[:]) {
			c.faultWith("if another version of the installer made this disk, its boot loader may differ and be well",
				"/"+at, "it differs from the one that the image's own programs make")
		}
	}
}

// compareDisk compares the boot code outside of file systems.
func (c *loaderCheck) compareDisk(made *remade) error {
	for _, r := range made.ranges {
		where := "boot sector"
		if c.bios != nil && r.at >= c.bios.Start {
			where = c.bios.String()
		}
		got := make([]byte, len(r.data))
		if _, err := c.disk.ReadAt(got, r.at); err != nil {
			return fmt.Errorf("reading the boot code: %w", err)
		}
		if at := firstDifference(got, r.data); at >= 0 {
			c.faultWith("if another version of the installer made this disk, its boot loader may differ and be well", where,
				"GRUB's code differs from the code that the image's own programs make: first at byte %d of %d", at, len(r.data))
		}
	}
	return nil
}

// remade is an EFI system partition and a disk in memory, for a boot loader to be installed to. Of
// files it keeps the checksum alone: a kernel may be among them.
type remade struct {
	files  map[string]remadeFile
	ranges []remadeRange
}

type remadeFile struct {
	size int64
	sum  [sha256.Size]byte
}

type remadeRange struct {
	at   int64
	data []byte
}

// MkdirAll implements bootloader.Place: directories are where files are.
func (r *remade) MkdirAll(string) error { return nil }

// WriteFile implements bootloader.Place.
func (r *remade) WriteFile(name string, size int64, content io.Reader) error {
	sum := sha256.New()
	n, err := io.Copy(sum, content)
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%d bytes of content, %d were announced", n, size)
	}
	f := remadeFile{size: size}
	copy(f.sum[:], sum.Sum(nil))
	r.files[path.Clean(name)] = f
	return nil
}

// WriteAt implements bootloader.Disk.
func (r *remade) WriteAt(p []byte, at int64) (int, error) {
	r.ranges = append(r.ranges, remadeRange{at, bytes.Clone(p)})
	return len(p), nil
}

// ReadAt implements bootloader.Disk: a disk of zeros with a signed boot sector, under the ranges
// that were written.
func (r *remade) ReadAt(p []byte, at int64) (int, error) {
	if at < 0 {
		return 0, errors.New("reading before the start of the disk")
	}
	clear(p)
	for _, written := range append([]remadeRange{{510, []byte{0x55, 0xaa}}}, r.ranges...) {
		from, to := max(at, written.at), min(at+int64(len(p)), written.at+int64(len(written.data)))
		if from < to {
			copy(p[from-at:to-at], written.data[from-written.at:])
		}
	}
	return len(p), nil
}

var _ bootloader.Place = (*remade)(nil)
var _ bootloader.Disk = (*remade)(nil)

func firstDifference(a, b []byte) int {
	for n := range a {
		if a[n] != b[n] {
			return n
		}
	}
	return -1
}
