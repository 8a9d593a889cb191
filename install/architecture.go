package install

import (
	"fmt"
	"runtime"

	"installer/rootfs/bootloader"
)

// arch is the architecture, by its Go name, of the system that is installed: the
// image's; a directory tree has none to tell, and is taken for this machine's.
func (r *run) arch() string {
	if img := r.source.image; img != nil && img.Config != nil {
		return img.Architecture
	}
	return runtime.GOARCH
}

// foreign tells whether the image is for another architecture than this
// machine's: none of its programs can be run.
func (r *run) foreign() bool { return r.arch() != runtime.GOARCH }

// checkArchitecture refuses an image for another architecture that was not asked
// for as such, and one that nothing is known of.
func (r *run) checkArchitecture() error {
	if !r.foreign() {
		return nil
	}
	arch := r.arch()
	switch {
	case arch != "amd64" && arch != "arm64":
		return r.sourceFault(fmt.Errorf("it is made for architecture %q; amd64 and arm64 are supported", arch))
	case r.opts.SourceOpen.Platform.Architecture != arch:
		return r.sourceFault(fmt.Errorf("it is made for architecture %q, this machine is %q; to do: give an image for this one, "+
			"or say --platform linux/%s if the disk is for such a machine", arch, runtime.GOARCH, arch))
	}
	r.note("the image is for %s, this machine is %s: no program of the image is run, the file system is made by this machine's", arch, runtime.GOARCH)
	return nil
}

// checkRunnable refuses a boot loader that is made by a program of an image
// whose programs do not run here.
func (r *run) checkRunnable() error {
	if r.foreign() && r.opts.Bootloader == bootloader.GRUB {
		return r.sourceFault(fmt.Errorf("boot loader %s is made by a program of the image, which is for %s and does not run on %s; "+
			"to do: --bootloader %s, which is copied, or %s; or install on such a machine",
			bootloader.GRUB, r.arch(), runtime.GOARCH, bootloader.SystemdBoot, bootloader.None))
	}
	return nil
}
