package vm

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"installer/install/hostprog"
)

// programs holds the paths of the programs that a build runs on the host.
type programs struct{ qemu, img string }

const kvmDevice = "/dev/kvm"

// platforms lists the parts of a virtual machine by architecture.
var platforms = map[string]struct {
	qemu, debian, fedora string
	machine              string
	console              string // of the kernel
}{
	"amd64": {"qemu-system-x86_64", "qemu-system-x86", "qemu-system-x86-core", "q35", "ttyS0"},
	"arm64": {"qemu-system-aarch64", "qemu-system-arm", "qemu-system-aarch64-core", "virt", "ttyAMA0"},
}

// findPrograms finds QEMU and qemu-img. Its error is a [*MissingProgramError].
func findPrograms(look func(string) (string, error)) (programs, error) {
	p, ok := platforms[runtime.GOARCH]
	if !ok {
		return programs{}, fmt.Errorf("virtual machines of this architecture (%s) are not supported", runtime.GOARCH)
	}
	qemu, err := look(p.qemu)
	if err != nil {
		// Where Red Hat Enterprise Linux has it.
		const hidden = "/usr/libexec/qemu-kvm"
		var hiddenErr error
		if qemu, hiddenErr = look(hidden); hiddenErr != nil {
			return programs{}, &MissingProgramError{p.qemu, p.debian, p.fedora, err}
		}
	}
	img, err := look("qemu-img")
	if err != nil {
		return programs{}, &MissingProgramError{"qemu-img", "qemu-utils", "qemu-img", err}
	}
	return programs{qemu: qemu, img: img}, nil
}

// handles numbers the files that a program inherits.
type handles struct{ files []*os.File }

// fd returns the descriptor of a file in the program.
func (h *handles) fd(f *os.File) int {
	const first = 3 // os/exec
	for n, known := range h.files {
		if known == f {
			return first + n
		}
	}
	h.files = append(h.files, f)
	return first + len(h.files) - 1
}

// path returns a name by which the program can open a file again.
func (h *handles) path(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", h.fd(f)) }

// image runs qemu-img and waits for it.
func (p programs) image(ctx context.Context, h *handles, args ...string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	said := hostprog.NewTail(4 << 10)
	cmd := hostprog.Command(h.files, p.img, args...)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting qemu-img: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !stop() && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("running %s: %w: %s", shellWords(append([]string{"qemu-img"}, args...)), err, said)
	}
	return nil
}
