package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"installer/install/size"
	"installer/rootfs/deploy"
	"installer/rootfs/label"
	"installer/rootfs/ostree"
	"installer/rootfs/xattr"
)

// labelCheck compares the SELinux labels of deployments with those of the policy that each has.
type labelCheck struct {
	*findings
	ctx  context.Context
	tree tree
	repo *ostree.Repo

	policy *label.Policy
	native bool // the commit lies over one that was labelled where the image was built
	right  int
	copied int // files of /etc that have the label of /usr/etc
}

// check checks each deployment that has a policy and labels.
func (c *labelCheck) check(deployments []*deployment) error {
	var policies []string
	for _, d := range deployments {
		name, err := c.deployment(d)
		if fault := (*label.Error)(nil); errors.As(err, &fault) {
			c.fault("/"+path.Join(d.path, fault.File), "%v", err)
		} else if err != nil {
			c.fault("/"+d.path, "%v", err)
		}
		if name != "" && !slices.Contains(policies, name) {
			policies = append(policies, name)
		}
	}
	if len(policies) == 0 && c.result.Status == Passed {
		c.notApplicable("no deployment has an SELinux policy and labels")
	} else {
		c.say("%s with the label of the policy %s", size.Count(c.right, "file"), strings.Join(policies, ", "))
	}
	return c.ctx.Err()
}

// deployment checks one deployment, and returns the name and version of its policy, "" for none.
func (c *labelCheck) deployment(d *deployment) (name string, err error) {
	err = c.tree.inDeployment(d, func(tree deploymentFS) (err error) {
		c.policy, err = label.Load(tree)
		return err
	})
	if errors.As(err, new(*label.MissingError)) {
		return "", nil // there is nothing to compare with
	}
	if c.policy == nil || err != nil {
		return "", err
	}
	commit, err := c.repo.LoadCommit(d.commit)
	if err != nil {
		return "", nil // the check of deployments says so
	}
	top, err := c.repo.LoadDirMeta(commit.Meta)
	if err != nil || !slices.ContainsFunc(top.Xattrs, isLabel) {
		return "", nil // likewise, or it was installed without labels
	}
	c.native, c.copied = commit.Parent != ostree.Checksum{}, 0
	if err := c.dir(d.path, "/"); err != nil {
		return "", err
	}
	if c.copied > 0 {
		c.note("/"+path.Join(d.path, "etc"), "%s with the label of /usr/etc, as where SELinux was off during the installation: "+
			"restorecon -R /etc in the running system sets those of /etc", size.Count(c.copied, "file"))
	}
	variable := path.Join("ostree/deploy", d.stateroot, "var")
	if c.tree.isDir(variable) {
		err = c.dir(variable, "/var")
	}
	return fmt.Sprintf("%s (version %d)", c.policy.Name, c.policy.Version), err
}

func isLabel(x ostree.Xattr) bool { return x.Name == xattr.SELinux }

// dir checks a directory, which the running system has as the path as, and all below it.
func (c *labelCheck) dir(at, as string) error {
	return c.tree.with(at, unix.O_DIRECTORY, func(f *os.File) error {
		c.entry(int(f.Fd()), ".", at, as, unix.S_IFDIR)
		names, err := f.Readdirnames(-1)
		if err != nil {
			return fmt.Errorf("listing /%s: %w", at, err)
		}
		slices.Sort(names)
		for _, name := range names {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return fmt.Errorf("reading /%s: %w", path.Join(at, name), err)
			}
			below := path.Join(as, name)
			switch {
			case below == "/"+deploy.ComposefsName || below == "/var/.ostree-selabeled": // no files of the running system
			case st.Mode&unix.S_IFMT == unix.S_IFCHR: // a whiteout, which has the label of the file that quotes it
			case st.Mode&unix.S_IFMT == unix.S_IFDIR:
				if err := c.dir(path.Join(at, name), below); err != nil {
					return err
				}
			default:
				c.entry(int(f.Fd()), name, path.Join(at, name), below, st.Mode)
			}
		}
		return nil
	})
}

// entry checks one label. A host may change those of /etc and /var.
func (c *labelCheck) entry(parent int, name, at, as string, mode uint32) {
	got, err := labelAt(parent, name)
	want := c.policy.Of(as, mode)
	etc := as == "/etc" || strings.HasPrefix(as, "/etc/")
	switch {
	case err != nil:
		c.fault("/"+at, "%v", err)
	case got == want || want == "": // a file that the policy leaves alone may have any
		c.right++
	case etc && got == c.policy.Of("/usr"+as, mode):
		c.copied++
	case etc || c.native || as == "/var" || strings.HasPrefix(as, "/var/"):
		c.note("/"+at, "%s", difference(got, want))
	default:
		c.fault("/"+at, "%s", difference(got, want))
	}
}

func difference(got, want string) string {
	if got == "" {
		return fmt.Sprintf("it has no SELinux label, and by the policy %s", want)
	}
	return fmt.Sprintf("its SELinux label is %s, and by the policy %s", got, want)
}

// labelAt reads the label of name in an open directory, "" for none.
func labelAt(parent int, name string) (string, error) {
	value := make([]byte, 4096)
	n, err := unix.Lgetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", parent, name), xattr.SELinux, value)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading its SELinux label: %w", err)
	}
	return strings.TrimRight(string(value[:n]), "\x00"), nil
}
