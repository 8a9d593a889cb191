package main

// kind is one kind of fault.
type kind struct {
	name, what string
	do         func(*trial)
	image      string // which image it needs, "" for any
	onHost     bool   // it is not tried in containers
	storage    bool   // it makes the storage fail
}

// kinds lists all kinds.
func kinds() []kind {
	return []kind{
		{name: "sigkill-time", what: "SIGKILL at any time", do: killAtTime},
		{name: "sigkill-step", what: "SIGKILL within 5 ms of any event", do: killAtEvent},
		{name: "sigint-step", what: "SIGINT at any event", do: interruptAtEvent},
		{name: "sigterm-step", what: "SIGTERM at any event", do: terminateAtEvent},
		{name: "enospc-backing", what: "the file system of the disk file runs out of space", do: backingFull, storage: true},
		{name: "enospc-root", what: "the new root is filled up by somebody at any event", do: rootFull, onHost: true},
		{name: "enospc-inodes", what: "the new root runs out of inodes at any event", do: inodesGone, onHost: true},
		{name: "enospc-plan", what: "a root that is just large enough, or just not", do: tightRoot},
		{name: "enospc-esp", what: "boot files that need a large EFI system partition, on a disk with room for it or just not", do: espFull, onHost: true},
		{name: "enospc-tmp", what: "no space for temporary files", do: tmpFull, image: "archive"},
		{name: "enospc-report", what: "no space for the report, from the start or since any event", do: reportFull},
		{name: "second-installer", what: "another installer is started on the same disk", do: secondInstaller},
		{name: "two-disks", what: "another installer works on another disk", do: twoDisks},
		{name: "holders-meanwhile", what: "installer holders looks at the disk all the time", do: holdersMeanwhile},
		{name: "probing", what: "blkid and udev probe the disk and its loop device all the time", do: probing},
		{name: "lost-write", what: "every write fails from any one on", do: lostWrites, storage: true, onHost: true},
		{name: "lost-write-once", what: "one write fails", do: lostWrite, storage: true, onHost: true},
		{name: "lost-flush", what: "one flush fails, often the last", do: lostFlush, storage: true, onHost: true},
		{name: "device-gone", what: "everything fails from any event on", do: deviceGone, storage: true, onHost: true},
		{name: "loop-shrunk", what: "the loop device that is the disk loses its medium", do: loopShrunk, storage: true, onHost: true},
		{name: "power-cut", what: "the power goes at any moment, and with it all that was not flushed", do: powerCut, onHost: true},
	}
}
