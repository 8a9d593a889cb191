// Package fat writes a FAT32 file system without the kernel, and reads one: the structure, the tree
// and the files. The writer (a library, and fields that it leaves out) and the reader share
// no code, so that the reader can judge the writer's result.
package fat
