// Package faultdisk makes raw disk files whose storage fails on purpose: a file of a FUSE file
// system that this process serves. Every write, discard and flush of it can be refused, and is kept
// in a log from which the disk can be made again as a power cut at any moment would have left it.
//
// What belongs here: the file, its faults and its log. Which faults are tried, and where, does not,
// nor what must hold afterwards.
package faultdisk
