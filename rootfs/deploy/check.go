package deploy

import (
	"fmt"
	"strings"

	"installer/rootfs/image"
)

// TreeError lists what a tree lacks to be a system that boots.
type TreeError struct {
	Missing []string // paths, each with what it is for
}

func (e *TreeError) Error() string {
	return "the image is not shaped like a bootable system: it lacks " + strings.Join(e.Missing, ", ")
}

// CheckTree tells whether the merged tree of an image can be deployed and booted: ErrNoKernel, or a *TreeError. It
// reads no content.
func CheckTree(tree *image.Tree) error {
	if err := checkKernels(tree); err != nil {
		return err
	}
	var missing []string
	for _, name := range []string{"usr", "sysroot", "var", "dev", "proc", "sys", "run"} {
		if n := tree.Lookup(name); n == nil || !n.IsDir() {
			missing = append(missing, "directory /"+name)
		}
	}
	if tree.Lookup("usr/lib/os-release") == nil && tree.Lookup("usr/etc/os-release") == nil {
		missing = append(missing, "/usr/lib/os-release")
	}
	if n := tree.Lookup("etc"); n != nil && len(n.Children) > 0 {
		missing = append(missing, "an empty /etc beside /usr/etc")
	}
	if len(missing) > 0 {
		return &TreeError{Missing: missing}
	}
	return nil
}

func checkKernels(tree *image.Tree) error {
	modules := tree.Lookup("usr/lib/modules")
	if modules == nil {
		return ErrNoKernel
	}
	var versions []string
	for _, name := range modules.Names() {
		if n := modules.Lookup(name + "/vmlinuz"); n != nil && n.IsRegular() {
			versions = append(versions, name)
		}
	}
	return oneKernel(versions)
}

// oneKernel refuses what would leave open which kernel starts: ostree takes the first it comes across.
func oneKernel(versions []string) error {
	switch len(versions) {
	case 0:
		return ErrNoKernel
	case 1:
		return nil
	}
	return fmt.Errorf("the image carries %d kernels (%s), and only one can be installed: remove the others from usr/lib/modules",
		len(versions), strings.Join(versions, ", "))
}
