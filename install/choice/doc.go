// Package choice decides how an image is installed: the wishes of the user, the facts of the image
// and those of the target become a Choice, which nobody changes afterwards.
//
// It holds defaults, the image's install configuration, kernel arguments, the firmware to serve,
// references of images, and the refusal of wishes that cannot be carried out. Opening an image or a
// target, and acting on a choice, belong elsewhere. The functions are pure, except ThisMachine.
package choice
