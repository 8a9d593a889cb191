// Package source opens the image that is installed, looks through it, and measures the space that
// it takes.
//
// It also handles the image of the container that the program runs in, surveys that another program
// made, images that the image binds, and the check that the installed host can fetch its updates.
// The format of images belongs to package image, and the consequences of an image's facts to
// package choice.
package source
