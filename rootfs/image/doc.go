// Package image reads a source image, from any transport, as one merged tree.
//
// Here belong references to images and their transports, manifests and configurations, the streams
// of layers (verified, decompressed, parsed), the rules that turn tar entries into nodes, the merge
// of layers, and a plain directory taken as an image.
//
// Elsewhere belong the storing of contents (a [Sink] given by the caller does that), the formats of
// an OSTree repository, anything about the target disk, and printing.
//
// The vocabulary: an [Image] is opened from a [Ref]; importing it sends each file's content once to
// the [Sink] and yields a [Tree] of [Node] values, which hold metadata and the content's name but
// never the content itself.
//
// Each layer's bytes are read once by an import: decompressed, verified, parsed and handed to the
// sink as they stream by, several layers at a time. A scan, before it, decompresses and verifies
// compressed layers once more, and reads the headers of the others alone. The import that follows
// it fills the tree that the scan has made, and parses nothing again; the bytes that it reads must
// be those that the scan has read. Layers of containers-storage are read where the store unpacked
// them, without its lock; nothing is copied beforehand.
//
// # From an image to a tree of a deployment
//
// The image's /etc becomes /usr/etc, from which a deployment makes its own /etc. The directories
// /run, /tmp, /proc, /sys and /dev are kept, entries below them are dropped and counted. An image
// whose layers, taken together, have both a populated /etc and a populated /usr/etc is refused:
// which of two different configurations is meant cannot be known.
//
// # Ostree-native images
//
// The lower layers of an ostree-native image hold the objects of an OSTree commit, which is the
// [Base]: the first layer has the commit and its directories, the others have its files. Their
// objects are compared with their names in a scan and again as they are stored. Layers of plain
// files above them lie over the commit's tree by libostree's rules, which the image's updater
// follows: /etc is moved before the merge, a directory of the commit keeps its metadata, and
// missing parents of an entry belong to the entry's owner. Hard links into the commit's repository
// are followed to the file that a build has changed.
//
// # Differences from other tools
//
// They concern images of plain layers alone.
//
// A directory takes the metadata of the last layer that has an entry for it, as the OCI image
// specification says (ostree-ext keeps the first layer's). Whiteouts act on lower layers only,
// wherever in the layer they stand. Within one layer a later entry replaces an earlier one of the
// same path, and a hard link has the final object of its target. Symbolic links are never followed:
// a directory that a layer puts where a lower layer has a symbolic link replaces it, as it does in
// an overlay mount.
package image
