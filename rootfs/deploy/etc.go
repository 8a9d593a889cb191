package deploy

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"installer/rootfs/beneath"
	"installer/rootfs/ostree"
	"installer/rootfs/xattr"
)

// makeEtc makes the deployment's own /etc: a copy of usr/etc, since its files are to be changed.
func (d *deployer) makeEtc(ctx context.Context) error {
	return d.inDeployment(func(t *beneath.Dir) error {
		if err := t.Remove("etc", true); err != nil {
			if errors.Is(err, unix.ENOTEMPTY) {
				return errors.New("the image has files in both /etc and /usr/etc, or in /etc alone: configuration belongs into one of them, made /usr/etc by the import")
			}
			return err
		}
		if found, err := t.IsKind("usr/etc", unix.S_IFDIR); !found || err != nil {
			return err
		}
		o := ostree.CheckoutOptions{ForceCopy: true, Subpath: "usr/etc"}
		if err := d.checkoutInto(ctx, d.dep.Path, "etc", o); err != nil {
			return fmt.Errorf("making the deployment's /etc: %w", err)
		}
		return t.Remove("etc/.updated", false)
	})
}

// makeVar fills an empty /var of the stateroot with the files of the image, once: later deployments
// leave it alone.
func (d *deployer) makeVar(ctx context.Context) error {
	at := path.Join(d.stateroot(), "var")
	names, err := d.root.Names(at)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		if err := d.initialVar(ctx, at); err != nil {
			return fmt.Errorf("making the initial /var: %w", err)
		}
	}
	if err := d.root.Remove(path.Join(at, ".updated"), false); err != nil {
		return err
	}
	// libostree leaves this mark whether or not there is a policy to label by.
	marker := path.Join(at, ".ostree-selabeled")
	if _, exists, err := d.root.Stat(marker); exists || err != nil {
		return err
	}
	return d.root.WriteFile(marker, nil, 0o644)
}

// initialVar copies the image's /var, and makes the directories that a system without tmpfiles.d
// would lack.
func (d *deployer) initialVar(ctx context.Context, at string) error {
	hasVar, tmpfiles := false, false
	err := d.inDeployment(func(t *beneath.Dir) (err error) {
		if hasVar, err = t.IsKind("var", unix.S_IFDIR); err == nil {
			_, tmpfiles, err = t.Stat("usr/lib/tmpfiles.d")
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
	return d.root.With(at, legacyVar)
}

// copyVar replaces the empty directory by a copy of the image's, and keeps the owner, the mode and
// the want of attributes of a stateroot's var.
func (d *deployer) copyVar(ctx context.Context, at string) error {
	if err := d.root.Remove(at, true); err != nil {
		return err
	}
	o := ostree.CheckoutOptions{ForceCopy: true, Subpath: "var"}
	if err := d.checkoutInto(ctx, d.stateroot(), "var", o); err != nil {
		return err
	}
	return d.root.With(at, func(v *beneath.Dir) error {
		if err := unix.Fchown(v.FD(), 0, 0); err != nil {
			return v.Fail("chown", ".", err)
		}
		return errors.Join(v.FailIf("chmod", ".", unix.Fchmod(v.FD(), 0o755)), removeXattrs(v))
	})
}

// removeXattrs removes the extended attributes of a directory. Its SELinux label stays where the
// kernel gives every file one.
func removeXattrs(d *beneath.Dir) error {
	names := make([]byte, 64<<10) // XATTR_LIST_MAX in <linux/limits.h>
	n, err := unix.Flistxattr(d.FD(), names)
	if err == unix.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return d.Fail("listxattr", ".", err)
	}
	for _, name := range strings.FieldsFunc(string(names[:n]), func(r rune) bool { return r == 0 }) {
		err := unix.Fremovexattr(d.FD(), name)
		if err != nil && err != unix.ENODATA && (name != xattr.SELinux || err != unix.EACCES) {
			return d.Fail("removexattr "+name, ".", err)
		}
	}
	return nil
}

// legacyVar makes the directories that early boot expected before tmpfiles.d, where the image
// brought nothing of that name.
func legacyVar(v *beneath.Dir) error {
	for name, mode := range map[string]uint32{"tmp": 0o1777, "lib": 0o755, "log": 0o755} {
		if err := v.MkdirAll(name, mode); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"run": "../run", "lock": "../run/lock"} {
		if _, exists, err := v.Stat(name); err != nil {
			return err
		} else if exists {
			continue
		}
		if err := v.Symlink(target, name); err != nil {
			return err
		}
	}
	return nil
}
