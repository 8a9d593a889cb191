package verify

import (
	"context"
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

// checkSysroot checks the directories around deployments and entries, and lists the deployments.
func (i *inspection) checkSysroot(context.Context) error {
	for _, name := range []string{"boot", "ostree", "ostree/repo", "ostree/deploy"} {
		if !i.tree.isDir(name) {
			i.fault("/"+name, "there is no such directory")
		}
	}
	if i.tree.isDir("sysroot") {
		i.fault("/sysroot", "a physical root must not have this directory: ostree would take it for a deployment")
	}
	if target, err := i.tree.readlink("boot/boot"); err != nil || target != "." {
		i.fault("/boot/boot", "it is not a link to its own directory, by which paths with /boot resolve")
	}
	i.checkAleph()
	if err := i.listDeployments(); err != nil {
		i.fault("/ostree/deploy", "%v", err)
	}
	if len(i.deployments) == 0 {
		i.fault("/ostree/deploy", "there is no deployment")
	}
	i.say("%s", size.Count(len(i.deployments), "deployment"))
	return nil
}

// checkAleph checks the record of the first installation, where there is one.
func (i *inspection) checkAleph() {
	if _, _, err := i.readAleph(); err != nil {
		i.fault("/"+deploy.AlephPath, "%v", err)
	}
}

func (i *inspection) readAleph() (aleph deploy.Aleph, exists bool, err error) {
	data, err := i.tree.read(deploy.AlephPath)
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

func (i *inspection) listDeployments() error {
	stateroots, err := i.tree.names("ostree/deploy")
	if err != nil {
		return err
	}
	for _, stateroot := range stateroots {
		base := path.Join("ostree/deploy", stateroot)
		if !i.tree.isDir(path.Join(base, "var")) {
			i.fault("/"+path.Join(base, "var"), "there is no such directory")
		}
		names, err := i.tree.names(path.Join(base, "deploy"))
		if err != nil {
			return err
		}
		for _, name := range names {
			i.addDeployment(stateroot, path.Join(base, "deploy"), name)
		}
	}
	return nil
}

func (i *inspection) addDeployment(stateroot, parent, name string) {
	full := path.Join(parent, name)
	base, isOrigin := strings.CutSuffix(name, ".origin")
	m := deploymentName.FindStringSubmatch(base)
	switch {
	case m == nil:
		i.note("/"+full, "it is neither a deployment nor an origin")
		return
	case isOrigin:
		if !i.tree.isDir(path.Join(parent, base)) {
			i.note("/"+full, "it is the origin of a deployment that does not exist")
		}
		return
	case !i.tree.isDir(full):
		i.fault("/"+full, "it is not a directory")
		return
	}
	commit, err := ostree.ParseChecksum(m[1])
	if err != nil {
		i.fault("/"+full, "%v", err)
		return
	}
	i.deployments = append(i.deployments, &deployment{path: full, stateroot: stateroot, commit: commit})
}

// deploymentAt finds a deployment by its path.
func (i *inspection) deploymentAt(name string) *deployment {
	for _, d := range i.deployments {
		if d.path == name {
			return d
		}
	}
	return nil
}

// versionedLink reads a link whose target is its own name with a 0 or 1: boot/loader,
// ostree/boot.1.
func (i *inspection) versionedLink(name string) (string, error) {
	target, err := i.tree.readlink(name)
	if err != nil {
		return "", err
	}
	if base := path.Base(name); target != base+".0" && target != base+".1" {
		return "", fmt.Errorf("it leads to %q, not to %s.0 or %s.1", target, base, base)
	}
	return path.Join(path.Dir(name), target), nil
}

// checkEntries reads the boot entries and checks all that they name.
func (i *inspection) checkEntries(context.Context) error {
	loader, err := i.versionedLink("boot/loader")
	if err != nil {
		i.fault("/boot/loader", "no boot entry is active: %v", err)
		return nil
	}
	dir := path.Join(loader, "entries")
	names, err := i.tree.names(dir)
	if err != nil {
		i.fault("/"+dir, "%v", err)
		return nil
	}
	if len(names) > maxEntries {
		i.fault("/"+dir, "it has %d files, of which the first %d are read", len(names), maxEntries)
		names = names[:maxEntries]
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".conf") {
			i.note("/"+path.Join(dir, name), "it is no boot entry")
			continue
		}
		i.checkEntry(path.Join(dir, name))
	}
	if len(i.entries) == 0 {
		i.fault("/"+dir, "there is no boot entry")
	}
	i.say("boot entries: %d", len(i.entries))
	return nil
}

// maxEntries is how many boot entries are read at most.
const maxEntries = 1000

func (i *inspection) checkEntry(name string) {
	where := "/" + name
	text, err := i.tree.read(name)
	if err != nil {
		i.fault(where, "%v", err)
		return
	}
	e, problems := parseEntry(path.Base(name), string(text))
	e.path = name
	for _, problem := range problems {
		i.fault(where, "%s", problem)
	}
	i.entries = append(i.entries, e)
	i.checkRootArgument(where, e)
	set := e.link.stateroot + "-" + e.link.checksum
	for _, file := range e.files() {
		if file == "" {
			continue
		}
		at := bootPath(file)
		st, err := i.tree.stat(at)
		switch {
		case err != nil:
			i.fault(where, "it names %s, and /%s cannot be found: %v", file, at, err)
		case e.link.checksum != "" && !strings.HasPrefix(at, path.Join("boot/ostree", set)+"/"):
			i.fault(where, "it names %s, which is not in the directory %s that belongs to its deployment", file, set)
		case st.Mode&unix.S_IFMT != unix.S_IFREG && !slices.Contains(e.trees, file):
			i.fault(where, "it names %s, which is not a regular file", file)
		}
	}
	if e.link.checksum != "" {
		i.follow(e)
	}
}

// follow goes the way of the initramfs from an entry to its deployment.
func (i *inspection) follow(e *bootEntry) {
	where := "/" + e.path
	links, err := i.versionedLink("ostree/boot." + e.link.version)
	if err != nil {
		i.fault("/ostree/boot."+e.link.version, "%v", err)
		return
	}
	link := path.Join(links, e.link.stateroot, e.link.checksum, e.link.serial)
	target, err := i.tree.readlink(link)
	if err != nil {
		i.fault(where, "its kernel argument ostree=/%s leads nowhere: %v", e.link.path(), err)
		return
	}
	e.target = i.deploymentAt(path.Join(path.Dir(link), target))
	switch {
	case e.target == nil:
		i.fault("/"+link, "it leads to %s, where no deployment is", target)
		return
	case e.target.entry != nil:
		i.fault(where, "it leads to the same deployment as %s", e.target.entry.name)
		return
	}
	e.target.entry = e
	i.checkTitle(where, e)
}

// checkTitle compares an entry's title with the name of its deployment.
func (i *inspection) checkTitle(where string, e *bootEntry) {
	release, err := i.osRelease(e.target)
	if err != nil {
		i.fault("/"+e.target.path, "its os-release: %v", err)
		return
	}
	named := strings.HasPrefix(e.title, release.Name()) || strings.HasPrefix(e.title, release.Title())
	if !named || !titleEnd.MatchString(e.title) {
		i.fault(where, "its title is %q, and its deployment calls itself %q", e.title, release.Name())
	}
}

// titleEnd is how ostree ends a title: the deployment's place in the list.
var titleEnd = regexp.MustCompile(` \(ostree:([A-Za-z0-9_.-]+:)?[0-9]+\)$`)

// osRelease reads os-release(5) of a deployment.
func (i *inspection) osRelease(d *deployment) (release osrelease.Release, err error) {
	err = i.inDeployment(d, func(f deploymentFS) (err error) {
		release, err = osrelease.Read(f)
		return err
	})
	return release, err
}

// checkLinks checks the links beneath ostree/boot.N and that every deployment can be started.
func (i *inspection) checkLinks(context.Context) error {
	loader, err := i.versionedLink("boot/loader")
	if err != nil {
		return nil // the boot entries' check has said so
	}
	version := loader[len(loader)-1:]
	links, err := i.versionedLink("ostree/boot." + version)
	if err != nil {
		i.fault("/ostree/boot."+version, "the boot entries are of version %s: %v", version, err)
		return nil
	}
	for _, e := range i.entries {
		if e.link.version != "" && e.link.version != version {
			i.fault("/"+e.path, "its kernel argument ostree= is of boot version %s, and the entries are of %s", e.link.version, version)
		}
	}
	for _, d := range i.deployments {
		if d.entry == nil {
			i.fault("/"+d.path, "no boot entry leads to this deployment")
		}
	}
	i.say("/%s leads to %s", links, size.Count(len(i.deployments), "deployment"))
	return nil
}
