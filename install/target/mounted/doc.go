// Package mounted is a target that somebody else has mounted: the file systems on a directory and below it. The package
// finds which ones there are, whether a system can stand on them, which partitions of which disk they are, and what is
// on them. It can empty them, and makes them read-only and free of holders at the end. Nothing is mounted or unmounted.
//
// What does not belong here: what is written on the file systems.
package mounted
