// Package source opens the image that is installed, looks through it, and measures the space that it takes.
//
// What belongs here: the image of the container that the program runs in, surveys that another program made, images
// that the image binds, and the check that the installed host can fetch its updates. What does not: the format of
// images (package image), and what follows from the facts of one (package choice).
package source
