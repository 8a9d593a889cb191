package deploy

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"installer/rootfs/ostree"
)

// makeEtc makes the deployment's own /etc: a copy of usr/etc, since its files are to be changed.
func (d *deployer) makeEtc(ctx context.Context) error {
	return d.inDeployment(func(t *dir) error {
		if err := t.remove("etc", true); err != nil {
			if errors.Is(err, unix.ENOTEMPTY) {
				return errors.New("the image has files in both /etc and /usr/etc, or in /etc alone: configuration belongs into one of them, made /usr/etc by the import")
			}
			return err
		}
		if found, err := t.isKind("usr/etc", unix.S_IFDIR); !found || err != nil {
			return err
		}
		o := ostree.CheckoutOptions{ForceCopy: true, Subpath: "usr/etc"}
		if err := d.checkoutInto(ctx, d.dep.Path, "etc", o); err != nil {
			return fmt.Errorf("making the deployment's /etc: %w", err)
		}
		return t.remove("etc/.updated", false)
	})
}

// makeVar fills an empty /var of the stateroot with what the image brings, once: later deployments leave it alone.
func (d *deployer) makeVar(ctx context.Context) error {
	at := path.Join(d.stateroot(), "var")
	names, err := d.root.names(at)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		if err := d.initialVar(ctx, at); err != nil {
			return fmt.Errorf("making the initial /var: %w", err)
		}
	}
	if err := d.root.remove(path.Join(at, ".updated"), false); err != nil {
		return err
	}
	// libostree leaves this mark whether or not there is a policy to label by.
	marker := path.Join(at, ".ostree-selabeled")
	if _, exists, err := d.root.stat(marker); exists || err != nil {
		return err
	}
	return d.root.writeFile(marker, nil, 0o644)
}

// initialVar copies the image's /var, and makes the directories that a system without tmpfiles.d would lack.
func (d *deployer) initialVar(ctx context.Context, at string) error {
	hasVar, tmpfiles := false, false
	err := d.inDeployment(func(t *dir) (err error) {
		if hasVar, err = t.isKind("var", unix.S_IFDIR); err == nil {
			_, tmpfiles, err = t.stat("usr/lib/tmpfiles.d")
		}
		return err
	})
	if err != nil {
		return err
	}
	if hasVar {
		if err := d.copyVar(ctx, at); err != nil {
			return err
		}
	}
	if tmpfiles {
		return nil
	}
	return d.root.with(at, legacyVar)
}

// copyVar replaces the empty directory by a copy of the image's, and keeps the owner and mode of a stateroot's var.
func (d *deployer) copyVar(ctx context.Context, at string) error {
	if err := d.root.remove(at, true); err != nil {
		return err
	}
	o := ostree.CheckoutOptions{ForceCopy: true, Subpath: "var"}
	if err := d.checkoutInto(ctx, d.stateroot(), "var", o); err != nil {
		return err
	}
	return d.root.with(at, func(v *dir) error {
		if err := unix.Fchown(v.fd, 0, 0); err != nil {
			return v.fail("chown", ".", err)
		}
		return v.failIf("chmod", ".", unix.Fchmod(v.fd, 0o755))
	})
}

// legacyVar makes what early boot expected before tmpfiles.d, where the image brought nothing of that name.
func legacyVar(v *dir) error {
	for name, mode := range map[string]uint32{"tmp": 0o1777, "lib": 0o755, "log": 0o755} {
		if err := v.mkdirAll(name, mode); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"run": "../run", "lock": "../run/lock"} {
		if _, exists, err := v.stat(name); err != nil {
			return err
		} else if exists {
			continue
		}
		if err := v.symlink(target, name); err != nil {
			return err
		}
	}
	return nil
}
