package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"installer/rootfs/beneath"
	"installer/rootfs/image"
	"installer/rootfs/ostree"
)

// Options describe a deployment.
type Options struct {
	Stateroot string   // "" is DefaultStateroot
	Kargs     []string // kernel arguments in order; ostree= is added
	Origin    string   // image reference of the origin file, see OriginReference
	Refspec   string   // ref of the origin file where Origin is empty: a system that no container image updates
	// TargetImage is the reference that WriteImage was given; if it is not empty, its ref must name
	// the commit.
	TargetImage string
	// Tree is the tree that WriteImage wrote as the commit. If it is nil, the commit's objects are
	// read where the tree is needed.
	Tree *image.Node
	// Root says how the deployment's initramfs mounts it.
	Root RootSettings
	// Version is shown in boot menus where the commit states none.
	Version string
}

// Deployment describes a deployment that Deploy made.
type Deployment struct {
	Path         string // relative to the physical root
	Stateroot    string
	Commit       ostree.Checksum
	Serial       int
	BootChecksum string
	BootPath     string // directory of the kernel's files, relative to the physical root
	Kernel       KernelInfo
	EntryPath    string // of the boot entry, relative to the physical root
	EntryText    string
	Kargs        []string // as the kernel gets them
	OSID         string   // ID of os-release, "" if it has none
	Composefs    string   // fs-verity digest of the composefs image, "" if there is none
}

// A first deployment has boot version 1, sub-boot version 1, and is the first of its kind:
// libostree's numbering.
const (
	loaderDir  = "boot/loader.1"
	bootLinks  = "ostree/boot.1.1"
	deployRef  = "ostree/1/1/0"
	firstEntry = loaderDir + "/entries/ostree-1.conf"
)

// Deploy makes the first deployment on a physical root that InitSysroot prepared: checkout, /etc,
// /var, origin, kernel, boot entry and refs. Until its last step, the link boot/loader, the target
// does not look bootable; before it, everything else is on the device. A root that has a boot entry
// is refused with ErrDeployed, an image without kernel with ErrNoKernel. root is not kept;
// everything opened is closed again, whatever happens.
func Deploy(ctx context.Context, root *os.File, repo *ostree.Repo, commit ostree.Checksum, o Options, l Ledger) (dep *Deployment, err error) {
	if o.Stateroot == "" {
		o.Stateroot = DefaultStateroot
	}
	d := &deployer{root: beneath.Of(root, l), repo: repo, o: o}
	if err := d.check(commit); err != nil {
		return nil, fmt.Errorf("deploying commit %s: %w", commit, err)
	}
	unlock, err := lockSysroot(d.root)
	if err != nil {
		return nil, fmt.Errorf("deploying commit %s: %w", commit, err)
	}
	defer func() {
		if unlockErr := unlock(); err == nil && unlockErr != nil {
			dep, err = nil, fmt.Errorf("unlocking the deployments: %w", unlockErr)
		}
	}()
	if err := d.run(ctx); err != nil {
		return nil, fmt.Errorf("deploying commit %s: %w", commit, err)
	}
	return &d.dep, nil
}

// deployer holds the values that the steps of one deployment share.
type deployer struct {
	root *beneath.Dir
	repo *ostree.Repo
	o    Options
	dep  Deployment

	origin string
	kernel kernel
	mode   uint32 // of the deployment's root directory
}

// check does the steps that can fail without a write.
func (d *deployer) check(commit ostree.Checksum) error {
	if err := CheckStateroot(d.o.Stateroot); err != nil {
		return err
	}
	for _, arg := range d.o.Kargs {
		if err := CheckKarg(arg); err != nil {
			return err
		}
	}
	var err error
	if d.origin, err = originText(d.o); err != nil {
		return err
	}
	if _, exists, err := d.root.Stat("boot/loader"); exists || err != nil {
		return errors.Join(ErrDeployed, err)
	}
	d.dep = Deployment{Stateroot: d.o.Stateroot, Commit: commit}
	return d.checkCommit(commit)
}

// checkCommit makes sure that the commit is there, and the one that the host's updater will find.
func (d *deployer) checkCommit(commit ostree.Checksum) error {
	c, err := d.repo.LoadCommit(commit)
	if err != nil {
		return err
	}
	if v, ok := c.Value(keyVersion); ok {
		if version, err := v.Str(); err == nil && version != "" {
			d.o.Version = version
		}
	}
	if d.o.TargetImage == "" {
		return nil
	}
	ref, err := ImageRef(d.o.TargetImage)
	if err != nil {
		return err
	}
	named, err := d.repo.ResolveRef(ref)
	if err != nil {
		return fmt.Errorf("looking for the ref of %s: %w", d.o.TargetImage, err)
	}
	if named != commit {
		return fmt.Errorf("the ref of %s names commit %s", d.o.TargetImage, named)
	}
	return nil
}

// run takes the steps in libostree's order.
func (d *deployer) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.makeStateroot, d.checkout, d.writeComposefs, d.makeEtc, d.makeVar, d.makeBacking, d.writeOrigin,
		d.bootFiles, d.writeEntry, d.setImmutable, d.linkDeployment, d.activate,
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *deployer) stateroot() string { return path.Join("ostree/deploy", d.o.Stateroot) }

// baseName names the deployment beside others of its stateroot.
func (d *deployer) baseName() string { return fmt.Sprintf("%s.%d", d.dep.Commit, d.dep.Serial) }

// inDeployment opens the deployment's root for the time of fn.
func (d *deployer) inDeployment(fn func(*beneath.Dir) error) error {
	return d.root.With(d.dep.Path, fn)
}

func (d *deployer) makeStateroot(context.Context) error {
	for _, name := range []string{"var", "deploy"} {
		if err := d.root.MkdirAll(path.Join(d.stateroot(), name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// checkout makes the tree of the commit out of hard links, under the first serial number that is
// free.
func (d *deployer) checkout(ctx context.Context) error {
	parent := path.Join(d.stateroot(), "deploy")
	names, err := d.root.Names(parent)
	if err != nil {
		return err
	}
	d.dep.Serial = nextSerial(names, d.dep.Commit)
	d.dep.Path = path.Join(parent, d.baseName())
	if err := d.checkoutInto(ctx, parent, d.baseName(), ostree.CheckoutOptions{Whiteouts: true}); err != nil {
		return err
	}
	st, _, err := d.root.Stat(d.dep.Path)
	d.mode = st.Mode & 0o7777
	return err
}

// nextSerial is one more than the highest serial number among the deployments of the commit.
func nextSerial(names []string, commit ostree.Checksum) int {
	next := 0
	for _, name := range names {
		var serial int
		if n, err := fmt.Sscanf(name, commit.String()+".%d", &serial); n == 1 && err == nil && serial >= next {
			next = serial + 1
		}
	}
	return next
}

// checkoutInto checks the commit, or the subpath of it that o names, out as name in the directory
// parent.
func (d *deployer) checkoutInto(ctx context.Context, parent, name string, o ostree.CheckoutOptions) error {
	return d.root.With(parent, func(p *beneath.Dir) error {
		return p.AsFile(func(f *os.File) error {
			if err := d.repo.Checkout(ctx, d.dep.Commit, f, name, o); err != nil {
				return fmt.Errorf("checking out /%s: %w", path.Join(parent, name), err)
			}
			return nil
		})
	})
}

// makeBacking makes the directories for changes that a running system may make to its root.
func (d *deployer) makeBacking(context.Context) error {
	at := path.Join(d.stateroot(), "backing", d.baseName())
	for _, c := range []struct {
		name string
		mode uint32
	}{
		{path.Dir(at), 0o700}, {at, 0o700},
		{path.Join(at, "root-transient"), 0o700}, {path.Join(at, "root-transient/work"), 0o700},
		{path.Join(at, "root-transient/upper"), d.mode},
	} {
		if err := d.root.MkdirAll(c.name, c.mode); err != nil {
			return err
		}
	}
	return nil
}

func (d *deployer) writeOrigin(context.Context) error {
	return d.root.WriteFile(d.dep.Path+".origin", []byte(d.origin), 0o644)
}

// immutableFlag is FS_IMMUTABLE_FL of <linux/fs.h>.
const immutableFlag = 0x10

// setImmutable protects the deployment's root directory; a file system that knows no such flag does
// without.
func (d *deployer) setImmutable(context.Context) error {
	return d.inDeployment(func(t *beneath.Dir) error {
		flags, err := unix.IoctlGetInt(t.FD(), unix.FS_IOC_GETFLAGS)
		if err == nil {
			err = unix.IoctlSetPointerInt(t.FD(), unix.FS_IOC_SETFLAGS, flags|immutableFlag)
		}
		switch err {
		case nil, unix.EPERM, unix.EOPNOTSUPP, unix.ENOTTY:
			return nil
		}
		return t.Fail("set the immutable flag of", ".", err)
	})
}
