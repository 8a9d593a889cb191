// Package composefs writes composefs images, byte for byte as libcomposefs writes them, and computes
// fs-verity digests.
//
// A composefs image is an EROFS file system that holds the metadata of a tree and no contents. Each
// regular file is a hole with two attributes of overlayfs: the path of a backing file, and the
// fs-verity digest that the backing file must have. Small contents may be in the image itself.
// Because the image is a function of the tree alone, one digest of the image stands for the tree.
//
// Here belong the image's format and the digest's. The trees that images are made of, and the
// mounting of images, belong elsewhere.
package composefs
