package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"installer/install/size"
	"installer/rootfs/deploy"
	"installer/rootfs/osrelease"
	"installer/rootfs/ostree"
)

// deployment is a deployed commit, as its directory says.
type deployment struct {
	path      string // relative to the root
	stateroot string
	commit    ostree.Checksum
	entry     *bootEntry // the boot entry that leads to it; nil when none does
}

// deploymentName is the directory of a deployment: its commit and a serial number.
var deploymentName = regexp.MustCompile(`^([0-9a-f]{64})\.([0-9]+)$`)

// sysrootCheck finds the deployments.
type sysrootCheck struct {
	*findings
	tree        tree
	deployments []*deployment // found so far
}

// check checks the directories around deployments and entries, and lists the deployments.
func (c *sysrootCheck) check() {
	for _, name := range []string{"boot", "ostree", "ostree/repo", "ostree/deploy"} {
		if !c.tree.isDir(name) {
			c.fault("/"+name, "there is no such directory")
		}
	}
	if c.tree.isDir("sysroot") {
		c.fault("/sysroot", "a physical root must not have this directory: ostree would take it for a deployment")
	}
	if target, err := c.tree.readlink("boot/boot"); err != nil || target != "." {
		c.fault("/boot/boot", "it is not a link to its own directory, by which paths with /boot resolve")
	}
	if _, _, err := readAleph(c.tree); err != nil {
		c.fault("/"+deploy.AlephPath, "%v", err)
	}
	if err := c.listDeployments(); err != nil {
		c.fault("/ostree/deploy", "%v", err)
	}
	if len(c.deployments) == 0 {
		c.fault("/ostree/deploy", "there is no deployment")
	}
	c.say("%s", size.Count(len(c.deployments), "deployment"))
}

// readAleph reads the record of the first installation, where there is one.
func readAleph(t tree) (aleph deploy.Aleph, exists bool, err error) {
	data, err := t.read(deploy.AlephPath)
	if errors.Is(err, fs.ErrNotExist) {
		return aleph, false, nil
	}
	if err != nil {
		return aleph, true, err
	}
	if err := json.Unmarshal(data, &aleph); err != nil {
		return aleph, true, fmt.Errorf("the record of the installation is damaged: %w", err)
	}
	return aleph, true, nil
}

func (c *sysrootCheck) listDeployments() error {
	stateroots, err := c.tree.names("ostree/deploy")
	if err != nil {
		return err
	}
	for _, stateroot := range stateroots {
		base := path.Join("ostree/deploy", stateroot)
		if !c.tree.isDir(path.Join(base, "var")) {
			c.fault("/"+path.Join(base, "var"), "there is no such directory")
		}
		names, err := c.tree.names(path.Join(base, "deploy"))
		if err != nil {
			return err
		}
		for _, name := range names {
			c.addDeployment(stateroot, path.Join(base, "deploy"), name)
		}
	}
	return nil
}

func (c *sysrootCheck) addDeployment(stateroot, parent, name string) {
	full := path.Join(parent, name)
	base, isOrigin := strings.CutSuffix(name, ".origin")
	m := deploymentName.FindStringSubmatch(base)
	switch {
	case m == nil:
		c.note("/"+full, "it is neither a deployment nor an origin")
		return
	case isOrigin:
		if !c.tree.isDir(path.Join(parent, base)) {
			c.note("/"+full, "it is the origin of a deployment that does not exist")
		}
		return
	case !c.tree.isDir(full):
		c.fault("/"+full, "it is not a directory")
		return
	}
	commit, err := ostree.ParseChecksum(m[1])
	if err != nil {
		c.fault("/"+full, "%v", err)
		return
	}
	c.deployments = append(c.deployments, &deployment{path: full, stateroot: stateroot, commit: commit})
}

// deploymentAt finds a deployment by its path.
func deploymentAt(deployments []*deployment, name string) *deployment {
	for _, d := range deployments {
		if d.path == name {
			return d
		}
	}
	return nil
}

// versionedLink reads a link whose target is its own name with a 0 or 1: boot/loader,
// ostree/boot.1.
func versionedLink(t tree, name string) (string, error) {
	target, err := t.readlink(name)
	if err != nil {
		return "", err
	}
	if base := path.Base(name); target != base+".0" && target != base+".1" {
		return "", fmt.Errorf("it leads to %q, not to %s.0 or %s.1", target, base, base)
	}
	return path.Join(path.Dir(name), target), nil
}

// entriesCheck follows the boot entries to their deployments.
type entriesCheck struct {
	*findings
	*layout
	tree        tree
	deployments []*deployment
	entries     []*bootEntry // read so far
}

// check reads the boot entries and checks all that they name.
func (c *entriesCheck) check() {
	loader, err := versionedLink(c.tree, "boot/loader")
	if err != nil {
		c.fault("/boot/loader", "no boot entry is active: %v", err)
		return
	}
	dir := path.Join(loader, "entries")
	names, err := c.tree.names(dir)
	if err != nil {
		c.fault("/"+dir, "%v", err)
		return
	}
	if len(names) > maxEntries {
		c.fault("/"+dir, "it has %d files, of which the first %d are read", len(names), maxEntries)
		names = names[:maxEntries]
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".conf") {
			c.note("/"+path.Join(dir, name), "it is no boot entry")
			continue
		}
		c.checkEntry(path.Join(dir, name))
	}
	if len(c.entries) == 0 {
		c.fault("/"+dir, "there is no boot entry")
	}
	c.say("boot entries: %d", len(c.entries))
}

// maxEntries is how many boot entries are read at most.
const maxEntries = 1000

func (c *entriesCheck) checkEntry(name string) {
	where := "/" + name
	text, err := c.tree.read(name)
	if err != nil {
		c.fault(where, "%v", err)
		return
	}
	e, problems := parseEntry(path.Base(name), string(text))
	e.path = name
	for _, problem := range problems {
		c.fault(where, "%s", problem)
	}
	c.entries = append(c.entries, e)
	checkRootArgument(c.findings, c.layout, where, e)
	set := e.link.stateroot + "-" + e.link.checksum
	for _, file := range e.files() {
		if file == "" {
			continue
		}
		at := bootPath(file)
		st, err := c.tree.stat(at)
		switch {
		case err != nil:
			c.fault(where, "it names %s, and /%s cannot be found: %v", file, at, err)
		case e.link.checksum != "" && !strings.HasPrefix(at, path.Join("boot/ostree", set)+"/"):
			c.fault(where, "it names %s, which is not in the directory %s that belongs to its deployment", file, set)
		case st.Mode&unix.S_IFMT != unix.S_IFREG && !slices.Contains(e.trees, file):
			c.fault(where, "it names %s, which is not a regular file", file)
		}
	}
	if e.link.checksum != "" {
		c.follow(e)
	}
}

// follow goes the way of the initramfs from an entry to its deployment.
func (c *entriesCheck) follow(e *bootEntry) {
	where := "/" + e.path
	links, err := versionedLink(c.tree, "ostree/boot."+e.link.version)
	if err != nil {
		c.fault("/ostree/boot."+e.link.version, "%v", err)
		return
	}
	link := path.Join(links, e.link.stateroot, e.link.checksum, e.link.serial)
	target, err := c.tree.readlink(link)
	if err != nil {
		c.fault(where, "its kernel argument ostree=/%s leads nowhere: %v", e.link.path(), err)
		return
	}
	e.target = deploymentAt(c.deployments, path.Join(path.Dir(link), target))
	switch {
	case e.target == nil:
		c.fault("/"+link, "it leads to %s, where no deployment is", target)
		return
	case e.target.entry != nil:
		c.fault(where, "it leads to the same deployment as %s", e.target.entry.name)
		return
	}
	e.target.entry = e
	c.checkTitle(where, e)
}

// checkTitle compares an entry's title with the name of its deployment.
func (c *entriesCheck) checkTitle(where string, e *bootEntry) {
	release, err := osRelease(c.tree, e.target)
	if err != nil {
		c.fault("/"+e.target.path, "its os-release: %v", err)
		return
	}
	named := strings.HasPrefix(e.title, release.Name()) || strings.HasPrefix(e.title, release.Title())
	if !named || !titleEnd.MatchString(e.title) {
		c.fault(where, "its title is %q, and its deployment calls itself %q", e.title, release.Name())
	}
}

// titleEnd is how ostree ends a title: the deployment's place in the list.
var titleEnd = regexp.MustCompile(` \(ostree:([A-Za-z0-9_.-]+:)?[0-9]+\)$`)

// osRelease reads os-release(5) of a deployment.
func osRelease(t tree, d *deployment) (release osrelease.Release, err error) {
	err = t.inDeployment(d, func(f deploymentFS) (err error) {
		release, err = osrelease.Read(f)
		return err
	})
	return release, err
}

// checkLinks checks the links beneath ostree/boot.N and that every deployment can be started.
func checkLinks(f *findings, t tree, entries []*bootEntry, deployments []*deployment) {
	loader, err := versionedLink(t, "boot/loader")
	if err != nil {
		return // the boot entries' check has said so
	}
	version := loader[len(loader)-1:]
	links, err := versionedLink(t, "ostree/boot."+version)
	if err != nil {
		f.fault("/ostree/boot."+version, "the boot entries are of version %s: %v", version, err)
		return
	}
	for _, e := range entries {
		if e.link.version != "" && e.link.version != version {
			f.fault("/"+e.path, "its kernel argument ostree= is of boot version %s, and the entries are of %s", e.link.version, version)
		}
	}
	for _, d := range deployments {
		if d.entry == nil {
			f.fault("/"+d.path, "no boot entry leads to this deployment")
		}
	}
	f.say("/%s leads to %s", links, size.Count(len(deployments), "deployment"))
}
