// Package install is an installation: its options, the order of its steps, the journal that undoes them when one fails,
// events, and the report.
//
// It ties the rooms together, each of which stands for itself: source (the image), choice (the decisions), target (the
// disk, or mounted file systems) and system (what is written on the root). What a step does inside its room does not
// belong here, nor does anything that a person sees: printing and exit statuses are the command line's.
package install
