// Package kmod finds the kernel modules that a guest needs among those of an
// image, in the order in which they must be loaded, by the indexes that depmod
// leaves beside them (modules.dep(5), modules.builtin, depmod.d(5) "softdep").
//
// The choice of modules, and loading them, do not belong here.
package kmod
