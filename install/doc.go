// Package install is what an installation is: its options, the order of its
// steps, and the journal that undoes them when one fails.
//
// It ties the rooms together: disk for the device, rootfs for what stands on
// the root file system, finalize for giving the device back. What one step
// does inside its room does not belong here, nor does anything that a person
// sees: printing and exit statuses are the command line's.
package install
