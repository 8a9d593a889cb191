// Package fat reads FAT32 file systems without the kernel: the structure, the tree and the files.
// It shares no code with the writer in package disk, so that it can judge the writer's result. It
// only reads.
package fat
