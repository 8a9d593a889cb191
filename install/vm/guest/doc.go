// Package guest runs inside the virtual machine of a build: the first process, which readies the
// devices and reports to the host, and the container made of the image, in which the installer
// runs.
//
// It is the installer's own program again, on a kernel that has started no other. Code that runs on
// the host does not belong here.
package guest
