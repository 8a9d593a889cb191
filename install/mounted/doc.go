// Package mounted looks at file systems that somebody else has mounted, for an
// installation onto them: which ones there are below a directory, whether a
// system can stand on them, what is on them already, and which partitions of
// which disk they are. It can empty them.
//
// What does not belong here: what is written there, and how the file systems are
// released. Nothing is mounted or unmounted.
package mounted
