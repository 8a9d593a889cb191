// Package beneath writes and reads a tree that others may have shaped: the root file system of a
// target.
//
// Every file, directory and link on the target is created by a [Dir], relative to a directory that
// is held open. No symbolic link of the tree is followed while a path is resolved, and no path
// leads out of the directory. The owner and mode of a new entry are decided here, whatever the
// umask. The content and the place of a file belong to the callers.
package beneath

// Ledger accounts for handles that are open on the target. Opened records a handle of a kind ("fd",
// "lock") on a path relative to the physical root. The caller calls released exactly once, when the
// handle is closed.
type Ledger interface {
	Opened(kind, name string) (released func())
}
