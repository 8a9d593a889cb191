// Package mounts knows mounts and mount namespaces: it lists the mounts of
// every mount namespace, works out in which order a tree comes down, mounts,
// remounts and unmounts.
//
// What refers to a mount (files, mappings, processes) belongs to package
// holders; what happens to a target in which order belongs to package finalize.
// Nothing here waits, retries or unmounts lazily.
package mounts
