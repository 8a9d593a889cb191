package deploy

import (
	"cmp"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"installer/rootfs/image"
	"installer/rootfs/keyfile"
	"installer/rootfs/ostree"
	"installer/rootfs/xattr"
)

// composefsArgument is the kernel argument that decides over composefs.enabled.
const composefsArgument = "ostree.prepare-root.composefs="

// RootSettings say how the initramfs of an image makes a deployment the root
// (ostree-prepare-root(1)).
type RootSettings struct {
	Composefs Composefs
	Verity    bool // files and image must have the fs-verity digests that composefs knows
	Signed    bool // and the digest of the image must be in a signed commit
	KeyPath   string

	TransientRoot bool // changes of the root are in memory; without composefs the initramfs refuses it
	TransientEtc  bool // /etc is usr/etc, and changes of it are in memory
	WritableRoot  bool // sysroot.readonly=false, in so many words
}

// Composefs says whether the initramfs mounts the composefs image of a deployment.
type Composefs int

// The values of composefs.enabled, besides those that are in [RootSettings].
const (
	ComposefsNo    Composefs = iota
	ComposefsMaybe           // if the deployment has one
	ComposefsYes
)

// Wanted reports whether a deployment is to have an image.
func (c Composefs) Wanted() bool { return c != ComposefsNo }

// PrepareRootError is returned for an image whose initramfs would refuse its own configuration.
type PrepareRootError struct {
	Name string // of the file, or of the kernel argument
	Err  error
}

func (e *PrepareRootError) Error() string {
	return fmt.Sprintf("the image's initramfs would refuse %s, by which it makes a deployment the root: %v", e.Name, e.Err)
}

func (e *PrepareRootError) Unwrap() error { return e.Err }

// KeyFile is the file of a deployment that has the keys of signed commits, unless its settings name
// another.
const KeyFile = "etc/ostree/initramfs-root-binding.key"

// PrepareRootFiles are the configuration files of ostree-prepare-root(1) in a deployment. The later
// one is read in place of the earlier one, as libostree and bootc do.
func PrepareRootFiles() []string {
	return []string{"usr/lib/ostree/prepare-root.conf", "etc/ostree/prepare-root.conf"}
}

// ReadRootSettings reads the settings of a tree; kernel arguments are not considered, see
// [RootSettings.With]. The error of a configuration that the initramfs would refuse is a
// [*PrepareRootError].
func ReadRootSettings(tree fs.FS) (RootSettings, error) {
	name, keys := PrepareRootFiles()[0], map[string]string(nil)
	for _, file := range PrepareRootFiles() {
		data, err := fs.ReadFile(tree, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return RootSettings{}, fmt.Errorf("reading how the image mounts its root: %w", err)
		}
		name = file
		if keys, err = keyfile.Parse(string(data)); err != nil {
			return RootSettings{}, &PrepareRootError{Name: "/" + name, Err: err}
		}
	}
	s, err := parseRootSettings(keys)
	if err != nil {
		return s, &PrepareRootError{Name: "/" + name, Err: err}
	}
	return s, nil
}

func parseRootSettings(keys map[string]string) (s RootSettings, err error) {
	var readOnly, transientRO bool
	for key, to := range map[string]*bool{
		"root.transient": &s.TransientRoot, "root.transient-ro": &transientRO, "etc.transient": &s.TransientEtc, "sysroot.readonly": &readOnly,
	} {
		if *to, err = parseBool(keys[key]); err != nil {
			return s, fmt.Errorf("%s: %w", key, err)
		}
	}
	if s.TransientRoot && transientRO {
		return s, errors.New("it has root.transient and root.transient-ro, of which one alone can be")
	}
	s.TransientRoot = s.TransientRoot || transientRO
	s.WritableRoot = keys["sysroot.readonly"] != "" && !readOnly
	s.KeyPath = "/" + KeyFile
	if path := keys["composefs.keypath"]; path != "" {
		s.KeyPath = path
	}
	switch enabled := keys["composefs.enabled"]; enabled {
	case "":
	case "verity", "signed":
		s.Composefs, s.Verity, s.Signed = ComposefsYes, true, enabled == "signed"
	default:
		if s.Composefs, err = parseComposefs(enabled); err != nil {
			return s, fmt.Errorf("composefs.enabled: %w", err)
		}
	}
	return s, nil
}

// parseBool reads a boolean as GLib does, where "yes" is none.
func parseBool(value string) (bool, error) {
	switch value {
	case "true", "1":
		return true, nil
	case "", "false", "0":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", value)
}

func parseComposefs(value string) (Composefs, error) {
	switch value {
	case "yes", "true", "1":
		return ComposefsYes, nil
	case "maybe":
		return ComposefsMaybe, nil
	case "no", "false", "0":
		return ComposefsNo, nil
	}
	return ComposefsNo, fmt.Errorf("%q is none of yes, no, maybe, verity and signed", value)
}

// With returns the settings as they are for a system that starts with the kernel arguments, and
// refuses those with which none starts.
func (s RootSettings) With(kargs []string) (RootSettings, error) {
	for _, arg := range kargs {
		value, ok := strings.CutPrefix(arg, composefsArgument)
		if !ok {
			continue
		}
		if value == "signed" {
			if !s.Signed {
				return s, &PrepareRootError{Name: "the kernel argument " + arg, Err: errors.New("it reads its keys only where prepare-root.conf has composefs.enabled=signed")}
			}
			break
		}
		var err error
		if s.Composefs, err = parseComposefs(value); err != nil {
			return s, &PrepareRootError{Name: "the kernel argument " + arg, Err: err}
		}
		s.Signed = false
		break
	}
	if !s.Composefs.Wanted() {
		s.Verity, s.Signed = false, false
		if s.TransientRoot {
			return s, &PrepareRootError{Name: "root.transient=true in prepare-root.conf", Err: errors.New("a root whose changes are in memory needs composefs.enabled")}
		}
	}
	return s, nil
}

// ComposefsError is returned for an image whose initramfs demands a signed composefs image, and
// would find none.
type ComposefsError struct{ Reason string }

func (e *ComposefsError) Error() string {
	return "the image's prepare-root.conf has composefs.enabled=signed: " + e.Reason
}

// CheckSigned refuses an image whose settings demand a signature and that lacks one, or the keys to
// check it by, or whose tree is not the signed one; the error is a *ComposefsError. tree is that of
// a scan, and fsys reads it. It is there to refuse an image before anything is written.
func CheckSigned(s RootSettings, tree *image.Tree, fsys fs.FS) error {
	if !s.Signed {
		return nil
	}
	base := tree.Base
	key := strings.TrimPrefix(s.KeyPath, "/")
	switch info, err := fs.Stat(fsys, key); {
	case errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0:
		return &ComposefsError{fmt.Sprintf("it has no key in /%s, which its initramfs would check signatures by", key)}
	case err != nil:
		return fmt.Errorf("looking for the keys of signed commits: %w", err)
	case base == nil:
		return &ComposefsError{"signatures are of ostree commits, and the image holds none; to do: build it as an ostree-native image of a signed commit, or ask for composefs.enabled=verity"}
	}
	if err := checkSignature(base, fsys, key); err != nil {
		return err
	}
	if _, ok := base.Commit.Value(keyComposefsDigest); !ok {
		return &ComposefsError{fmt.Sprintf("the ostree commit %s that it holds does not name the digest of its composefs image; to do: commit with --generate-composefs-metadata", base.Checksum)}
	}
	if name := firstChange("", tree.Layers[0], tree.Root); name != "" {
		return &ComposefsError{fmt.Sprintf("/%s is not as in the signed commit %s, over which the image has layers; to do: sign a commit of the whole tree", name, base.Checksum)}
	}
	return nil
}

// firstChange returns a path at which the tree b differs from a, "" if there is none. Files of the
// same object are the same.
func firstChange(at string, a, b *image.Node) string {
	if a == b {
		return ""
	}
	name := cmp.Or(at, ".")
	if a == nil || b == nil || a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || a.Content != b.Content || a.IsDir() != b.IsDir() {
		return name
	}
	if different, _ := xattr.Equal(a.Xattrs, b.Xattrs); different != "" {
		return name
	}
	if !a.IsDir() && a.Content == (image.ContentID{}) {
		return name
	}
	for _, child := range append(a.Names(), b.Names()...) {
		if found := firstChange(path.Join(at, child), a.Children[child], b.Children[child]); found != "" {
			return found
		}
	}
	return ""
}

// checkSignature demands a signature of the commit by one of the keys. Keys whose content the scan of
// the image has not kept are left to the initramfs.
func checkSignature(base *image.Base, fsys fs.FS, key string) error {
	v, _ := value(base.Detached, keySignature)
	signatures, err := v.Blobs()
	if err != nil || len(signatures) == 0 {
		return &ComposefsError{fmt.Sprintf("the ostree commit %s that it holds has no ed25519 signature", base.Checksum)}
	}
	text, err := fs.ReadFile(fsys, key)
	if errors.Is(err, image.ErrNotKept) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the keys of signed commits: %w", err)
	}
	signed, err := base.Commit.Encode()
	if err != nil {
		return fmt.Errorf("encoding commit %s: %w", base.Checksum, err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if line == "" {
			continue
		}
		public, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
		if err != nil || len(public) != ed25519.PublicKeySize {
			return &ComposefsError{fmt.Sprintf("/%s has the line %.64q, which is no ed25519 public key in base64: its initramfs reads no further", key, line)}
		}
		for _, signature := range signatures {
			if len(signature) != ed25519.SignatureSize {
				return &ComposefsError{fmt.Sprintf("the ostree commit %s that it holds has an ed25519 signature of %d bytes: its initramfs reads no further", base.Checksum, len(signature))}
			}
			if ed25519.Verify(public, signed, signature) {
				return nil
			}
		}
	}
	return &ComposefsError{fmt.Sprintf("no key in /%s has signed the ostree commit %s that it holds", key, base.Checksum)}
}

// keySignature is the key of ed25519 signatures in a commit's detached metadata.
const keySignature = "ostree.sign.ed25519"

func value(metadata []ostree.KeyValue, key string) (ostree.Variant, bool) {
	return ostree.Commit{Metadata: metadata}.Value(key)
}
