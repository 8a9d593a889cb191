package install

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync/atomic"

	"installer/disk"
	"installer/finalize"
	"installer/finalize/mounts"
	"installer/install/confine"
	"installer/rootfs/beneath"
	"installer/rootfs/bootloader"
	"installer/rootfs/deploy"
	"installer/rootfs/ostree"

	"golang.org/x/sys/unix"
)

// system is what stands on the new root file system, as far as it is made.
type system struct {
	device     *undo // the loop device of the root
	mount      *undo
	root       *os.File
	repo       *ostree.Repo
	commit     ostree.Checksum
	deployment *deploy.Deployment
	handles    []held // in the order of opening
}

// held is a handle on the target: given to the finalize pipeline in the end, or undone.
type held struct {
	finalize.Handle
	entry *undo
}

// closerFunc makes an io.Closer of a function.
type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// hold takes a handle into the journal and into the list that finalize closes.
func (r *run) hold(name string, do func() error) { r.holdDraft(name, do, do) }

// holdDraft is hold for what finalize completes and an undo throws away.
func (r *run) holdDraft(name string, do, discard func() error) {
	entry := r.journal.add("closed the "+name, discard)
	handle := finalize.Handle{Name: name, Closer: closerFunc(do)}
	r.system.handles = append(r.system.handles, held{handle, entry})
}

func (r *run) mountRoot(context.Context) error {
	dir := r.target.root
	if err := mounts.Make(mounts.Options{Source: r.disk.device.Path(), FSType: string(r.opts.Filesystem), Target: dir}); err != nil {
		return fmt.Errorf("mounting the new root: %w", err)
	}
	r.system.mount = r.journal.add("unmounted the new root", func() error { return unmountAt(dir) })
	if r.opts.Filesystem == disk.XFS {
		r.failFast(r.disk.device.Name())
	}
	released := r.ledger.Opened("fd", dir)
	root, err := os.Open(dir)
	if err != nil {
		released()
		return fmt.Errorf("opening the new root: %w", err)
	}
	r.system.root = root
	r.hold("root directory", func() error { defer released(); return root.Close() })
	if err := root.Chmod(0o755); err != nil {
		return fmt.Errorf("setting the mode of the new root: %w", err)
	}
	return nil
}

// importImage writes every file of the image into the repository, each once,
// as it streams by, and then the commits that bind them.
func (r *run) importImage(ctx context.Context) error {
	if err := deploy.InitSysroot(r.system.root); err != nil {
		return err
	}
	repo, err := ostree.Create(r.system.root, r.repoConfig(), r.ledger)
	if err != nil {
		return err
	}
	r.system.repo = repo
	r.holdDraft("repository", repo.Close, repo.Discard)

	img := r.source.image
	var done atomic.Int64
	tree, err := img.Import(ctx, deploy.NewSink(repo), r.importOptions(&done))
	if err != nil {
		return err
	}
	if err := deploy.CheckTree(tree); err != nil {
		return err
	}
	target := r.opts.Target
	if img.Manifest == nil { // a directory is under a plain ref of its own
		target = ""
	}
	r.system.commit, err = deploy.WriteImage(ctx, repo, img, tree, target)
	if err != nil {
		return err
	}
	files, dirs, links, bytes := tree.Stats()
	r.report.Source.Bytes = done.Load()
	r.report.Deployment.Files, r.report.Deployment.Bytes = files, bytes
	r.say("%d files, %d links, %d directories, %s", files, links, dirs, FormatBytes(bytes))
	return nil
}

// repoConfig is what bootc sets. systemd-boot reads the EFI system partition
// alone, where the paths of a boot entry have no /boot before them.
func (r *run) repoConfig() ostree.Config {
	return ostree.Config{Bootloader: "none", BootPrefix: r.opts.Bootloader != bootloader.SystemdBoot, ReadOnly: true}
}

func (r *run) deploy(ctx context.Context) error {
	o := deploy.Options{
		Stateroot: r.opts.Stateroot,
		Kargs:     r.target.kargs,
		Refspec:   deploy.RootfsRef,
	}
	if target := r.opts.Target; target != "" {
		o.Origin = deploy.OriginReference(target, r.opts.SourceOpen.EnforceSigPolicy)
	}
	d, err := deploy.Deploy(ctx, r.system.root, r.system.repo, r.system.commit, o, r.ledger)
	if err != nil {
		return err
	}
	for _, note := range d.Notes {
		r.note("%s", note)
	}
	if err := r.writeSSHKeys(d.Path); err != nil {
		return err
	}
	if err := r.writeFstab(d.Path); err != nil {
		return err
	}
	if err := r.writeAleph(); err != nil {
		return err
	}
	r.system.deployment = d
	r.report.Deployment.Commit = d.Commit.String()
	r.report.Deployment.Path = d.Path
	r.report.Deployment.BootChecksum = d.BootChecksum
	r.report.Deployment.Kernel = d.Kernel.Version
	r.report.Deployment.Kargs = d.Kargs
	r.say("%s, kernel %s", d.Path, d.Kernel.Version)
	return nil
}

func (r *run) installBootloader(ctx context.Context) error {
	if r.opts.Bootloader == bootloader.None {
		r.say("none, as asked for")
		return nil
	}
	d, site := r.system.deployment, r.target.site
	tree := filepath.Join(r.target.root, d.Path)
	firmware := r.target.firmware
	treeFS, err := beneath.OpenFS(r.system.root, d.Path, r.ledger)
	if err != nil {
		return err
	}
	defer treeFS.Close()
	bootFS, err := beneath.OpenFS(r.system.root, "boot", r.ledger)
	if err != nil {
		return err
	}
	defer bootFS.Close()
	t := bootloader.Target{
		Arch:     r.arch(),
		Firmware: firmware,
		Vendor:   d.OSID,
		Tree:     treeFS,
		Run: func(ctx context.Context, argv []string, files map[string][]byte) ([]byte, error) {
			return confine.Output(ctx, confine.Program{Root: tree, Argv: argv, Files: files})
		},
		Boot:          bootFS,
		Entry:         bootloader.Entry{Name: path.Base(d.EntryPath), Text: d.EntryText},
		BootUUID:      site.entriesUUID,
		BootPartition: site.entriesNumber,
		ESP:           site.esp,
		ESPPartition:  site.espNumber,
		BootDir:       site.bootDir,
		Disk:          site.disk,
		SectorSize:    site.sectorSize,
		BIOSBoot:      site.bios,
	}
	if _, err := bootloader.Install(ctx, r.opts.Bootloader, t); err != nil {
		return err
	}
	r.say("%s for %s", r.opts.Bootloader, firmware)
	return nil
}

// writeAleph leaves a record of what the system was first installed from.
func (r *run) writeAleph() error {
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		return fmt.Errorf("asking for the running kernel's release: %w", err)
	}
	selinux := "disabled"
	if r.opts.DisableSELinux && r.source.facts.selinux {
		selinux = "force-target-disabled" // in bootc's words
	} else if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		selinux = "enabled"
	}
	aleph := deploy.NewAleph(r.source.image, r.opts.Target, unix.ByteSliceToString(host.Release[:]), selinux)
	if r.opts.SourceName != "" {
		aleph.Image = r.opts.SourceName
	}
	return deploy.WriteAleph(r.system.root, aleph, r.ledger)
}

// startedByUEFI tells which firmware started this machine.
func startedByUEFI() bool {
	_, err := os.Stat("/sys/firmware/efi")
	return err == nil
}
