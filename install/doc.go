// Package install is an installation: its options, the order of its steps, the journal that undoes
// them when one fails, events, and the report.
//
// It ties the rooms together: source (the image), choice (the decisions), target (the disk, or
// mounted file systems) and system (the content of the root). The work of a step belongs to its
// room; printing and exit statuses belong to the command line.
package install
