package tests

import (
	"path/filepath"
	"strings"
	"testing"
)

// What is installed boots, by both kinds of firmware and both boot loaders, on every file system, and
// reports that nothing was amiss. The disks are those that TestDiskOnHost judges.
//
// The boots run beside each other: each takes a minute or more in emulation, mostly of one core.
func TestBoot(t *testing.T) {
	cases := []struct {
		setup
		firmware Firmware
	}{
		{setup{"ext4", "grub", "report"}, BIOS},
		{setup{"btrfs", "systemd", "report"}, UEFI},
	}
	for _, c := range cases {
		Installed(t, c.setup)
	}
	t.Parallel()
	for _, c := range cases {
		d := Installed(t, c.setup)
		t.Run(c.filesystem+" "+c.bootloader+" "+string(c.firmware), func(t *testing.T) {
			t.Parallel()
			e := boot(t, BootOptions{Disk: d.raw, Firmware: c.firmware})
			bootedInto(t, e, d)
			bootedBy(t, e, c.firmware)
		})
	}
}

// A deployment that ostree itself makes on the running host boots next, by a loader whose configuration
// nobody has touched.
func TestBootLaterDeployment(t *testing.T) {
	d := Installed(t, setup{"xfs", "grub", "deploy"})
	t.Parallel()
	disk := filepath.Join(t.TempDir(), "disk.qcow2")
	must(t, Overlay(t.Context(), d.raw, "raw", disk))
	options := BootOptions{Disk: disk, Format: "qcow2", Firmware: UEFI, Writable: true}
	first := boot(t, options)
	bootedInto(t, first, d)
	bootedBy(t, first, UEFI)
	if deploy := first.Sections["deploy"]; deploy.Status != 0 || strings.Count(deploy.Text(), d.report.Deployment.Commit+".") != 2 {
		t.Fatalf("ostree admin deploy: status %d, %s", deploy.Status, deploy.Text())
	}
	second := boot(t, options)
	if !strings.Contains(second.Cmdline, "installer.selftest=again") || !strings.Contains(bootedStatus(second), d.report.Deployment.Commit+".1") {
		t.Errorf("the second boot is of %q, by %q", bootedStatus(second), second.Cmdline)
	}
}

// boot boots a disk and fails the test for everything that is not as it must be.
func boot(t *testing.T, o BootOptions) *Evidence {
	t.Helper()
	e, err := Boot(t.Context(), o)
	must(t, err)
	for _, problem := range e.Problems() {
		t.Error(problem)
	}
	t.Logf("\n%s", e)
	return e
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
