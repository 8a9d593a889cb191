package verify

import (
	"strings"

	"installer/rootfs/deploy"
	"installer/rootfs/keyfile"
	"installer/rootfs/ostree"
)

// Metadata keys of a commit that was made of a container image, as its updater reads them back.
const (
	keyManifest       = "ostree.manifest"
	keyManifestDigest = "ostree.manifest-digest"
	keyConfig         = "ostree.container.image-config"
)

// checkOrigins checks that each deployment says where updates come from, and that its updater would
// believe it.
func checkOrigins(f *findings, t tree, repo *ostree.Repo, deployments []*deployment) {
	var origins []string
	for _, d := range deployments {
		where := "/" + d.path + ".origin"
		data, err := t.read(d.path + ".origin")
		if err != nil {
			f.fault(where, "%v", err)
			continue
		}
		keys, err := keyfile.Parse(string(data))
		if err != nil {
			f.fault(where, "%v", err)
			continue
		}
		image, refspec := keys["origin.container-image-reference"], keys["origin.refspec"]
		switch {
		case image != "":
			origins = append(origins, image)
			checkImageOrigin(f, repo, where, d, image)
		case refspec != "":
			origins = append(origins, refspec)
			checkRefspec(f, repo, where, refspec)
		default:
			f.fault(where, "it has neither container-image-reference nor refspec in the group origin")
		}
	}
	f.say("%s", strings.Join(origins, ", "))
}

// checkRefspec checks the origin of a system that no container image updates.
func checkRefspec(f *findings, repo *ostree.Repo, where, refspec string) {
	if _, err := repo.ResolveRef(refspec); err != nil && !strings.Contains(refspec, ":") {
		f.fault(where, "its refspec %s names no commit: %v", refspec, err)
	}
}

// imageReference turns the origin's spelling, which says how signatures are checked, into that of
// refs: an image reference with its transport. ok is false for a spelling that updaters do not
// know.
func imageReference(origin string) (reference string, ok bool) {
	scheme, rest, _ := strings.Cut(origin, ":")
	switch scheme {
	case "ostree-unverified-registry":
		return "docker://" + rest, rest != ""
	case "ostree-unverified-image", "ostree-image-signed":
		return rest, strings.Contains(rest, ":")
	case "ostree-remote-registry":
		_, name, found := strings.Cut(rest, ":")
		return "docker://" + name, found && name != ""
	case "ostree-remote-image":
		_, name, found := strings.Cut(rest, ":")
		return name, found && strings.Contains(name, ":")
	}
	return "", false
}

// checkImageOrigin checks the records that the updater of a container image reads back: the image's
// ref, the manifest in the commit, and the ref of the first layer.
func checkImageOrigin(f *findings, repo *ostree.Repo, where string, d *deployment, origin string) {
	reference, ok := imageReference(origin)
	if !ok {
		f.fault(where, "its image reference %q has no form that updaters know", origin)
		return
	}
	name, err := deploy.ImageRef(reference)
	if err == nil {
		_, err = repo.ResolveRef(name)
	}
	if err != nil {
		f.fault(where, "the repository has no ref for the image %s: %v", reference, err)
	}
	c, err := repo.LoadCommit(d.commit)
	if err != nil {
		f.fault("/"+d.path, "its commit cannot be read: %v", err)
		return
	}
	where = "/" + objectKey{ostree.TypeCommit, d.commit}.path()
	layers, err := imageLayers(c)
	if err == nil {
		err = layers.check(repo, c, func(what string) { f.note(where, "%s", what) })
	}
	if err != nil {
		f.fault(where, "%v", err)
	}
}
