// Package beneath writes and reads a tree that others may have shaped: the root file system of a target.
//
// Every file, directory and link on the target is created by a [Dir], relative to a directory that is held open. No
// symbolic link of the tree is followed while a path is resolved, and no path leads out of the directory. The owner and
// mode of a new entry are decided here, whatever the umask. What does not belong here: what is written, and where.
package beneath

// Ledger accounts for what is held open on the target: Opened records a handle of a kind ("fd", "lock") on a path
// relative to the physical root, and what it returns is called exactly once when the handle is closed.
type Ledger interface {
	Opened(kind, name string) (released func())
}
