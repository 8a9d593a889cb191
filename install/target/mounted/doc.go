// Package mounted is a target that somebody else has mounted: the file systems on a directory and
// below it. The package finds them, checks whether a system can stand on them, finds their
// partitions and disks, and lists their content. It can empty them, and makes them read-only and
// free of holders at the end. Nothing is mounted or unmounted. The content of the new system
// belongs elsewhere.
package mounted
