// Package ostree reads and writes an OSTree repository in bare mode, natively: objects, refs,
// commits, checkouts, locks and a consistency check.
//
// The vocabulary: an object is immutable and named by a SHA-256 checksum and a type. A file object
// is a regular file or a symbolic link with its owner, mode and extended attributes. A dirtree
// lists the names of one directory, a dirmeta holds a directory's owner, mode and attributes, and a
// commit points to a root dirtree and dirmeta and carries metadata. A ref is a name for a commit.
//
// Here belong the repository's format (OSTree repository format, bare mode; GVariant serialisation)
// and its consistency. Elsewhere belong container images, deployments, boot entries, labels and
// anything that decides which files are stored. Everything it holds open is reported to a Ledger
// that the caller hands in.
//
// Everything is done relative to directory descriptors and no symbolic link is followed, except
// aliases among the refs, which may not leave the refs' folder.
package ostree
