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

// openRepository opens the repository for the checks that follow, and checks it.
func (i *inspection) openRepository(ctx context.Context, f *findings) (err error) {
	if i.repo, err = ostree.Open(i.root.Dir, i.ledger); err != nil {
		f.fault("/ostree/repo", "%v", err)
		return nil
	}
	i.broken, err = checkRepository(ctx, f, i.repo, i.deployments)
	return err
}

// checkRepository reads every object that a ref reaches, and names those that are damaged by what
// they are in the deployments. It returns the paths of those files.
func checkRepository(ctx context.Context, f *findings, repo *ostree.Repo, deployments []*deployment) (broken map[string]bool, err error) {
	broken = map[string]bool{}
	places := objectPlaces(repo, deployments)
	for _, err := range split(repo.Fsck(ctx)) {
		for _, use := range reportObject(f, err, places) {
			broken[use] = true
		}
	}
	refs, err := repo.ListRefs()
	if err != nil {
		f.fault("/ostree/repo/refs", "%v", err)
	}
	for _, d := range deployments {
		if !protects(refs, d.commit) {
			f.fault("/"+d.path, "no ref ostree/B/S/N protects its commit, so that its objects may be pruned and were not all read")
		}
	}
	f.say("every object of %s has its checksum; %d of them are in deployments", size.Count(len(refs), "ref"), len(places))
	return broken, ctx.Err()
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

// reportObject makes a finding of an error of the repository's check, and returns where the object
// is used.
func reportObject(f *findings, err error, places map[objectKey][]string) (uses []string) {
	var broken *ostree.ObjectError
	if !errors.As(err, &broken) {
		f.fault("/ostree/repo", "%v", err)
		return nil
	}
	key := objectKey{broken.Type, broken.Checksum}
	what := broken.Err.Error()
	if errors.Is(err, ostree.ErrNotFound) {
		what = "it is missing"
	}
	uses = places[key]
	switch {
	case len(uses) == 1:
		what += "; it is /" + uses[0]
	case len(uses) > 1:
		what += fmt.Sprintf("; it is /%s, and in other places, too", uses[0])
	default:
		what += "; it is in no deployment"
	}
	f.faultWith("deploy the image anew", "/"+key.path(), "%s", what)
	return uses
}

// maxPlaces bounds how often one directory of the commits is visited to say where objects stand:
// objects can be made up that name each other without an end.
const maxPlaces = 8

// objectPlaces maps the objects of all deployments to where they stand in them. What is damaged is
// left out: the repository's check names it.
func objectPlaces(repo *ostree.Repo, deployments []*deployment) map[objectKey][]string {
	places := map[objectKey][]string{}
	for _, d := range deployments {
		key := objectKey{ostree.TypeCommit, d.commit}
		places[key] = append(places[key], d.path)
		if c, err := repo.LoadCommit(d.commit); err == nil {
			placeTree(repo, places, d.path, c.Tree, c.Meta)
		}
	}
	return places
}

func placeTree(repo *ostree.Repo, places map[objectKey][]string, at string, sum, meta ostree.Checksum) {
	put := func(kind ostree.ObjectType, sum ostree.Checksum, at string) {
		key := objectKey{kind, sum}
		places[key] = append(places[key], at)
	}
	if len(places[objectKey{ostree.TypeDirTree, sum}]) >= maxPlaces {
		return
	}
	put(ostree.TypeDirTree, sum, at)
	put(ostree.TypeDirMeta, meta, at)
	tree, err := repo.LoadDirTree(sum)
	if err != nil {
		return
	}
	for _, f := range tree.Files {
		put(ostree.TypeFile, f.Checksum, path.Join(at, f.Name))
	}
	for _, d := range tree.Dirs {
		placeTree(repo, places, path.Join(at, d.Name), d.Tree, d.Meta)
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
