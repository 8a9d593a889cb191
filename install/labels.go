package install

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"installer/install/target"
	"installer/rootfs/image"
)

// label labels the files of the image by its own SELinux policy, unless the system starts without.
// Those of an ostree commit keep the labels that they have.
func (i *installation) label(inv *image.Inventory) (err error) {
	if i.opts.DisableSELinux {
		return nil
	}
	if i.policy, err = i.source.Label(inv); i.policy == nil || err != nil {
		return err
	}
	counts, _ := inv.Tree.Labels()
	i.run.report.SELinux = &SELinuxReport{
		Policy: i.policy.Name, Enforcing: i.policy.Enforcing, Version: i.policy.Version, Checksum: i.policy.Checksum,
		Unlabelled: counts[""],
	}
	delete(counts, "")
	for _, n := range counts {
		i.run.report.SELinux.Labelled += n
	}
	i.run.report.SELinux.Labels = len(counts)
	return nil
}

// labeller returns the labels of the image's paths, nil for none.
func (i *installation) labeller() image.Labeller {
	if i.policy == nil {
		return nil
	}
	return i.policy.Of
}

// checkLabels refuses, on a machine where SELinux is on, labels that this process may not set, and
// files without one, which every file gets here.
func (i *installation) checkLabels() (err error) {
	if i.image != nil { // the virtual machine that installs has no SELinux
		return nil
	}
	if i.hostLabels, err = target.LabelsFiles(); err != nil || !i.hostLabels || !i.choice.Labelled {
		return err
	}
	if name := unlabelledFile(i.inventory.Tree); name != "" {
		return i.source.Fault(fmt.Errorf("%s has no SELinux label by the image's policy, and SELinux, which is on here, gives every file one: "+
			"use installer build, whose virtual machine has no policy", name))
	}
	return target.CheckLabels(i.labels())
}

// unlabelledFile returns a file or symbolic link of a layer that has no label, or "".
func unlabelledFile(tree *image.Tree) (name string) {
	for _, layer := range append([]*image.Node{tree.Root}, tree.Layers...) {
		_ = layer.Walk(func(path string, n *image.Node) error { // no function here fails
			if name == "" && !n.IsDir() && n.Label() == "" {
				name = "/" + path
			}
			return nil
		})
	}
	return name
}

// labels returns the labels that the system's files get, each once.
func (i *installation) labels() []string {
	tree := i.inventory.Tree
	found, _ := tree.Labels()
	delete(found, "")
	if i.policy == nil {
		return slices.Sorted(maps.Keys(found))
	}
	for _, name := range []string{"/", "/boot", "/boot/loader", "/usr", "/var", "/var/lib/containers/storage"} {
		found[i.policy.Of(name, unix.S_IFDIR)]++
	}
	if etc := tree.Lookup("usr/etc"); etc != nil {
		_ = etc.Walk(func(path string, n *image.Node) error { // likewise
			found[i.policy.Of("/etc/"+path, n.Mode)]++
			return nil
		})
	}
	delete(found, "")
	return slices.Sorted(maps.Keys(found))
}

// labelsAll reports whether the system's own files all get the labels of the image's policy. A disk
// that is made for the system has them whatever machine makes it. On file systems that others made,
// and where SELinux is off, the labels are those of a deployment that the host's own tools make beside
// this one: libostree leaves /etc with the labels of /usr/etc, and bootc labels boot, the repository
// and the root by the policy of the root that it runs in, where such a host has none.
func (i *installation) labelsAll() bool { return !i.look.Place.Made || i.hostLabels }

// labelSystem labels the files that the installation has made beside those of the image.
func (i *installation) labelSystem(ctx context.Context) (string, error) {
	if i.policy == nil {
		return "no SELinux policy", nil
	}
	all := i.labelsAll()
	n, err := i.system.Label(ctx, i.labeller(), all)
	if err != nil {
		return "", err
	}
	i.run.report.SELinux.System = n
	if !all {
		i.run.Note("SELinux is off here: as bootc leaves them in a root without a policy, /etc has the labels of /usr/etc, and /boot, /ostree and the root have none; " +
			"restorecon -R /etc /boot in the running system gives them those of its policy")
	}
	return fmt.Sprintf("%d files by the policy %s", n, i.policy.Name), nil
}

// stateOfSELinux returns bootc's word for the state of SELinux during an installation.
func (i *installation) stateOfSELinux() string {
	switch {
	case i.choice.SELinuxOff:
		return "force-target-disabled"
	case i.policy == nil && !i.hostLabels:
		return "disabled"
	case !i.hostLabels:
		return "host-disabled"
	}
	return "enabled"
}
