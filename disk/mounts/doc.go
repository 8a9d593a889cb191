// Package mounts knows mounts and mount namespaces: it lists the mounts of every mount namespace,
// works out in which order a tree comes down, mounts, remounts and unmounts.
//
// References to a mount (files, mappings, processes) belong to package holders; the order of a
// release belongs to package finalize. Nothing here waits, retries or unmounts lazily.
package mounts
