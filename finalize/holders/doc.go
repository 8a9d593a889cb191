// Package holders finds who keeps a mount, or the superblock of a device, alive: open files,
// mappings, working directories, programs, mounts in other places and namespaces, loop devices,
// swap.
//
// Each class of holder has a file of its own. The package looks, names and advises; it never
// closes, unmounts or ends anything. Mounts and namespaces themselves belong to package mounts, and
// the consequences of a finding to package finalize.
package holders
