package tests

import (
	"path/filepath"
	"strings"
	"testing"
)

// An installed disk boots, by both kinds of firmware and both boot loaders, on every file system,
// and reports that nothing was amiss. The disks are those that TestDiskOnHost judges.
//
// A boot takes a minute or more in emulation, mostly of one core: the machines run aside.
func TestBoot(t *testing.T) {
	cases := []struct {
		setup
		firmware Firmware
	}{
		{setup{"ext4", "grub", "report"}, BIOS},
		{setup{"btrfs", "systemd", "report"}, UEFI},
	}
	var ends []func(*testing.T) []*Evidence
	for _, c := range cases {
		ends = append(ends, bootAside(t, BootOptions{Disk: Installed(t, c.setup).raw, Firmware: c.firmware}))
	}
	t.Parallel()
	for i, c := range cases {
		t.Run(c.filesystem+" "+c.bootloader+" "+string(c.firmware), func(t *testing.T) {
			e := ends[i](t)[0]
			bootedInto(t, e, Installed(t, c.setup))
			bootedBy(t, e, c.firmware)
		})
	}
}

// A deployment that ostree itself makes on the running host boots next, by a loader whose
// configuration nobody has touched.
func TestBootLaterDeployment(t *testing.T) {
	d := Installed(t, setup{"xfs", "grub", "deploy"})
	disk := filepath.Join(t.TempDir(), "disk.qcow2")
	must(t, Overlay(t.Context(), d.raw, "raw", disk))
	options := BootOptions{Disk: disk, Format: "qcow2", Firmware: UEFI, Writable: true}
	end := bootAside(t, options, options)
	t.Parallel()
	boots := end(t)
	first, second := boots[0], boots[1]
	bootedInto(t, first, d)
	bootedBy(t, first, UEFI)
	if deploy := first.Sections["deploy"]; deploy.Status != 0 || strings.Count(deploy.Text(), d.report.Deployment.Commit+".") != 2 {
		t.Fatalf("ostree admin deploy: status %d, %s", deploy.Status, deploy.Text())
	}
	if !strings.Contains(second.Cmdline, "installer.selftest=again") || !strings.Contains(bootedStatus(second), d.report.Deployment.Commit+".1") {
		t.Errorf("the second boot is of %q, by %q", bootedStatus(second), second.Cmdline)
	}
	// The repository as ostree left it in the guest is judged here, many times as fast as in
	// emulation.
	raw := filepath.Join(t.TempDir(), "disk.raw")
	mustCommand(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, raw)
	FsckAll(t, raw, d.filesystem)
	OstreeChecks(t, MountRootReadOnly(t, raw))
}

// bootAside boots once for each of options, one after another, aside. The function that is returned
// waits for the boots, and fails a test for everything that is not as it must be.
func bootAside(t *testing.T, options ...BootOptions) func(*testing.T) []*Evidence {
	t.Helper()
	var boots []*Evidence
	var err error
	ctx := t.Context()
	wait := aside(t, func() {
		for _, o := range options {
			var e *Evidence
			if e, err = Boot(ctx, o); err != nil {
				return
			}
			boots = append(boots, e)
		}
	})
	return func(t *testing.T) []*Evidence {
		t.Helper()
		wait()
		must(t, err)
		for _, e := range boots {
			for _, problem := range e.Problems() {
				t.Error(problem)
			}
			t.Logf("\n%s", e)
		}
		return boots
	}
}

// bootedInto wants the installed deployment, with the kernel arguments that were asked for.
func bootedInto(t *testing.T, e *Evidence, d *installed) {
	t.Helper()
	if !strings.Contains(bootedStatus(e), d.report.Deployment.Commit+".0") {
		t.Errorf("booted %q, not %s.0", bootedStatus(e), d.report.Deployment.Commit)
	}
	for _, arg := range d.report.Deployment.Kargs {
		if !strings.Contains(" "+e.Cmdline+" ", " "+arg+" ") {
			t.Errorf("the kernel was started with %q, without %s", e.Cmdline, arg)
		}
	}
}

// bootedStatus is the line of ostree admin status with the star.
func bootedStatus(e *Evidence) string {
	for _, line := range e.Status {
		if strings.HasPrefix(line, "* ") {
			return line
		}
	}
	return ""
}

// bootedBy wants the kernel to have found the firmware that was meant.
func bootedBy(t *testing.T, e *Evidence, f Firmware) {
	t.Helper()
	if efi := strings.Contains(e.Console, "efi: EFI v"); efi != (f == UEFI) {
		t.Errorf("the kernel found EFI: %v, with firmware %s", efi, f)
	}
}
