package verify

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"installer/install/size"
	"installer/rootfs/ostree"
)

// objectKey names an object.
type objectKey struct {
	kind ostree.ObjectType
	sum  ostree.Checksum
}

// path is where the object stands on the root file system.
func (k objectKey) path() string {
	name := k.sum.String()
	return path.Join("ostree/repo/objects", name[:2], name[2:]+"."+k.kind.String())
}

// deploymentRef is how ostree protects a deployment's commit from being pruned.
var deploymentRef = regexp.MustCompile(`^ostree/[01]/[01]/[0-9]+$`)

// checkRepository reads every object that a ref reaches, and names those that are damaged by what
// they are in the deployments.
func (i *inspection) checkRepository(ctx context.Context) error {
	repo, err := ostree.Open(i.root.Dir, i.ledger)
	if err != nil {
		i.fault("/ostree/repo", "%v", err)
		return nil
	}
	i.repo = repo
	places := i.objectPlaces()
	for _, err := range split(repo.Fsck(ctx)) {
		i.reportObject(err, places)
	}
	refs, err := repo.ListRefs()
	if err != nil {
		i.fault("/ostree/repo/refs", "%v", err)
	}
	for _, d := range i.deployments {
		if !protects(refs, d.commit) {
			i.fault("/"+d.path, "no ref ostree/B/S/N protects its commit, so that its objects may be pruned and were not all read")
		}
	}
	i.say("every object of %s has its checksum; %d of them are in deployments", size.Count(len(refs), "ref"), len(places))
	return ctx.Err()
}

func protects(refs []ostree.Ref, commit ostree.Checksum) bool {
	for _, ref := range refs {
		if ref.Commit == commit && deploymentRef.MatchString(ref.Name) {
			return true
		}
	}
	return false
}

// split takes apart errors that were joined.
func split(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// reportObject makes a finding of an error of the repository's check.
func (i *inspection) reportObject(err error, places map[objectKey][]string) {
	var broken *ostree.ObjectError
	if !errors.As(err, &broken) {
		i.fault("/ostree/repo", "%v", err)
		return
	}
	key := objectKey{broken.Type, broken.Checksum}
	what := broken.Err.Error()
	if errors.Is(err, ostree.ErrNotFound) {
		what = "it is missing"
	}
	uses := places[key]
	for _, use := range uses {
		i.broken[use] = true
	}
	switch {
	case len(uses) == 1:
		what += "; it is /" + uses[0]
	case len(uses) > 1:
		what += fmt.Sprintf("; it is /%s, and in other places, too", uses[0])
	default:
		what += "; it is in no deployment"
	}
	i.faultWith("deploy the image anew", "/"+key.path(), "%s", what)
}

// maxPlaces bounds how often one directory of the commits is visited to say where objects stand:
// objects can be made up that name each other without an end.
const maxPlaces = 8

// objectPlaces maps the objects of all deployments to where they stand in them. What is damaged is
// left out: the repository's check names it.
func (i *inspection) objectPlaces() map[objectKey][]string {
	places := map[objectKey][]string{}
	for _, d := range i.deployments {
		key := objectKey{ostree.TypeCommit, d.commit}
		places[key] = append(places[key], d.path)
		if c, err := i.repo.LoadCommit(d.commit); err == nil {
			i.placeTree(places, d.path, c.Tree, c.Meta)
		}
	}
	return places
}

func (i *inspection) placeTree(places map[objectKey][]string, at string, sum, meta ostree.Checksum) {
	put := func(kind ostree.ObjectType, sum ostree.Checksum, at string) {
		key := objectKey{kind, sum}
		places[key] = append(places[key], at)
	}
	if len(places[objectKey{ostree.TypeDirTree, sum}]) >= maxPlaces {
		return
	}
	put(ostree.TypeDirTree, sum, at)
	put(ostree.TypeDirMeta, meta, at)
	tree, err := i.repo.LoadDirTree(sum)
	if err != nil {
		return
	}
	for _, f := range tree.Files {
		put(ostree.TypeFile, f.Checksum, path.Join(at, f.Name))
	}
	for _, d := range tree.Dirs {
		i.placeTree(places, path.Join(at, d.Name), d.Tree, d.Meta)
	}
}

// metadata reads a string out of a commit's metadata; a missing one is "".
func metadata(c ostree.Commit, key string) string {
	v, ok := c.Value(key)
	if !ok {
		return ""
	}
	s, err := v.Str()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(s)
}
