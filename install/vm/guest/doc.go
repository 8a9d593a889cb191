// Package guest is what runs inside the virtual machine of a build: the first
// process, which readies the devices and tells the host what happens, and the
// container made of the image, in which the installer runs.
//
// It is the installer's own program again, on a kernel that started nothing
// else. What does not belong here: anything that runs on the host.
package guest
