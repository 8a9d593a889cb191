package install

import (
	"context"
	"errors"
	"fmt"

	"installer/finalize"
	"installer/rootfs/bootloader"
	"installer/rootfs/deploy"
)

// MountedOptions is what a person chooses for an installation to file systems
// that are mounted, beside Options. Of those, Device, ViaLoopback, Wipe,
// Filesystem, RootSize, BlockSetup and WorkDir have no meaning for it.
type MountedOptions struct {
	Root string // where the root file system is mounted, without symlinks in the path
	// RootMountSpec is the value of root=; nil leaves it to the image's install
	// configuration, and else is the file system's UUID. "" is none: the initramfs
	// is left to find the root.
	RootMountSpec *string
	// BootMountSpec is where a separate boot file system is mounted from, with the
	// same defaults. "" leaves that to the image.
	BootMountSpec *string
	Replace       Replace
	SkipFinalize  bool // leave the file systems writable, and prove nothing of others
	// AcknowledgeDestructive allows to install beside the running system, on its own root.
	AcknowledgeDestructive bool
}

// Replace says what becomes of what is on the file systems.
type Replace string

// The ways to replace, as bootc names them.
const (
	ReplaceNone      Replace = ""          // nothing is: file systems that are not empty are refused
	ReplaceWipe      Replace = "wipe"      // all of it is deleted
	ReplaceAlongside Replace = "alongside" // only the boot loader's is: the directory boot, and the EFI system partition
)

// ParseReplace reads the name of a way to replace.
func ParseReplace(name string) (Replace, error) {
	switch r := Replace(name); r {
	case ReplaceNone, ReplaceWipe, ReplaceAlongside:
		return r, nil
	}
	return "", fmt.Errorf("unknown way %q: known are %s and %s", name, ReplaceWipe, ReplaceAlongside)
}

// Validate checks what can be checked of the options alone.
func (o MountedOptions) Validate() error {
	for flag, spec := range map[string]*string{"root-mount-spec": o.RootMountSpec, "boot-mount-spec": o.BootMountSpec} {
		if err := checkSpec(spec); err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
	}
	return nil
}

// checkSpec refuses what cannot be the value of a kernel argument and a field of fstab(5).
func checkSpec(spec *string) error {
	if spec == nil || *spec == "" {
		return nil
	}
	if err := deploy.CheckKarg("root=" + *spec); err != nil {
		return err
	}
	return bootloader.CheckArguments([]string{*spec})
}

// firstMountedWrite is the step before which nothing has been written.
const firstMountedWrite = "prepare"

// toFilesystemSteps is what an installation to mounted file systems does, in
// order. Whatever can be refused is refused before the first step that writes.
func toFilesystemSteps() []step {
	return []step{
		{"open-source", "Opening the source image", (*run).openSource},
		{"look", "Looking at the file systems", (*run).lookAtMounted},
		{"inspect", "Looking through the image", (*run).inspect},
		{"plan", "Planning the installation", (*run).planMounted},
		{firstMountedWrite, "Preparing the file systems", (*run).prepareMounted},
		{"import", "Writing the image's content", (*run).importImage},
		{"deploy", "Deploying", (*run).deploy},
		{"bound-images", "Copying the images that it binds", (*run).copyBound},
		{"boot-loader", "Installing the boot loader", (*run).installBootloader},
		{"finalize", "Releasing the file systems", (*run).releaseMounted},
	}
}

// ToFilesystem installs an image on file systems that the caller has mounted, in
// the mount namespace that they are mounted in. It expects to run as root, and as
// the reaper of its orphaned descendants. The mounts are the caller's: they stay,
// read-only and with nobody holding them, or writable with SkipFinalize, with
// which the outcome is Unproven. The report is complete as far as the run came,
// also with an error. Errors to look for with errors.As: [*finalize.HeldError],
// [*disk.RefusedError], [*image.SourceError].
func ToFilesystem(ctx context.Context, o Options, m MountedOptions, observe Observer) (*Report, error) {
	r := &run{opts: o, mounted: &mountedTarget{opts: m}, ledger: finalize.NewLedger(), observer: observe}
	r.report = &Report{
		Version: ReportVersion,
		Source:  SourceReport{Reference: o.Source.String()},
		Disk:    DiskReport{Path: m.Root, Bootloader: o.Bootloader},
	}
	if o.DryRun {
		return r.report, r.rehearse(ctx, before(toFilesystemSteps(), firstMountedWrite))
	}
	err := r.perform(ctx, toFilesystemSteps())
	switch {
	case err != nil:
		err = r.tellLeft(err)
		r.report.Error = err.Error()
	case r.mounted.skipFinalize:
		r.report.Outcome = Unproven
	}
	return r.report, err
}

// errWhole says what a target is that was written, but not released.
var errWhole = errors.New("the system is installed and complete; only what is said above was not achieved")

// tellLeft adds to an error what a run that failed has left on the target.
func (r *run) tellLeft(err error) error {
	root := r.mounted.opts.Root
	switch {
	case !r.mounted.written:
		return err
	case r.report.lastStep() == "finalize":
		return fmt.Errorf("%w\non %s: %w", err, root, errWhole)
	}
	return fmt.Errorf("%w\nleft on %s: a part of the system, which does not start; --replace=%s deletes it, and whatever else is there",
		err, root, ReplaceWipe)
}
