package deploy

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"installer/rootfs/beneath"
	"installer/rootfs/composefs"
	"installer/rootfs/image"
	"installer/rootfs/ostree"
	"installer/tests/kit"
)

// varied is a layer with files of every kind that an image can have.
func varied() []entry {
	entries := []entry{
		fileEntry("usr/lib/empty", ""), fileEntry("usr/lib/small", "small"), fileEntry("usr/lib/large", strings.Repeat("large file\n", 300_000)),
		fileEntry("usr/lib/.ostree-wh.gone", ""), fileEntry("usr/lib/00", "named as a folder of objects"),
		linkEntry("usr/lib/link", "small"), linkEntry("usr/lib/far", strings.Repeat("long/", 400)+"end"),
		{tar.Header{Typeflag: tar.TypeLink, Name: "usr/lib/hard", Linkname: "usr/lib/small", Mode: 0o644}, ""},
		dirEntry("usr/share/many", 0o711), fileEntry("ff", "in the root"), dirEntry("a0", 0o755),
	}
	for i := range 2500 {
		entries = append(entries, fileEntry(fmt.Sprintf("usr/share/many/file-%d", i), fmt.Sprint(i%7)))
	}
	marked := fileEntry("usr/lib/marked", "marked")
	marked.Mode, marked.Uid, marked.Gid = 0o4751, 70000, 5
	marked.PAXRecords = map[string]string{
		"SCHILY.xattr.user.note": "kept", "SCHILY.xattr.trusted.overlay.opaque": "y",
		"SCHILY.xattr.system.posix_acl_access": "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x05\x00\x05\x00\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x01\x00\xff\xff\xff\xff",
	}
	opaque := dirEntry("usr/lib/opaque", 0o755)
	opaque.PAXRecords = map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.many": strings.Repeat("v", 900)}
	return append(entries, marked, opaque)
}

// asks is the layer of an image that asks for composefs.
func asks(text string) entry { return fileEntry("usr/lib/ostree/prepare-root.conf", text) }

// deployedWith is deployed with the settings.
func deployedWith(t *testing.T, s RootSettings, layers ...[]entry) (*target, *Deployment) {
	t.Helper()
	x := newTarget(t)
	_, tree, commit := x.imported(t, makeImage(t, nil, layers...), followed)
	o := options()
	o.Root, o.Tree = s, tree.Root
	dep, err := Deploy(t.Context(), x.root, x.repo, commit, o, x.ledger)
	if err != nil {
		t.Fatal(err)
	}
	return x, dep
}

// oracleDeploys returns the image that an ostree with composefs makes for a commit of the target.
func oracleDeploys(t *testing.T, x *target, commit ostree.Checksum) []byte {
	t.Helper()
	if err := x.repo.Sync(); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	t.Cleanup(func() { clearImmutable(t, root) })
	ostreeRun := func(args ...string) { t.Helper(); kit.Oracle(t, "ostree", args...) }
	ostreeRun("admin", "init-fs", "--modern", root)
	ostreeRun("admin", "stateroot-init", "--sysroot="+root, "os")
	repo := "--repo=" + root + "/ostree/repo"
	ostreeRun("config", repo, "set", "sysroot.bootloader", "none")
	ostreeRun("pull-local", repo, x.path+"/ostree/repo", commit.String())
	ostreeRun("admin", "deploy", "--sysroot="+root, "--os=os", commit.String())
	data, err := os.ReadFile(filepath.Join(root, "ostree/deploy/os/deploy", commit.String()+".0", ComposefsName))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// libostree and libcomposefs write the same image.
func TestComposefsImage(t *testing.T) {
	base := append(baseLayer(), asks("[composefs]\nenabled = yes\n"))
	for name, layers := range map[string][][]entry{
		"plain":  {base, upperLayer()},
		"varied": {base, varied()},
	} {
		t.Run(name, func(t *testing.T) {
			x, dep := deployedWith(t, RootSettings{Composefs: ComposefsYes}, layers...)
			got := x.read(t, dep.Path+"/"+ComposefsName)
			if want := oracleDeploys(t, x, dep.Commit); got != string(want) {
				t.Errorf("%d bytes, libostree writes %d", len(got), len(want))
			}
			fromObjects, _, err := ComposefsImage(t.Context(), x.repo, dep.Commit, false)
			if err != nil {
				t.Fatal(err)
			}
			var again strings.Builder
			if _, err := fromObjects.WriteTo(&again); err != nil || again.String() != got {
				t.Errorf("of the commit's objects %d bytes are made, %v", again.Len(), err)
			}
			measured := strings.TrimSpace(kit.Oracle(t, "composefs-info", "measure-file", filepath.Join(x.path, dep.Path, ComposefsName)))
			if dep.Composefs != measured {
				t.Errorf("digest %s, composefs-info measures %s", dep.Composefs, measured)
			}
			info, err := os.Stat(filepath.Join(x.path, dep.Path, ComposefsName))
			if err != nil || info.Mode() != 0o644 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			if len(dep.Kargs) != 3 {
				t.Errorf("arguments %q", dep.Kargs)
			}
		})
	}
}

// With digests of the files it is the same; this needs no file that has fs-verity.
func TestComposefsImageWithDigests(t *testing.T) {
	x, dep := deployedWith(t, RootSettings{}, append(baseLayer(), asks("[composefs]\nenabled = verity\n")), varied())
	if _, err := os.Lstat(filepath.Join(x.path, dep.Path, ComposefsName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image that nobody asks for: %v", err)
	}
	c, err := x.repo.LoadCommit(dep.Commit)
	if err != nil {
		t.Fatal(err)
	}
	img, unprotected, err := composefsImage(t.Context(), x.repo, written{c.Tree, c.Meta}, true)
	if err != nil || unprotected == 0 {
		t.Fatalf("%d files are unprotected, %v", unprotected, err)
	}
	var got bytes.Buffer
	if _, err := img.WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	if want := oracleDeploys(t, x, dep.Commit); !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes, libostree writes %d", got.Len(), len(want))
	}
}

func TestRootSettings(t *testing.T) {
	def := RootSettings{KeyPath: "/" + KeyFile}
	with := func(change func(*RootSettings)) RootSettings { s := def; change(&s); return s }
	verity := with(func(s *RootSettings) { s.Composefs, s.Verity = ComposefsYes, true })
	signed := with(func(s *RootSettings) { s.Composefs, s.Verity, s.Signed = ComposefsYes, true, true })
	for name, c := range map[string]struct {
		usr, etc string
		kargs    []string
		want     RootSettings
		fault    string // part of the error
	}{
		"nothing":        {"", "", nil, def, ""},
		"yes":            {"[composefs]\nenabled=yes\n", "", nil, with(func(s *RootSettings) { s.Composefs = ComposefsYes }), ""},
		"true":           {"[composefs]\nenabled = true\n", "", nil, with(func(s *RootSettings) { s.Composefs = ComposefsYes }), ""},
		"maybe":          {"[composefs]\nenabled=maybe\n", "", nil, with(func(s *RootSettings) { s.Composefs = ComposefsMaybe }), ""},
		"no":             {"[composefs]\nenabled=no\n", "", nil, def, ""},
		"verity":         {"[composefs]\nenabled=verity\n", "", nil, verity, ""},
		"signed":         {"[composefs]\nenabled=signed\n", "", nil, signed, ""},
		"key":            {"[composefs]\nkeypath=/k\n", "", nil, with(func(s *RootSettings) { s.KeyPath = "/k" }), ""},
		"other file":     {"[composefs]\nenabled=signed\n", "[etc]\ntransient=true\n", nil, with(func(s *RootSettings) { s.TransientEtc = true }), ""},
		"argument":       {"[composefs]\nenabled=verity\n", "", []string{"rw", "ostree.prepare-root.composefs=0"}, def, ""},
		"signed twice":   {"[composefs]\nenabled=signed\n", "", []string{"ostree.prepare-root.composefs=signed"}, signed, ""},
		"first argument": {"", "", []string{"ostree.prepare-root.composefs=maybe", "ostree.prepare-root.composefs=no"}, with(func(s *RootSettings) { s.Composefs = ComposefsMaybe }), ""},
		"not signed":     {"[composefs]\nenabled=signed\n", "", []string{"ostree.prepare-root.composefs=yes"}, verity, ""},
		"writable":       {"[sysroot]\nreadonly=false\n", "", nil, with(func(s *RootSettings) { s.WritableRoot = true }), ""},
		"read-only":      {"[sysroot]\nreadonly=true\n", "", nil, def, ""},
		"transient": {"[composefs]\nenabled=yes\n[root]\ntransient=true\n", "", nil,
			with(func(s *RootSettings) { s.Composefs, s.TransientRoot = ComposefsYes, true }), ""},
		"transient-ro": {"[composefs]\nenabled=yes\n[root]\ntransient-ro=true\n", "", nil,
			with(func(s *RootSettings) { s.Composefs, s.TransientRoot = ComposefsYes, true }), ""},
		"both transient":    {"[root]\ntransient=true\ntransient-ro=1\n", "", nil, def, "transient-ro"},
		"transient alone":   {"[root]\ntransient=true\n", "", nil, def, "needs composefs"},
		"transient without": {"[composefs]\nenabled=yes\n[root]\ntransient=true\n", "", []string{"ostree.prepare-root.composefs=0"}, def, "needs composefs"},
		"unknown":           {"[composefs]\nenabled=perhaps\n", "", nil, def, "/usr/lib/ostree/prepare-root.conf.*perhaps"},
		"signed by it":      {"[composefs]\nenabled=verity\n", "", []string{"ostree.prepare-root.composefs=signed"}, def, "composefs=signed.*prepare-root.conf has composefs.enabled=signed"},
		"unknown argument":  {"", "", []string{"ostree.prepare-root.composefs=verity"}, def, "composefs=verity"},
		"no boolean":        {"", "[sysroot]\nreadonly=yes\n", nil, def, "/etc/ostree/prepare-root.conf.*sysroot.readonly"},
		"no key file":       {"enabled = yes\n", "", nil, def, "/usr/lib/ostree/prepare-root.conf"},
	} {
		tree := fstest.MapFS{}
		for file, text := range map[string]string{"usr/lib/ostree/prepare-root.conf": c.usr, "etc/ostree/prepare-root.conf": c.etc} {
			if text != "" {
				tree[file] = &fstest.MapFile{Data: []byte(text)}
			}
		}
		got, err := ReadRootSettings(tree)
		if err == nil {
			got, err = got.With(c.kargs)
		}
		var refused *PrepareRootError
		switch {
		case c.fault == "" && (err != nil || got != c.want):
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		case c.fault != "" && (!errors.As(err, &refused) || !matches(c.fault, err.Error())):
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func matches(parts, text string) bool {
	for part := range strings.SplitSeq(parts, ".*") {
		_, after, ok := strings.Cut(text, part)
		if !ok {
			return false
		}
		text = after
	}
	return true
}

func TestSigned(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	commit := ostree.Commit{Metadata: []ostree.KeyValue{{Key: keyComposefsDigest, Value: ostree.BytesValue(make([]byte, len(composefs.Digest{})))}}}
	// A value of type aay is made of another one's bytes, as it comes out of a file.
	signed := func(c ostree.Commit) []ostree.KeyValue {
		data, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		dict := append([]byte("ostree.sign.ed25519\x00\x00\x00\x00\x00"), ed25519.Sign(private, data)...)
		dict = append(dict, ed25519.SignatureSize, 0, 'a', 'a', 'y', 19+1)
		dict = append(dict, byte(len(dict)))
		metadata, err := ostree.DecodeMetadata(dict)
		if err != nil {
			t.Fatal(err)
		}
		return metadata
	}
	line := []byte(base64.StdEncoding.EncodeToString(public) + "\n\n")
	other := []byte(base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n")
	key := fstest.MapFS{KeyFile: {Data: line}}
	asked := RootSettings{Signed: true, KeyPath: "/" + KeyFile}
	good := &image.Base{Commit: commit, Detached: signed(commit)}
	node := func(mode uint32, children map[string]*image.Node) *image.Node {
		return &image.Node{Meta: image.Meta{Mode: 0o40000 | mode}, Children: children}
	}
	object := func(n byte) *image.Node {
		return &image.Node{Meta: image.Meta{Mode: 0o100644}, Content: image.ContentID{n}}
	}
	plain := node(0o755, map[string]*image.Node{"usr": node(0o755, nil), "f": object(1)})
	for name, c := range map[string]struct {
		s     RootSettings
		base  *image.Base
		tree  fs.FS
		over  *image.Node // the merged tree, nil for that of the commit
		fault string
	}{
		"not asked for": {RootSettings{}, nil, fstest.MapFS{}, nil, ""},
		"signed":        {asked, good, key, nil, ""},
		"by a file":     {RootSettings{Signed: true, KeyPath: "/usr/k"}, good, fstest.MapFS{"usr/k": {Data: line}}, nil, ""},
		"no key":        {asked, good, fstest.MapFS{}, nil, "no key in /etc/ostree/initramfs-root-binding.key"},
		"empty key":     {asked, nil, fstest.MapFS{KeyFile: {}}, nil, "no key in"},
		"another key":   {asked, good, fstest.MapFS{KeyFile: {Data: other}}, nil, "no key in /etc/ostree/initramfs-root-binding.key has signed"},
		"another file":  {RootSettings{Signed: true, KeyPath: "/usr/k"}, good, key, nil, "no key in /usr/k"},
		"second key":    {asked, good, fstest.MapFS{KeyFile: {Data: slices.Concat(other, line)}}, nil, ""},
		"no key before": {asked, good, fstest.MapFS{KeyFile: {Data: slices.Concat([]byte("# root\n"), line)}}, nil, `has the line "# root"`},
		"no key after":  {asked, good, fstest.MapFS{KeyFile: {Data: slices.Concat(line, []byte("# root\n"))}}, nil, ""},
		"no commit":     {asked, nil, key, nil, "holds none"},
		"no signature":  {asked, &image.Base{Commit: commit}, key, nil, "no ed25519 signature"},
		"of another":    {asked, &image.Base{Commit: commit, Detached: signed(ostree.Commit{})}, key, nil, "has signed"},
		"no digest":     {asked, &image.Base{Detached: signed(ostree.Commit{})}, key, nil, "does not name the digest"},
		"same tree":     {asked, good, key, node(0o755, map[string]*image.Node{"usr": node(0o755, nil), "f": object(1)}), ""},
		"other mode":    {asked, good, key, node(0o755, map[string]*image.Node{"usr": node(0o711, nil), "f": object(1)}), "/usr is not as in the signed commit"},
		"other file":    {asked, good, key, node(0o755, map[string]*image.Node{"usr": node(0o755, nil), "f": object(2)}), "/f is not as"},
		"layer's file":  {asked, good, key, node(0o755, map[string]*image.Node{"usr": node(0o755, nil), "f": object(0)}), "/f is not as"},
		"one more":      {asked, good, key, node(0o755, map[string]*image.Node{"usr": node(0o755, nil), "f": object(1), "g": object(1)}), "/g is not as"},
		"one less":      {asked, good, key, node(0o755, map[string]*image.Node{"usr": node(0o755, nil)}), "/f is not as"},
		"other root":    {asked, good, key, node(0o700, nil), "/. is not as"},
	} {
		tree := &image.Tree{Root: plain, Layers: []*image.Node{plain}, Base: c.base}
		if c.over != nil {
			tree.Root = c.over
		}
		err := CheckSigned(c.s, tree, c.tree)
		var refused *ComposefsError
		if c.fault == "" && err != nil || c.fault != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The digest that the signed commit names must be that of the image; else the initramfs would start
// nothing. In a commit that no initramfs checks, libostree demands it all the same.
func TestNamedDigest(t *testing.T) {
	x := newTarget(t)
	_, tree, commit := x.imported(t, makeImage(t, nil, baseLayer()), followed)
	c, err := x.repo.LoadCommit(commit)
	if err != nil {
		t.Fatal(err)
	}
	img, err := imageOfNode(x.repo, tree.Root, false)
	if err != nil {
		t.Fatal(err)
	}
	h := composefs.NewHash()
	if _, err := img.WriteTo(h); err != nil {
		t.Fatal(err)
	}
	right := ostree.BytesValue(h.Sum(nil))
	named := func(v ...ostree.Variant) []ostree.KeyValue {
		var out []ostree.KeyValue
		for _, v := range v {
			out = append(out, ostree.KeyValue{Key: keyComposefsDigest, Value: v})
		}
		return out
	}
	write := func(c ostree.Commit) ostree.Checksum {
		t.Helper()
		sum, err := x.repo.WriteCommit(c)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	verity := RootSettings{Composefs: ComposefsYes, Verity: true}
	signed := RootSettings{Composefs: ComposefsYes, Verity: true, Signed: true}
	for name, k := range map[string]struct {
		s         RootSettings
		own, base []ostree.KeyValue
		fault     string
		composefs bool // it is the image that is refused
	}{
		"none":              {verity, nil, nil, "", false},
		"right":             {verity, named(right), nil, "", false},
		"wrong":             {verity, named(ostree.BytesValue(make([]byte, 32))), nil, "names the composefs digest 0000", false},
		"no digest at all":  {verity, named(ostree.StringValue("x")), nil, keyComposefsDigest, false},
		"not looked at":     {RootSettings{Composefs: ComposefsYes}, named(ostree.BytesValue(make([]byte, 32))), nil, "", false},
		"signed":            {signed, nil, named(right), "", false},
		"signed wrong":      {signed, named(right), named(ostree.BytesValue(make([]byte, 32))), "the signed commit", true},
		"signed, not named": {signed, named(right), nil, "the signed commit", true},
	} {
		d := &deployer{root: beneath.Of(x.root, x.ledger), repo: x.repo, o: Options{Root: k.s}}
		base := write(ostree.Commit{Tree: c.Tree, Meta: c.Meta, Metadata: k.base})
		d.dep.Commit = write(ostree.Commit{Tree: c.Tree, Meta: c.Meta, Metadata: k.own, Parent: base})
		err := d.checkDigest(composefs.Digest(h.Sum(nil)))
		var refused *ComposefsError
		if k.fault == "" && err != nil || k.fault != "" && (err == nil || !strings.Contains(err.Error(), k.fault)) || errors.As(err, &refused) != k.composefs {
			t.Errorf("%s: %v", name, err)
		}
	}
}
