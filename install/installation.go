package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"installer/finalize"
	"installer/install/choice"
	"installer/install/place"
	"installer/install/size"
	"installer/install/source"
	"installer/install/system"
	"installer/install/target"
	"installer/rootfs/bootable"
	"installer/rootfs/bootloader"
	"installer/rootfs/bootloader/payload"
	"installer/rootfs/deploy"
	"installer/rootfs/image"
	"installer/rootfs/xattr"
)

// installation holds the values that its steps hand on. Each is set once, by the step that is named
// beside it.
type installation struct {
	run    *run
	opts   Options
	job    place.Job
	wishes choice.Options
	target target.Target
	image  *image.Image // the source, of an installation that is planned for a virtual machine; else nil

	source *source.Source   // open-source
	look   *target.Look     // claim-disk, look
	choice *choice.Choice   // inspect
	files  []string         // inspect: that the install configuration comes from
	signed *payload.Payload // inspect: the signed boot loader that is installed; nil: one is made
	bound  *source.Bound    // inspect
	need   source.Need      // inspect; made exact by plan
	policy *source.Policy   // inspect; nil: the files get no SELinux labels

	hostLabels bool // plan: SELinux labels the files of this machine

	inventory *image.Inventory // inspect; made exact by plan

	root   *target.Root   // import
	system *system.System // import
}

// releaseStep is the name of the step that releases the target.
const releaseStep = "finalize"

// looking returns the steps before the first write. Whatever can be refused is refused in them.
func (i *installation) looking() []target.Step {
	w := i.target.Words()
	return []target.Step{
		{Name: "open-source", Title: "Opening the source image", Do: i.openSource},
		{Name: w.LookName, Title: w.Look, Do: i.lookAtTarget},
		{Name: "inspect", Title: "Looking through the image", Do: i.inspect},
		{Name: "plan", Title: w.Plan, Do: i.plan},
	}
}

// writing returns the steps from the first write on.
func (i *installation) writing() []target.Step {
	return slices.Concat(i.target.Prepare(), []target.Step{
		{Name: "import", Title: "Writing the image's content", Do: i.importImage},
		{Name: "deploy", Title: "Deploying", Do: i.deploy},
		{Name: "bound-images", Title: "Copying the images that it binds", Do: i.copyBound},
		{Name: "boot-loader", Title: "Installing the boot loader", Do: i.installBootloader},
		{Name: "label", Title: "Labelling the system's own files", Do: i.labelSystem},
		{Name: releaseStep, Title: i.target.Words().Release, Do: i.release},
	}, i.target.HandOver())
}

func (i *installation) openSource(ctx context.Context) (_ string, err error) {
	o := i.opts.source()
	if i.image != nil {
		o.Image, o.InGuest = i.image, true
	} else if err := place.Check(i.job); err != nil {
		return "", err
	}
	i.source, err = source.Open(ctx, o, choice.ThisMachine(), &i.run.journal, i.run)
	if err != nil {
		return "", err
	}
	i.run.report.Source.Digest, i.run.report.Source.Layers = i.source.Image.ManifestDigest, len(i.source.Image.Layers)
	return "", nil
}

func (i *installation) lookAtTarget(ctx context.Context) (_ string, err error) {
	if i.look, err = i.target.Look(ctx); err != nil {
		return "", err
	}
	d := &i.run.report.Disk
	d.Path, d.Size, d.SectorSize, d.Mounted = i.look.Path, i.look.Size, i.look.SectorSize, i.look.Mounted
	return i.look.Message, nil
}

// inspect looks through the whole image: its faults, and its wishes for the installation, must be
// known before the first write.
func (i *installation) inspect(ctx context.Context) (string, error) {
	inv, err := i.scan(ctx, i.opts.DryRun) // a dry run is asked for the figures
	if err != nil {
		return "", err
	}
	facts, err := choice.ReadFacts(i.opts.Source, i.source.Arch(), inv, i.configRoots()...)
	if err != nil {
		return "", err
	}
	if err := i.label(inv); err != nil {
		return "", err
	}
	facts.Labelled = inv.Tree.Root.Label() != "" || i.policy != nil
	if i.choice, err = choice.Make(i.wishes, facts, i.look.Place, choice.ThisMachine()); err != nil {
		return "", err
	}
	i.files = slices.Concat(facts.Config.Files, facts.Kargs.Files)
	i.reportChoice()
	if err := i.checkImage(ctx, inv); err != nil {
		return "", err
	}
	i.inventory, i.need = inv, i.source.Measure(inv, i.bound, i.choice.Root)
	return fmt.Sprintf("%s in %d files, install configuration of %d files", size.Format(inv.Stored), inv.Objects, len(facts.Config.Files)), nil
}

func (i *installation) scan(ctx context.Context, exact bool) (*image.Inventory, error) {
	return i.source.Scan(ctx, choice.FactFiles(), exact)
}

// configRoots returns the roots whose install configuration goes over the image's own.
func (i *installation) configRoots() []fs.FS {
	if i.opts.ConfigRoot == "" {
		return nil
	}
	return []fs.FS{os.DirFS(i.opts.ConfigRoot)}
}

func (i *installation) reportChoice() {
	c, d := i.choice, &i.run.report.Disk
	d.Filesystem, d.Bootloader, d.RootUUID = c.Filesystem, c.Bootloader, c.RootUUID
	for _, note := range c.Notes {
		i.run.Note("%s", note)
	}
}

// checkImage refuses an image that lacks something for the choice.
func (i *installation) checkImage(ctx context.Context, inv *image.Inventory) (err error) {
	c := i.choice
	if err := i.source.Image.CheckRoom(inv.Tree, xattr.RoomOf(string(c.Filesystem), i.look.BlockSize)); err != nil {
		return err
	}
	for _, note := range inv.Tree.Notes() {
		i.run.Note("%s", note)
	}
	if err := i.source.CheckBootable(inv, c.Bootloader); err != nil {
		return err
	}
	needs := bootloader.Needs{Arch: c.Arch, Firmware: c.Firmware, SectorSize: i.look.SectorSize}
	if c.BootSpec == "" {
		needs.Filesystem = string(c.Filesystem)
	}
	if err := i.checkLoader(needs, inv); err != nil {
		return err
	}
	if i.opts.Survey == nil { // else the host of this virtual machine has seen to it
		if err := deploy.CheckSigned(c.Root, inv.Tree, inv.FS()); err != nil {
			return err
		}
	}
	if err := i.checkVerity(); err != nil {
		return err
	}
	if i.image != nil {
		if err := c.Filesystem.RequireInImage(programsOf(inv.Tree)); err != nil {
			return err
		}
	}
	if i.bound, err = i.source.Bind(ctx, inv); err != nil {
		return err
	}
	if c.SignedOnly && i.opts.SourceName == "" { // else the host of this virtual machine has seen to it
		if err := i.source.DemandSignature(ctx); err != nil {
			return err
		}
	}
	if i.opts.FetchCheck {
		return i.source.CheckFetch(ctx, c.Target, inv)
	}
	return nil
}

// checkLoader decides whether the signed boot loader of the image is installed, and refuses an
// image that lacks something for the one that is.
func (i *installation) checkLoader(needs bootloader.Needs, inv *image.Inventory) error {
	c, kernel := i.choice, ""
	kernels, err := fs.Glob(inv.FS(), path.Join(bootable.Modules, "*/vmlinuz"))
	if err != nil {
		return err
	}
	if len(kernels) > 0 { // there is one at most
		kernel = kernels[0]
	}
	signed, err := needs.ChooseSigned(c.Bootloader, c.SecureBoot, i.source.Programs(inv), kernel, c.Kargs)
	if err != nil {
		return err
	}
	if signed.Note != "" {
		i.run.Note("%s", signed.Note)
	}
	i.signed, needs.Signed = signed.Payload, signed.Payload != nil
	if err := c.CheckRunnable(needs.Signed, choice.ThisMachine()); err != nil {
		return i.source.Fault(err)
	}
	return needs.Check(c.Bootloader, inv.FS())
}

// checkVerity refuses a target whose files cannot have fs-verity, where the image demands it.
func (i *installation) checkVerity() error {
	if !i.choice.Root.Verity {
		return nil
	}
	if err := i.choice.Filesystem.CheckVerity(); err != nil {
		return err
	}
	if i.image != nil { // the kernel of the virtual machine will be asked
		return nil
	}
	return i.choice.Filesystem.CheckKernelVerity()
}

// programsOf returns a function that finds a program of an image, as [exec.LookPath] does on a
// machine.
func programsOf(tree *image.Tree) func(name string) (string, error) {
	return func(name string) (string, error) {
		for _, dir := range []string{"usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"} {
			if tree.Lookup(path.Join(dir, name)) != nil {
				return path.Join("/", dir, name), nil
			}
		}
		return "", exec.ErrNotFound
	}
}

// plan settles everything that can be settled before the first write.
func (i *installation) plan(ctx context.Context) (string, error) {
	if err := i.checkLabels(); err != nil {
		return "", err
	}
	plan, err := i.target.Plan(ctx, i.choice, i.room())
	if noRoom := (*target.NoRoomError)(nil); errors.As(err, &noRoom) && !i.need.Exact {
		// Equal contents were counted each, to save the time of reading them.
		inv, scanErr := i.scan(ctx, true)
		if scanErr == nil {
			scanErr = i.label(inv)
		}
		if scanErr != nil {
			return "", scanErr
		}
		i.inventory, i.need = inv, i.source.Measure(inv, i.bound, i.choice.Root)
		plan, err = i.target.Plan(ctx, i.choice, i.room())
	}
	if err != nil {
		return "", err
	}
	for _, note := range plan.Notes {
		i.run.Note("%s", note)
	}
	i.run.report.Disk.Partitions = plan.Partitions
	i.run.report.Plan = i.describe(plan)
	return "", i.confirm(ctx, plan)
}

// room returns the room that the image takes of the target.
func (i *installation) room() target.Need {
	return target.Need{Space: i.need.Space, Boot: i.need.Boot, Overlays: len(i.bound.Images) > 0}
}

// describe makes the plan of the report.
func (i *installation) describe(p *target.Plan) *Plan {
	c := i.choice
	plan := &Plan{
		Device: p.Device, Block: p.Block, Model: p.Model, Serial: p.Serial, Size: i.look.Size,
		Found: p.Found, Partitions: p.Partitions, Mounted: i.look.Mounted, RootNeed: p.RootNeed,
		Filesystem: c.Filesystem, Source: i.opts.Source.String(), Digest: i.source.Image.ManifestDigest, Target: c.Target,
		Stateroot: c.Stateroot, Bootloader: c.Bootloader, Firmware: c.Firmware.String(),
		BoundImages: i.bound.List(), Kargs: c.Kargs, Config: i.files,
	}
	if i.signed != nil {
		plan.Signed = i.signed.Source
	}
	return plan
}

// confirm asks before something is lost, if there is a way to ask.
func (i *installation) confirm(ctx context.Context, p *target.Plan) error {
	if ask := i.opts.Confirm; ask != nil && !i.opts.DryRun && p.Ask {
		return ask(ctx, i.run.report.Plan)
	}
	for _, f := range p.Found {
		i.run.Note("%s: %s", p.Lost, f)
	}
	return nil
}

func (i *installation) importImage(ctx context.Context) (string, error) {
	i.root = i.target.Root()
	i.system = system.New(i.choice, i.root.Path, i.root.Dir, &i.run.journal, i.run.ledger, i.run)
	img := i.source.Image
	o := i.source.ImportOptions(img.SourceSize())
	o.Label = i.labeller()
	n, err := i.system.Import(ctx, img, o)
	if err != nil {
		return "", err
	}
	report := i.run.report
	report.Source.BaseLayers, report.Source.BaseCommit = img.BaseLayers, n.BaseCommit
	report.Source.Bytes, report.Deployment.Files, report.Deployment.Bytes = n.Read, n.Files, n.Bytes
	return fmt.Sprintf("%d files, %d links, %d directories, %s", n.Files, n.Links, n.Dirs, size.Format(n.Bytes)), nil
}

func (i *installation) deploy(ctx context.Context) (string, error) {
	aleph, err := i.aleph()
	if err != nil {
		return "", err
	}
	d, err := i.system.Deploy(ctx, aleph)
	if err != nil {
		return "", err
	}
	report := &i.run.report.Deployment
	report.Commit, report.Path, report.BootChecksum = d.Commit.String(), d.Path, d.BootChecksum
	report.Kernel, report.Kargs, report.Composefs = d.Kernel.Version, d.Kargs, d.Composefs
	message := d.Path + ", kernel " + d.Kernel.Version
	if d.Composefs != "" {
		message += ", composefs image with the digest " + d.Composefs
	}
	return message, nil
}

// aleph makes the record of the first installation.
func (i *installation) aleph() (deploy.Aleph, error) {
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		return deploy.Aleph{}, fmt.Errorf("asking for the running kernel's release: %w", err)
	}
	release := unix.ByteSliceToString(host.Release[:])
	return deploy.NewAleph(i.source.Image, i.opts.SourceName, i.choice.Target, release, i.stateOfSELinux()), nil
}

func (i *installation) copyBound(ctx context.Context) (string, error) {
	if len(i.bound.Images) == 0 {
		return "there are none", nil
	}
	if err := i.system.CopyBound(ctx, i.bound.Images, i.source.ImportOptions(i.bound.Size())); err != nil {
		return "", err
	}
	if err := i.bound.Close(); err != nil {
		return "", err
	}
	var names []string
	for _, img := range i.bound.Images {
		names = append(names, img.Name)
	}
	return strings.Join(names, ", "), nil
}

func (i *installation) installBootloader(ctx context.Context) (string, error) {
	if i.choice.Bootloader == bootloader.None {
		return "none, as asked for", nil
	}
	place := i.root.Boot
	place.Signed = i.signed
	if err := i.system.InstallBootloader(ctx, place); err != nil {
		return "", err
	}
	if i.signed != nil {
		return fmt.Sprintf("%s for %s, signed: %s", i.choice.Bootloader, i.choice.Firmware, i.signed.Source), nil
	}
	return fmt.Sprintf("%s for %s", i.choice.Bootloader, i.choice.Firmware), nil
}

// release gives the target back, with every handle on it.
func (i *installation) release(ctx context.Context) (string, error) {
	if err := i.source.Close(); err != nil {
		return "", err
	}
	if err := injectFault(i); err != nil {
		return "", err
	}
	report, err := i.target.Release(ctx, i.run.journal.Handles(), func(s finalize.StageResult) {
		i.run.emit(Event{Kind: EventStage, Stage: &s})
	})
	i.run.report.Finalize = report
	return "", err
}
