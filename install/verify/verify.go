package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"installer/disk/fsinfo"
	"installer/finalize"
	"installer/rootfs/ostree"
)

// RunInTree runs a program of a deployment, confined, with the directory tree as its root, and
// returns its standard output; files are readable for it in /tmp.
type RunInTree func(ctx context.Context, tree string, argv []string, files map[string][]byte) ([]byte, error)

// Options name the disk to verify, and the means.
type Options struct {
	Disk string // raw file, block device or qcow2
	// BackingFiles are the files that a qcow2 may refer to, as its backing files or external data
	// files. A disk that refers to another one is refused with a [*ReferenceError] before any
	// program reads it.
	BackingFiles []string
	// OpenImage shows a qcow2. Without it, or where it fails, a qcow2 is unpacked in TempDir,
	// sparse, to a file without a name.
	OpenImage ImageOpener
	TempDir   string
	// Root shows the root file system. Without it NoRoot says why, and the content of the root is
	// not checked.
	Root   RootOpener
	NoRoot string
	// RunInTree makes the boot loader once more. Without it only the form of the boot partitions is
	// checked.
	RunInTree RunInTree
	// Guest, which may be nil, makes the checks in place of Root.
	Guest Guest
	// Observe, which may be nil, is called with each check as it ends, and its findings.
	Observe func(Check, []Finding)
}

// check is one check. missing returns the reason for which it cannot be made, or "".
type check struct {
	name, title string
	missing     func(*inspection) string
	run         func(*inspection, context.Context) error
}

// checks are all checks in the order in which they are made: each may use the results of those
// before it.
func checks() []check {
	return []check{
		{"image-file", "Disk image", nil, (*inspection).checkImage},
		{"partition-table", "Partition table", nil, (*inspection).checkTable},
		{"layout", "File systems", (*inspection).noTable, (*inspection).checkLayout},
		{"bios-boot", "BIOS boot code", (*inspection).noTable, (*inspection).checkBIOS},
		{"esp-file-system", "EFI system partition", (*inspection).noESP, (*inspection).checkESP},
		{"esp-boot-files", "Boot files", (*inspection).noFAT, (*inspection).checkBootFiles},
		{"root-super-block", "Root file system", (*inspection).noRootPartition, (*inspection).checkSuperblock},
		{"boot-super-block", "Boot file system", (*inspection).noBoot, (*inspection).checkBootSuperblock},
		{"root-mount", "Mounting read-only", (*inspection).noMount, (*inspection).openRoot},
		{"sysroot", "System root", (*inspection).noRoot, (*inspection).checkSysroot},
		{"boot-entries", "Boot entries", (*inspection).noRoot, (*inspection).checkEntries},
		{"boot-links", "Boot links", (*inspection).noRoot, (*inspection).checkLinks},
		{"boot-configuration", "GRUB's configuration in /boot", (*inspection).noRoot, (*inspection).checkBootConfig},
		{"repository", "Repository", (*inspection).noRoot, (*inspection).checkRepository},
		{"deployment", "Deployments", (*inspection).noRepository, (*inspection).checkDeployments},
		{"bootable", "First boot and first update", (*inspection).noRoot, (*inspection).checkBootable},
		{"kernel", "Kernels", (*inspection).noRoot, (*inspection).checkKernels},
		{"origin", "Origins", (*inspection).noRepository, (*inspection).checkOrigins},
		{"etc", "Configuration", (*inspection).noRoot, (*inspection).checkEtc},
		{"boot-loader", "Boot loader", (*inspection).noRebuild, (*inspection).checkBootLoader},
	}
}

// maxFindings bounds how many findings of one severity a check lists.
const maxFindings = 100

// inspection is a verification under way: its checks share these values.
type inspection struct {
	opts   Options
	report *Report
	ledger *finalize.Ledger
	now    *Check           // the check being made
	found  map[Severity]int // by it

	source *source
	disk   io.ReaderAt
	parts  []Partition
	bios   *Partition
	esp    *Partition
	rootfs *Partition
	boot   *Partition  // with a file system of its own for /boot; nil: there is none
	others []Partition // of types that do not say whether they are a part of the system
	arch   string      // of the root partition's type, as Go names it; "" where another type has the root

	bootCode bool // the boot sector holds a program
	grub     bool // that of GRUB
	fat      *fatVolume
	super    fsinfo.Superblock
	// bootSuper is the superblock of boot. maybe are the file systems whose content is not known.
	bootSuper fsinfo.Superblock
	maybe     []filesystem

	root        *Root
	tree        tree
	entries     []*bootEntry
	deployments []*deployment
	repo        *ostree.Repo
	broken      map[string]bool // damaged file objects, by their path
}

// Run verifies a disk. The report is complete as far as the verification came; it is nil only when
// the disk could not be opened at all. The error is not about the disk's state, which the report
// has: it says that the verification could not be carried out, or not be ended cleanly. A disk that
// something uses is an [*disk.InUseError].
func Run(ctx context.Context, o Options) (report *Report, err error) {
	if o.Root == nil && o.NoRoot == "" {
		o.NoRoot = "there is no way to mount the root file system here"
	}
	i := &inspection{opts: o, ledger: finalize.NewLedger(), broken: map[string]bool{}}
	i.report = &Report{Version: ReportVersion, Started: time.Now(), Findings: []Finding{}}
	i.report.Disk.Path = o.Disk
	if i.source, err = openSource(ctx, o.Disk, o); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, i.source.Close()) }()
	err = i.checkAll(ctx)
	err = errors.Join(err, i.release())
	i.report.conclude()
	return i.report, err
}

func (i *inspection) checkAll(ctx context.Context) error {
	all := checks()
	i.perform(ctx, all[0])
	guestErr := i.askGuest(ctx)
	for _, c := range all {
		if i.made(c.name) {
			continue
		}
		if err := i.source.load(ctx, i.opts.OpenImage); err != nil {
			return errors.Join(guestErr, err)
		}
		i.disk = i.source.file
		i.perform(ctx, c)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("verifying %s: interrupted: %w", i.opts.Disk, context.Cause(ctx))
	}
	return guestErr
}

// perform makes one check. A read error in a check is a finding, too; one that was interrupted has
// found nothing.
func (i *inspection) perform(ctx context.Context, c check) {
	begin, before := time.Now(), len(i.report.Findings)
	result := Check{Name: c.name, Title: c.title, Status: Passed}
	i.now, i.found = &result, map[Severity]int{}
	switch {
	case ctx.Err() != nil:
	case c.missing != nil && c.missing(i) != "":
		result.Status, result.Detail = NotChecked, c.missing(i)
	default:
		if err := c.run(i, ctx); err != nil {
			i.fault(i.opts.Disk, "the check could not be completed: %v", err)
		}
	}
	i.countRest()
	switch {
	case ctx.Err() != nil:
		i.report.Findings = i.report.Findings[:before]
		result.Status, result.Detail = NotChecked, "interrupted"
	case result.Status == Failed:
		result.Detail = "" // it is for a check that passed
	}
	result.Seconds = time.Since(begin).Seconds()
	i.conclude(result, i.report.Findings[before:])
}

// conclude enters a check that was made, whose findings are in the report.
func (i *inspection) conclude(c Check, findings []Finding) {
	i.report.Checks = append(i.report.Checks, c)
	if i.opts.Observe != nil {
		i.opts.Observe(c, findings)
	}
}

// made reports whether a check has been made.
func (i *inspection) made(name string) bool {
	return slices.ContainsFunc(i.report.Checks, func(c Check) bool { return c.Name == name })
}

// fault records something that is not as it should be.
func (i *inspection) fault(where, format string, args ...any) {
	i.faultWith("", where, format, args...)
}

// faultWith is fault with advice.
func (i *inspection) faultWith(remedy, where, format string, args ...any) {
	i.now.Status = Failed
	i.find(Finding{i.now.Name, Error, where, fmt.Sprintf(format, args...), remedy})
}

// note records something worth knowing.
func (i *inspection) note(where, format string, args ...any) {
	i.find(Finding{i.now.Name, Note, where, fmt.Sprintf(format, args...), ""})
}

// find lists a finding, or counts it where there are too many to be read.
func (i *inspection) find(f Finding) {
	i.found[f.Severity]++
	if i.found[f.Severity] <= maxFindings {
		i.report.Findings = append(i.report.Findings, f)
	}
}

// countRest adds the number of findings of the check being made that were not listed.
func (i *inspection) countRest() {
	for _, severity := range []Severity{Error, Note} {
		if rest := i.found[severity] - maxFindings; rest > 0 {
			what := fmt.Sprintf("there are %d more findings of this kind", rest)
			i.report.Findings = append(i.report.Findings, Finding{i.now.Name, severity, i.opts.Disk, what, ""})
		}
	}
}

// say sets the detail of a check that passes.
func (i *inspection) say(format string, args ...any) { i.now.Detail = fmt.Sprintf(format, args...) }

// notApplicable ends a check for which the disk has nothing.
func (i *inspection) notApplicable(format string, args ...any) {
	i.now.Status = NotApplicable
	i.say(format, args...)
}

// release gives the repository and the root back, after making sure that nothing of ours is open on
// it.
func (i *inspection) release() error {
	var errs []error
	if i.repo != nil {
		errs = append(errs, i.repo.Close())
	}
	if i.root == nil {
		return errors.Join(errs...)
	}
	for _, open := range i.ledger.Open() {
		errs = append(errs, fmt.Errorf("verify still has open: %s", open))
	}
	errs = append(errs, i.root.Close())
	return errors.Join(errs...)
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
