package image

import (
	"context"
	"time"
)

// Platform chooses an image from a multi-platform index. Empty fields stand for Linux and the
// architecture this program was built for.
type Platform struct {
	OS           string
	Architecture string // as Go and OCI spell it: amd64, arm64, …
	Variant      string
}

// OpenOptions says how to open an image. The zero value is usable.
type OpenOptions struct {
	Platform Platform

	// PolicyPath is the signature policy file; empty means where containers-policy.json(5) says. If
	// no file is there, every image is accepted unless EnforceSigPolicy is set.
	PolicyPath string
	// EnforceSigPolicy demands that the policy requires a signature for this image and that it is
	// there and good; a policy that accepts anything is refused.
	EnforceSigPolicy bool

	// AuthFile has credentials for registries; empty means where containers-auth.json(5) says.
	AuthFile string
	// InsecureTLS permits plain HTTP and unverified certificates of registries.
	InsecureTLS bool
	// RegistriesConf replaces containers-registries.conf(5) if not empty.
	RegistriesConf string
	// TempDir takes files that a transport must unpack before they can be read (compressed docker
	// archives), and the blobs of a registry between a scan and the import, in files without names;
	// empty means the libraries' default, /var/tmp.
	TempDir string
}

// LayerInfo describes a layer as the manifest and the configuration do.
type LayerInfo struct {
	Digest       string // of the blob as the manifest names it, "sha256:…"; empty for a directory
	DiffID       string // SHA-256 of the uncompressed tar, "sha256:…"; empty for a directory
	Size         int64  // bytes of the blob as the manifest states; -1 if it does not
	MediaType    string
	Uncompressed int64 // estimate of the tar's bytes, 0 if unknown; for gzip a lower bound
}

// Image is an opened image. Its exported fields are set by [Open] and must not be changed. It is
// not safe for concurrent use.
type Image struct {
	Ref            Ref
	Manifest       []byte // as served, of the chosen platform; nil for a directory
	ManifestType   string // media type of Manifest
	ManifestDigest string // SHA-256 of Manifest, "sha256:…"
	// Indexes are the indexes that led to Manifest, outermost first, as served by a registry or
	// containers-storage: an image that is named by the digest of an index is known by that.
	Indexes      [][]byte
	Config       []byte // raw JSON; nil for a directory
	Labels       map[string]string
	Architecture string
	// Created is the manifest's annotation org.opencontainers.image.created, else the
	// configuration's creation time, else zero.
	Created time.Time
	Layers  []LayerInfo
	// BaseLayers is how many of the layers, from the lowest, hold the objects of an ostree commit:
	// the image is ostree-native. 0 for an image of plain layers alone.
	BaseLayers int

	src     source
	scanned *scanned // nil: nothing was scanned
}

// Default limits of an import; see [ImportOptions].
const (
	DefaultMaxLayerSize = 64 << 30
	DefaultMaxEntries   = 4_000_000
	DefaultMaxTree      = 512 << 20
)

// ImportOptions bounds and watches an import. The zero value is usable.
type ImportOptions struct {
	// Progress is called with the count of further bytes that were read: compressed bytes for
	// layers, file bytes for a directory. It is called concurrently, and must return quickly. The
	// sum for a whole import is [Image.SourceSize], where that is known.
	Progress func(bytes int64)

	// MaxLayerSize bounds, in bytes, the uncompressed stream of each layer and the sum of its
	// files' sizes: a bound on the size that a decompression bomb or a sparse file can claim. 0
	// means [DefaultMaxLayerSize].
	MaxLayerSize int64

	// MaxEntries bounds the entries of all layers together. 0 means [DefaultMaxEntries].
	MaxEntries int64

	// MaxTree bounds, in bytes, the memory of the trees: names, link targets, extended attributes,
	// and the nodes themselves. 0 means [DefaultMaxTree].
	MaxTree int64

	// Label, which may be nil, gives every file the SELinux label of its path; see [Tree.Relabel].
	Label Labeller

	// OwnNames says that the sink does not name contents as an OSTree repository does. Objects of an
	// ostree commit get its names, too, and are compared with their own by the import itself.
	OwnNames bool

	// Parallel is how many layers are read and how many workers store small files at a time. 0
	// means one more than there are CPUs.
	Parallel int
}

// SourceSize is the number of bytes an import reads from the source, or -1 if the manifest does not
// say.
func (img *Image) SourceSize() int64 { return img.src.size() }

// Open opens an image: it reads and verifies the manifest and the configuration, but no layers.
// Faults of the source are a [*SourceError]. The caller closes the image.
func Open(ctx context.Context, ref Ref, o OpenOptions) (*Image, error) {
	return openImage(ctx, ref, o)
}

// Import reads every layer once, sends all contents to sink and returns the merged tree. The first
// import after a scan with the same limits fills the scan's tree and returns that. Faults of the
// source are a [*SourceError]; errors of the sink are returned as they are, wrapped. When it
// returns, nothing of it is running.
func (img *Image) Import(ctx context.Context, sink Sink, o ImportOptions) (*Tree, error) {
	if o.Label != nil && img.scanned != nil {
		img.scanned.tree.Relabel(o.Label, nil)
	}
	tree, err := img.src.importTree(ctx, img, sink, o.withDefaults())
	if err == nil && o.Label != nil {
		tree.Relabel(o.Label, nil)
	}
	return tree, err
}

// Close releases the files of the source.
func (img *Image) Close() error { return img.src.close() }
