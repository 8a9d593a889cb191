package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

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

// inspection is a verification under way, and what its checks have found so far for those after
// them.
type inspection struct {
	opts   Options
	report *Report
	ledger *finalize.Ledger
	source *source
	disk   device
	layout

	root        *Root
	tree        tree // of root
	deployments []*deployment
	entries     []*bootEntry
	repo        *ostree.Repo
	broken      map[string]bool // damaged file objects, by their path
}

// device is the disk as a machine sees it.
type device struct {
	io.ReaderAt
	size   int64 // bytes
	sector int   // bytes
}

// part is the content of a partition.
func (d device) part(p Partition) *io.SectionReader { return io.NewSectionReader(d, p.Start, p.Size) }

// Run verifies a disk. The report is complete as far as the verification came; it is nil only when
// the disk could not be opened at all. The error is not about the disk's state, which the report
// has: it says that the verification could not be carried out, or not be ended cleanly. A disk that
// something uses is an [*disk.InUseError].
func Run(ctx context.Context, o Options) (report *Report, err error) {
	if o.Root == nil && o.NoRoot == "" {
		o.NoRoot = "there is no way to mount the root file system here"
	}
	i := &inspection{opts: o, ledger: finalize.NewLedger()}
	i.report = &Report{Version: ReportVersion, Started: time.Now(), Findings: []Finding{}}
	if i.source, err = openSource(ctx, o.Disk, o); err != nil {
		return nil, err
	}
	i.report.Disk = DiskInfo{Path: o.Disk, Format: i.source.format, Size: i.source.size, SectorSize: i.source.sector}
	defer func() { err = errors.Join(err, i.source.Close()) }()
	err = i.checkAll(ctx)
	err = errors.Join(err, i.release())
	i.report.conclude()
	return i.report, err
}

func (i *inspection) checkAll(ctx context.Context) error {
	i.perform(ctx, checks[0])
	guestErr := i.askGuest(ctx)
	for _, c := range checks {
		if i.made(c.name) {
			continue
		}
		if err := i.source.load(ctx, i.opts.OpenImage); err != nil {
			return errors.Join(guestErr, err)
		}
		i.disk = device{i.source.file, i.source.size, i.source.sector}
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
	begin := time.Now()
	f := &findings{path: i.opts.Disk, found: map[Severity]int{}, result: Check{Name: c.name, Title: c.title, Status: Passed}}
	result := &f.result
	switch {
	case ctx.Err() != nil:
	case c.missing != nil && c.missing(i) != "":
		result.Status, result.Detail = NotChecked, c.missing(i)
	default:
		if err := c.run(ctx, i, f); err != nil {
			f.fault(i.opts.Disk, "the check could not be completed: %v", err)
		}
	}
	f.countRest()
	switch {
	case ctx.Err() != nil:
		f.list = nil
		result.Status, result.Detail = NotChecked, "interrupted"
	case result.Status == Failed:
		result.Detail = "" // it is for a check that passed
	}
	result.Seconds = time.Since(begin).Seconds()
	i.conclude(*result, f.list)
}

// conclude enters a check that was made, and its findings, in the report.
func (i *inspection) conclude(c Check, findings []Finding) {
	i.report.Findings = append(i.report.Findings, findings...)
	i.report.Checks = append(i.report.Checks, c)
	if i.opts.Observe != nil {
		i.opts.Observe(c, findings)
	}
}

// made reports whether a check has been made.
func (i *inspection) made(name string) bool {
	return slices.ContainsFunc(i.report.Checks, func(c Check) bool { return c.Name == name })
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
