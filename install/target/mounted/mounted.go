package mounted

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/disk/mounts"
	"installer/finalize"
	"installer/finalize/holders"
	"installer/install/choice"
	"installer/install/journal"
	"installer/install/target"
	"installer/rootfs/beneath"
	"installer/rootfs/bootloader"
)

// Options are the wishes of the user for file systems that are mounted.
type Options struct {
	Root         string // where the root file system is mounted, without symlinks in the path
	Replace      Replace
	SkipFinalize bool // leave the file systems writable, and prove nothing of others
	// AcknowledgeDestructive allows to install beside the running system, on its own root.
	AcknowledgeDestructive bool
}

// Replace says which content of the file systems is deleted.
type Replace string

// The ways to replace, as bootc names them.
const (
	ReplaceNone      Replace = ""          // nothing is: file systems that are not empty are refused
	ReplaceWipe      Replace = "wipe"      // all of it is deleted
	ReplaceAlongside Replace = "alongside" // only the boot loader's is: the directory boot, and the EFI system partition
)

// Mounted is a set of file systems that the caller has mounted.
type Mounted struct {
	o       Options
	journal *journal.Journal
	ledger  *finalize.Ledger
	log     journal.Log

	skipFinalize bool // asked for, or there is no other way
	tree         *Tree
	found        []disk.Found // content that will be lost
	place        *Place       // of the file system with the boot entries
	noPlace      error        // why place is nil
	root         *beneath.Dir

	choice  *choice.Choice // since Plan
	written bool
	beneath *os.File          // since Plan: the disk that boot code for BIOS goes to; nil is none
	boot    bootloader.Target // since Prepare
	opened  []*os.File        // directories of the file systems that are written to
}

var _ target.Target = (*Mounted)(nil)

// New makes a target of the file systems that o names. The process must be in the mount namespace
// that they are mounted in.
func New(o Options, j *journal.Journal, l *finalize.Ledger, log journal.Log) *Mounted {
	return &Mounted{o: o, journal: j, ledger: l, log: log}
}

// Words implements target.Target.
func (m *Mounted) Words() target.Words {
	return target.Words{LookName: "look", Look: "Looking at the file systems", Plan: "Planning the installation", Release: "Releasing the file systems"}
}

// Look inspects the file systems, or refuses them.
func (m *Mounted) Look(ctx context.Context) (_ *target.Look, err error) {
	m.skipFinalize = m.o.SkipFinalize
	if m.tree, err = Find(m.o.Root); err != nil {
		return nil, err
	}
	if err := m.checkRunning(); err != nil {
		return nil, err
	}
	if err := m.checkOthers(); err != nil {
		return nil, err
	}
	if err := m.checkContents(); err != nil {
		return nil, err
	}
	if err := m.checkHolders(ctx); err != nil {
		return nil, err
	}
	if err := m.openRoot(); err != nil {
		return nil, err
	}
	if err := m.noteCopies(ctx); err != nil {
		return nil, err
	}
	m.place, m.noPlace = Beneath(m.tree.Entries().Number)
	return m.describe()
}

// checkRunning refuses to harm the running system by mistake.
func (m *Mounted) checkRunning() error {
	if !m.tree.Running {
		return nil
	}
	refused := func(reason string) error {
		return &disk.RefusedError{Path: m.o.Root, Reason: "the running system has its root on this file system: " + reason}
	}
	switch {
	case m.o.Replace == ReplaceWipe:
		return refused("deleting it would end that system")
	case m.o.Replace != ReplaceAlongside:
		return refused("mount another one; or install beside that system, which replaces its boot loader, by --replace=alongside --acknowledge-destructive")
	case !m.o.AcknowledgeDestructive:
		return refused("installing beside it replaces its boot loader; --acknowledge-destructive says that this is meant")
	}
	m.skipFinalize = true
	m.log.Note("the running system has its root on this file system, which therefore stays writable: nothing can be proven of its release")
	return nil
}

// checkLabels refuses file systems on whose files SELinux stores other labels than the system's. A
// FAT has none.
func (m *Mounted) checkLabels(labelled bool) error {
	for _, f := range m.tree.Filesystems() {
		if f.Role == ESP {
			continue
		}
		if err := target.CheckMount(f.Mount, labelled); err != nil {
			return err
		}
	}
	return nil
}

// checkOthers refuses mounts that have no place in the new system, and would be taken for a part of
// its root.
func (m *Mounted) checkOthers() error {
	if len(m.tree.Others) == 0 || m.o.Replace == ReplaceAlongside && m.skipFinalize {
		return nil
	}
	other := m.tree.Others[0]
	return &disk.RefusedError{Path: m.o.Root, Reason: fmt.Sprintf(
		"%s is mounted on %s, and only /boot and the EFI system partition (/boot/efi or /efi) can be below the root: unmount it", other.FSType, other.Point)}
}

// checkContents finds the content that will be lost, and refuses to lose content that the user
// keeps.
func (m *Mounted) checkContents() error {
	for _, f := range m.tree.Filesystems() {
		names, err := Contents(f)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			continue
		}
		kept := f.Role == Root && m.o.Replace == ReplaceAlongside
		if kept {
			if err := checkBeside(m.o.Root, names); err != nil {
				return err
			}
			if err := checkBoot(f.Mount.Point); err != nil {
				return err
			}
			names = bootOf(names)
		}
		if m.o.Replace == ReplaceNone {
			return &disk.RefusedError{Path: f.Mount.Point, Reason: fmt.Sprintf("it is not empty: it has %s; "+
				"--replace=%s deletes all of it, --replace=%s keeps the root's files and replaces only the boot loader's",
				someOf(names), ReplaceWipe, ReplaceAlongside)}
		}
		if len(names) > 0 {
			m.found = append(m.found, disk.Found{Where: f.Mount.Point, What: someOf(names)})
		}
	}
	return nil
}

// checkBeside refuses to install beside a system of the same kind.
func checkBeside(root string, names []string) error {
	if systems := Systems(names); len(systems) > 0 {
		return &disk.RefusedError{Path: root, Reason: fmt.Sprintf("it has %s, so a system of this kind is installed there already: "+
			"update that one from within, or delete it by --replace=%s", someOf(systems), ReplaceWipe)}
	}
	return nil
}

// checkBoot refuses a root whose boot is a link, or a file: boot files would go elsewhere.
func checkBoot(root string) error {
	info, err := os.Lstat(filepath.Join(root, "boot"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking at the directory boot: %w", err)
	}
	return &disk.RefusedError{Path: root, Reason: "its boot is no directory: boot files and boot entries would not be found there"}
}

// bootOf returns the names that an installation beside other files replaces: the directory boot.
func bootOf(names []string) []string {
	for _, name := range names {
		if name == "boot" {
			return []string{name}
		}
	}
	return nil
}

// someOf names the first few.
func someOf(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// checkHolders refuses early a target that could not be released in the end, and one of which files
// are to be deleted that somebody may use.
func (m *Mounted) checkHolders(ctx context.Context) error {
	wanted := []finalize.Stage{finalize.ProveSelfFree, finalize.ProveNoHolders}
	switch {
	case m.tree.Running: // this program is one of those who hold it
		return nil
	case m.skipFinalize:
		wanted = wanted[:1]
	}
	if _, err := m.runStages(ctx, nil, wanted, nil); err != nil {
		return fmt.Errorf("before anything was written: %w", err)
	}
	if len(m.found) == 0 { // nothing is deleted
		return nil
	}
	return m.checkUnused(ctx)
}

// checkUnused refuses to delete files without proof that nobody uses them.
func (m *Mounted) checkUnused(ctx context.Context) error {
	var list []mounts.Mount
	for _, f := range m.tree.Filesystems() {
		list = append(list, f.Mount)
	}
	report, err := holders.Unused(ctx, list)
	if err != nil {
		return fmt.Errorf("looking for users of %s: %w", m.o.Root, err)
	}
	return verdict(m.o.Root, report)
}

// verdict refuses to delete files in use, and files of which it is not known whether they are.
func verdict(path string, r holders.Report) error {
	switch r.Verdict {
	case holders.Free:
		return nil
	case holders.Held, holders.KernelHeld:
		return fmt.Errorf("before anything was written: %w", &finalize.HeldError{Stage: "look", Holders: r.Holders, Why: "nothing was deleted"})
	}
	return &unknownUseError{path, r}
}

// unknownUseError refuses to delete files of which it is not known whether somebody uses them.
type unknownUseError struct {
	path   string
	report holders.Report
}

func (e *unknownUseError) Error() string { return e.Unwrap().Error() }

// Unwrap returns the refusal.
func (e *unknownUseError) Unwrap() error {
	reason := "files on it would be deleted, and whether one is in use is not known"
	if e.report.Probed == holders.IsReferenced {
		reason = "files on it would be deleted, and the kernel counts references to it, by whom is not known: " + strings.Join(e.report.References, "; ")
	}
	if len(e.report.Holders) > 0 {
		reason += ": " + e.report.Holders[0].String()
	}
	if len(e.report.Unseen) > 0 {
		reason += "; not seen: " + holders.NotSeen(e.report.Unseen)
	}
	return &disk.RefusedError{Path: e.path, Reason: reason}
}

// Advice returns how to see everything, and what needs no look.
func (e *unknownUseError) Advice() string {
	advice := "make a new file system instead (mkfs refuses a device in use), which has nothing to delete"
	if see := holders.HowToSee(e.report.Unseen); see != "" {
		advice = see + "; or " + advice
	}
	return advice
}

// noteCopies notes where else the file systems stay mounted when the caller unmounts them: a copy
// keeps the superblock alive.
func (m *Mounted) noteCopies(ctx context.Context) error {
	snapshot, err := mounts.List(ctx)
	if err != nil {
		return err
	}
	known := map[int]bool{} // the mounts of the target, and those that go with them
	var tree []mounts.Mount
	for _, f := range m.tree.Filesystems() {
		tree = append(tree, f.Mount)
	}
	for _, mount := range slices.Concat(tree, mounts.Reached(snapshot, tree)) {
		known[mount.ID] = true
	}
	for ns, mount := range snapshot.OfSuperblock(m.tree.Root.Mount.Dev) {
		switch {
		case known[mount.ID]:
		case ns.Own:
			m.log.Note("also mounted on %s, which an unmount of %s does not reach", mount.Point, m.o.Root)
		default:
			m.log.Note("also mounted on %s in another mount namespace, %s, where an unmount here does not reach", mount.Point, ns.Name())
		}
	}
	return nil
}

// openRoot opens the root, and locks it against another installer.
func (m *Mounted) openRoot() error {
	root, err := m.open("root directory", m.o.Root)
	if err != nil {
		return err
	}
	m.root = beneath.Of(root, m.ledger)
	err = unix.Flock(int(root.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return &disk.InUseError{Path: m.o.Root, Err: err, Uses: []disk.Use{{What: m.o.Root,
			Why: "locked by another program, such as an installer", Remedy: "wait for it to end"}}}
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", m.o.Root, err)
	}
	return nil
}

// open opens a directory of the target, for the release to close.
func (m *Mounted) open(what, path string) (*os.File, error) {
	released := m.ledger.Opened("fd", path)
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		released()
		return nil, fmt.Errorf("opening the %s: %w", what, err)
	}
	m.journal.Hold(what, func() error { defer released(); return dir.Close() })
	m.opened = append(m.opened, dir)
	return dir, nil
}

// describe returns the facts of the file systems.
func (m *Mounted) describe() (*target.Look, error) {
	t := m.tree
	var st unix.Statfs_t
	if err := unix.Fstatfs(m.root.FD(), &st); err != nil {
		return nil, fmt.Errorf("reading the size of %s: %w", m.o.Root, err)
	}
	l := &target.Look{Path: m.o.Root, Size: int64(st.Blocks) * st.Bsize, BlockSize: int(st.Bsize), Place: choice.Place{
		Path: m.o.Root, Made: true, Filesystem: disk.Filesystem(t.Root.Super.Type), RootUUID: t.Root.Super.UUID,
		BootPoint: filepath.Join(m.o.Root, "boot"), NoBIOS: m.noBIOS(),
	}}
	if t.Boot != nil {
		l.Place.BootUUID = t.Boot.Super.UUID
	}
	if t.ESP == nil {
		l.Place.NoUEFI = "for UEFI mount the EFI system partition on " + filepath.Join(m.o.Root, "boot/efi")
	}
	var texts []string
	for _, f := range t.Filesystems() {
		texts = append(texts, f.String())
		l.Mounted = append(l.Mounted, target.Filesystem{Role: string(f.Role), MountPoint: f.Mount.Point, Device: f.Device, Type: f.Mount.FSType, UUID: f.Super.UUID})
	}
	l.Message = strings.Join(texts, ", ")
	return l, nil
}

// noBIOS returns why there is no place for a boot loader for BIOS, "" if there is one.
func (m *Mounted) noBIOS() string {
	switch {
	case m.noPlace != nil:
		return fmt.Sprintf("for BIOS %s must be on a partition of a disk with a GPT, which it is not (%v)", m.tree.Entries().Mount.Point, m.noPlace)
	case m.place.BIOSBoot == nil:
		return fmt.Sprintf("for BIOS %s needs a BIOS boot partition (type %s)", m.place.Disk, disk.TypeBIOSBoot)
	}
	return ""
}

// Root implements target.Target.
func (m *Mounted) Root() *target.Root {
	return &target.Root{Path: m.o.Root, Dir: m.root, Boot: m.boot}
}

// Where implements target.Target.
func (m *Mounted) Where() string {
	if !m.written {
		return ""
	}
	return "the root is on " + m.tree.Root.Device
}
