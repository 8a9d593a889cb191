package tests

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"installer/install/verify"
)

// TestVerifyBootFilesystem verifies a system that to-filesystem makes: /boot on a file system of
// its own, and GRUB for BIOS alone. Then it damages the content of /boot, a bit or a file at a
// time.
func TestVerifyBootFilesystem(t *testing.T) {
	LoopSnapshot(t)
	m := mountOwn(t, diskSize, "xfs", "ext4")
	Run(t, "to-filesystem", "--source-imgref", CacheImage(t), "--generic-image", m.root).Must(t)
	m.unmount()
	wantAccepted(t, m.raw)

	kernel := physicalOn(t, m.raw, typeLinux, "ostree/*/vmlinuz-*") + 1<<20
	config := physicalOn(t, m.raw, typeLinux, "grub/grub.cfg") + 10
	flip(t, m.raw, kernel)
	flip(t, m.raw, config)
	report, code := verified(t, m.raw)
	wantNamed(t, report, code, named{"kernel", "/boot/ostree/default-", "differs from /ostree/deploy/"}, named{"boot-loader", "/boot/grub/grub.cfg", "differs from the one"})
	flip(t, m.raw, kernel)
	flip(t, m.raw, config)

	onPartition(t, m.raw, typeLinux, os.O_RDWR, `rm "$1"/loader/entries/ostree-1.conf "$1"/grub/grub.cfg`)
	report, code = verified(t, m.raw)
	wantNamed(t, report, code, named{"boot-entries", "/boot/loader.1/entries", "no boot entry"},
		named{"boot-configuration", "/boot/grub/grub.cfg", "has no configuration"},
		named{"boot-links", "/ostree/deploy/default/deploy/", "no boot entry leads to"})
	verifyTypedBoot(t, m.raw)
}

// verifyTypedBoot has an ordinary user look, who cannot mount /boot and goes by its type.
func verifyTypedBoot(t *testing.T, raw string) {
	t.Helper()
	bin := readableBy(t, nobody, raw)
	report, code := asNobody(t, bin, "verify", "--json", raw)
	if code != 1 || report.Outcome != verify.Incomplete || len(report.Findings) > 0 {
		t.Errorf("/boot of an unknown type: exit status %d, %s, %v", code, report.Outcome, report.Findings)
	}
	mustCommand(t, "sfdisk", "--quiet", "--part-type", raw, "2", "bc13c2ff-59e6-4262-a352-b275fd6f7172")
	report, code = asNobody(t, bin, "verify", "--json", "--partial", raw)
	if i := slices.IndexFunc(report.Checks, func(c verify.Check) bool { return c.Name == "boot-super-block" }); code != 0 || report.Checks[i].Status != verify.Passed {
		t.Errorf("exit status %d, %+v, %v", code, report.Checks, report.Findings)
	}
	p, err := Partitions(t.Context(), raw)
	must(t, err)
	flip(t, raw, p[1].Start+1024+0x78)
	report, code = asNobody(t, bin, "verify", "--json", raw)
	wantNamed(t, report, code, named{"boot-super-block", "partition 2", "checksum"})
}

// wantAccepted fails the test unless everything was checked and is well. The system's fstab is
// changed, for /boot.
func wantAccepted(t *testing.T, disk string) {
	t.Helper()
	report, code := verified(t, disk)
	if code != 0 || report.Outcome != verify.Sound {
		t.Errorf("exit status %d, %s", code, report.Outcome)
	}
	status := map[string]verify.Status{}
	for _, c := range report.Checks {
		status[c.Name] = c.Status
	}
	for _, f := range report.Findings {
		if f.Severity != verify.Note || f.Check != "etc" || filepath.Base(f.Where) != "fstab" {
			t.Errorf("found: %s: %s", f.Check, f)
		}
	}
	for _, name := range []string{"layout", "bios-boot", "boot-super-block", "boot-configuration", "kernel", "boot-loader"} {
		if status[name] != verify.Passed {
			t.Errorf("%s: %s", name, status[name])
		}
	}
	if absent := []string{"esp-file-system", "esp-boot-files"}; slices.ContainsFunc(absent, func(name string) bool { return status[name] != verify.NotApplicable }) {
		t.Errorf("without an EFI system partition: %v", status)
	}
}
