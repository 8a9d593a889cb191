// Package system writes the new system on a root file system: the repository with the image's
// content, the deployment, the bound images, and the boot loader.
//
// It creates each file, directory and link on the root through the writer of package beneath. The
// devices beneath the root belong to package target, and the formats to the packages of rootfs.
package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"

	"installer/finalize"
	"installer/install/choice"
	"installer/install/confine"
	"installer/install/journal"
	"installer/rootfs/beneath"
	"installer/rootfs/bootloader"
	"installer/rootfs/bound"
	"installer/rootfs/deploy"
	"installer/rootfs/image"
	"installer/rootfs/ostree"
)

// System is a system that is being written.
type System struct {
	choice  *choice.Choice
	path    string // where the root is mounted
	root    *beneath.Dir
	journal *journal.Journal
	ledger  *finalize.Ledger
	log     journal.Log

	repo       *ostree.Repo
	commit     ostree.Checksum
	tree       *image.Node // of the commit, until it is deployed
	deployment *deploy.Deployment
}

// New begins a system on the root file system that is mounted on path and open as root.
func New(c *choice.Choice, path string, root *beneath.Dir, j *journal.Journal, l *finalize.Ledger, log journal.Log) *System {
	return &System{choice: c, path: path, root: root, journal: j, ledger: l, log: log}
}

// Imported counts the entries and bytes of an import.
type Imported struct {
	Read               int64 // bytes of the source
	Files, Links, Dirs int
	BaseCommit         string // of an ostree-native image, the commit that it holds
	Bytes              int64  // content of the files
}

// Import writes every file of the image into the repository, each once, as it streams by, and then
// the commits that bind them.
func (s *System) Import(ctx context.Context, img *image.Image, o image.ImportOptions) (n Imported, err error) {
	err = s.root.AsFile(func(root *os.File) error {
		if err := deploy.InitSysroot(root); err != nil {
			return err
		}
		s.repo, err = ostree.Create(root, s.repoConfig(), s.ledger)
		return err
	})
	if err != nil {
		return n, err
	}
	s.journal.HoldDraft("repository", s.repo.Close, s.repo.Discard)
	var read atomic.Int64
	progress := o.Progress
	o.Progress = func(n int64) {
		read.Add(n)
		progress(n)
	}
	tree, err := img.Import(ctx, deploy.NewSink(s.repo), o)
	if err != nil {
		return n, err
	}
	target := s.choice.Target
	if img.Manifest == nil { // a directory is under a plain ref of its own
		target = ""
	}
	if s.commit, err = deploy.WriteImage(ctx, s.repo, img, tree, target); err != nil {
		return n, err
	}
	if s.choice.Root.Composefs.Wanted() {
		s.tree = tree.Root
	}
	n.Files, n.Dirs, n.Links, n.Bytes = tree.Stats()
	if tree.Base != nil {
		n.BaseCommit = tree.Base.Checksum.String()
	}
	n.Read = read.Load()
	return n, nil
}

// repoConfig returns the repository's configuration, which is bootc's, but for loaders that
// read the EFI system partition alone.
func (s *System) repoConfig() ostree.Config {
	root := s.choice.Root
	return ostree.Config{Bootloader: "none", BootPrefix: !s.choice.Bootloader.KernelOnESP(), ReadOnly: !root.WritableRoot, Verity: root.Verity}
}

// Deploy makes the deployment, with the settings of the choice in it.
func (s *System) Deploy(ctx context.Context, aleph deploy.Aleph) (d *deploy.Deployment, err error) {
	o := deploy.Options{Stateroot: s.choice.Stateroot, Kargs: s.choice.Kargs, Refspec: deploy.RootfsRef, Root: s.choice.Root, Tree: s.tree}
	s.tree = nil
	if s.choice.Target != "" {
		o.Origin = deploy.OriginReference(s.choice.Target, s.choice.SignedOnly)
	}
	err = s.root.AsFile(func(root *os.File) (err error) {
		d, err = deploy.Deploy(ctx, root, s.repo, s.commit, o, s.ledger)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.root.With(d.Path, s.writeSettings); err != nil {
		return nil, err
	}
	err = s.root.AsFile(func(root *os.File) error { return deploy.WriteAleph(root, aleph, s.ledger) })
	s.deployment = d
	return d, err
}

// writeSettings writes the files of the deployment's own /etc that say how it was installed.
func (s *System) writeSettings(deployment *beneath.Dir) error {
	if err := s.writeRootKeys(deployment); err != nil {
		return fmt.Errorf("writing root's SSH keys into the deployment: %w", err)
	}
	return s.writeFstab(deployment)
}

// writeRootKeys leaves the line that makes root's SSH keys.
func (s *System) writeRootKeys(deployment *beneath.Dir) error {
	line := s.choice.RootKeys
	if line == "" {
		return nil
	}
	if err := deployment.MkdirAll(path.Dir(choice.RootKeysPath), 0o755); err != nil {
		return err
	}
	return deployment.Replace(choice.RootKeysPath, strings.NewReader(line), int64(len(line)), 0o644)
}

// CopyBound writes the bound images to bootc's own storage on the target.
func (s *System) CopyBound(ctx context.Context, images []*bound.Image, o image.ImportOptions) (err error) {
	released := s.ledger.Opened("storage", s.path)
	defer released()
	store, err := bound.Create(s.root, s.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	for _, img := range images {
		if err := store.Put(ctx, img, o); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
	return nil
}

// Label labels the files beside those of the image, and returns how many: of, by the image's own
// policy; all of them, or those alone that bootc labels on a machine without SELinux.
func (s *System) Label(ctx context.Context, of image.Labeller, all bool) (n int, err error) {
	err = s.root.AsFile(func(root *os.File) error {
		n, err = deploy.Label(ctx, root, s.deployment, deploy.Labelling{Of: of, All: all}, s.ledger)
		return err
	})
	return n, err
}

// InstallBootloader installs the boot loader of the choice. t says where it goes.
func (s *System) InstallBootloader(ctx context.Context, t bootloader.Target) error {
	d := s.deployment
	treeFS, err := s.root.OpenFS(d.Path)
	if err != nil {
		return err
	}
	defer treeFS.Close()
	bootFS, err := s.root.OpenFS("boot")
	if err != nil {
		return err
	}
	defer bootFS.Close()
	if t.BootDir == nil {
		boot, err := s.root.Sub("boot")
		if err != nil {
			return fmt.Errorf("opening the directory boot: %w", err)
		}
		defer boot.Close()
		t.BootDir = bootloader.NewDirectory(boot)
	}
	t.Arch, t.Firmware, t.Vendor = s.choice.Arch, s.choice.Firmware, d.OSID
	t.Tree, t.Boot = treeFS, bootFS
	t.Entry = bootloader.Entry{Name: path.Base(d.EntryPath), Text: d.EntryText}
	tree := filepath.Join(s.path, d.Path)
	t.Run = func(ctx context.Context, argv []string, files map[string][]byte) ([]byte, error) {
		return confine.Output(ctx, confine.Program{Root: tree, Argv: argv, Files: files})
	}
	return bootloader.Install(ctx, s.choice.Bootloader, t)
}
