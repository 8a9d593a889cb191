package verify

import (
	"context"
	"fmt"

	"installer/rootfs/bootable"
	"installer/rootfs/bootloader"
)

// check is one check. missing returns the reason for which it cannot be made, or "". run hands the
// check the values that it is about, and keeps its results for those after it.
type check struct {
	name, title string
	missing     func(*inspection) string
	run         func(context.Context, *inspection, *findings) error
}

// checks are all checks in the order in which they are made: each may use the results of those
// before it.
var checks = []check{
	{"image-file", "Disk image", nil, func(ctx context.Context, i *inspection, f *findings) error {
		return checkImage(ctx, f, i.source)
	}},
	{"partition-table", "Partition table", nil, func(_ context.Context, i *inspection, f *findings) error {
		(&tableCheck{f, &i.layout, i.disk}).check()
		i.report.Disk.Partitions = i.parts
		return nil
	}},
	{"layout", "File systems", (*inspection).noTable, func(ctx context.Context, i *inspection, f *findings) error {
		c := layoutCheck{f, &i.layout, i.source, i.disk, i.ledger, i.opts.Root, i.opts.NoRoot}
		err := c.check(ctx)
		i.readSuperblock(i.disk)
		i.report.Disk.Filesystem, i.report.Disk.RootUUID = string(i.super.Type), i.super.UUID
		return err
	}},
	{"bios-boot", "BIOS boot code", (*inspection).noTable, func(_ context.Context, i *inspection, f *findings) error {
		return checkBIOS(f, i.disk, &i.layout)
	}},
	{"esp-file-system", "EFI system partition", (*inspection).noESP, func(_ context.Context, i *inspection, f *findings) error {
		checkESP(f, i.disk, &i.layout)
		return nil
	}},
	{"esp-boot-files", "Boot files", (*inspection).noFAT, func(_ context.Context, i *inspection, f *findings) error {
		(&bootFilesCheck{f, &i.layout}).check()
		return nil
	}},
	{"root-super-block", "Root file system", (*inspection).noRootPartition, func(_ context.Context, i *inspection, f *findings) error {
		checkSuperblock(f, i.disk, &i.layout)
		return nil
	}},
	{"boot-super-block", "Boot file system", (*inspection).noBoot, func(_ context.Context, i *inspection, f *findings) error {
		checkBootSuperblock(f, i.disk, &i.layout)
		return nil
	}},
	{"root-mount", "Mounting read-only", (*inspection).noMount, func(ctx context.Context, i *inspection, f *findings) error {
		return i.openRoot(ctx, f)
	}},
	{"sysroot", "System root", (*inspection).noRoot, func(_ context.Context, i *inspection, f *findings) error {
		c := sysrootCheck{findings: f, tree: i.tree}
		c.check()
		i.deployments = c.deployments
		return nil
	}},
	{"boot-entries", "Boot entries", (*inspection).noRoot, func(_ context.Context, i *inspection, f *findings) error {
		c := entriesCheck{findings: f, layout: &i.layout, tree: i.tree, deployments: i.deployments}
		c.check()
		i.entries = c.entries
		return nil
	}},
	{"boot-links", "Boot links", (*inspection).noRoot, func(_ context.Context, i *inspection, f *findings) error {
		checkLinks(f, i.tree, i.entries, i.deployments)
		return nil
	}},
	{"boot-configuration", "GRUB's configuration in /boot", (*inspection).noRoot, func(_ context.Context, i *inspection, f *findings) error {
		checkBootConfig(f, &i.layout, i.tree)
		return nil
	}},
	{"repository", "Repository", (*inspection).noRoot, func(ctx context.Context, i *inspection, f *findings) error {
		return i.openRepository(ctx, f)
	}},
	{"deployment", "Deployments", (*inspection).noRepository, func(ctx context.Context, i *inspection, f *findings) error {
		return checkDeployments(ctx, f, i.tree, i.repo, i.deployments, i.broken)
	}},
	{"composefs", "composefs images", (*inspection).noRepository, func(ctx context.Context, i *inspection, f *findings) error {
		return (&composefsCheck{findings: f, tree: i.tree, repo: i.repo}).check(ctx, i.deployments)
	}},
	{"bootable", "First boot and first update", (*inspection).noRoot, func(ctx context.Context, i *inspection, f *findings) error {
		kind := i.bootLoaderKind(i.tree)
		return checkBootable(ctx, f, i.tree, i.deployments, bootable.Options{
			Arch: i.architecture(), EFIStub: kind.KernelOnESP(), OwnBoot: kind == bootloader.None && !i.hasLoader(),
		})
	}},
	{"kernel", "Kernels", (*inspection).noRoot, func(ctx context.Context, i *inspection, f *findings) error {
		return (&kernelCheck{f, ctx, i.tree, i.broken}).check(i.deployments)
	}},
	{"secure-boot", "Secure Boot", (*inspection).noFAT, func(ctx context.Context, i *inspection, f *findings) error {
		return (&chainCheck{f, &i.layout, ctx, i.tree, i.root != nil, i.deployments}).check()
	}},
	{"origin", "Origins", (*inspection).noRepository, func(_ context.Context, i *inspection, f *findings) error {
		checkOrigins(f, i.tree, i.repo, i.deployments)
		return nil
	}},
	{"etc", "Configuration", (*inspection).noRoot, func(ctx context.Context, i *inspection, f *findings) error {
		return (&etcCheck{findings: f, ctx: ctx, tree: i.tree}).check(i.deployments)
	}},
	{"labels", "SELinux labels", (*inspection).noRepository, func(ctx context.Context, i *inspection, f *findings) error {
		return (&labelCheck{findings: f, ctx: ctx, tree: i.tree, repo: i.repo}).check(i.deployments)
	}},
	{"boot-loader", "Boot loader", (*inspection).noRebuild, func(ctx context.Context, i *inspection, f *findings) error {
		c := loaderCheck{f, &i.layout, i.disk, i.tree, i.root.Path, i.opts.RunInTree, i.deployments, i.repo}
		return c.check(ctx)
	}},
}

// The following return the reason for which a check cannot be made, or "".

func (i *inspection) noTable() string {
	if len(i.parts) == 0 {
		return "no partition table could be read"
	}
	return ""
}

func (i *inspection) noESP() string {
	if i.esp == nil && !i.biosOnly() {
		return "there is no EFI system partition to look at"
	}
	return ""
}

func (i *inspection) noFAT() string {
	if i.fat == nil && !i.biosOnly() {
		return "the EFI system partition cannot be read"
	}
	return ""
}

func (i *inspection) noRootPartition() string {
	if i.rootfs == nil {
		return "there is no root partition to look at"
	}
	return ""
}

func (i *inspection) noMount() string {
	switch {
	case i.super.Type == "":
		return "there is no root file system to mount"
	case i.opts.Root == nil:
		return i.opts.NoRoot
	}
	return ""
}

func (i *inspection) noRoot() string {
	switch {
	case i.root != nil:
		return ""
	case i.opts.Root == nil:
		return i.opts.NoRoot
	}
	return "the root file system is not mounted"
}

func (i *inspection) noRepository() string {
	if reason := i.noRoot(); reason != "" {
		return reason
	}
	if i.repo == nil {
		return "the repository cannot be read"
	}
	return ""
}

func (i *inspection) noRebuild() string {
	if reason := i.noRoot(); reason != "" {
		return reason
	}
	switch {
	case i.opts.RunInTree == nil || i.root.Path == "":
		return "there is no way to run the image's own boot loader programs here"
	case i.esp != nil && i.fat == nil:
		return "the EFI system partition cannot be read"
	}
	return ""
}

// noBoot returns the reason for which the place of /boot is not known, or "".
func (i *inspection) noBoot() string {
	if reason := i.noRootPartition(); reason != "" {
		return reason
	}
	if i.boot == nil && len(i.maybe) > 0 {
		return fmt.Sprintf("whether /boot is on %s is not known", describe(i.maybe))
	}
	return ""
}
