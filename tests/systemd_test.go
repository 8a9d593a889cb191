package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// On a machine with systemd, whose services have mount namespaces with copies of every mount, a
// disk is installed and released, and a mount that nobody uses is free. Copies that go with an
// unmount do not hold it, also those that mountinfo does not show: a service whose root was moved
// has them below its old one.
func TestInstallBesideUdevAndLogind(t *testing.T) {
	dir := t.TempDir()
	whole, root := filepath.Join(dir, "whole.raw"), filepath.Join(dir, "root.raw")
	for _, file := range []string{whole, root} {
		must(t, os.WriteFile(file, nil, 0o600))
		must(t, os.Truncate(file, tinySize))
	}
	g := Guest{
		Image: TinyImage(t), Disks: map[string]string{"whole": whole, "root": root}, Systemd: true,
		Script: `
			systemctl is-active systemd-udevd systemd-logind
			installer to-disk --progress plain --source-imgref oci:/run/image:latest --bootloader none /dev/disk-whole
			mkfs.ext4 -q /dev/disk-root; mkdir /run/target; mount /dev/disk-root /run/target
			grep -c ' /run/target ' /proc/$(pgrep -xo systemd-udevd)/mountinfo
			status=0; installer holders /run/target || status=$?; echo "holders: $status"
			installer to-filesystem --progress plain --source-imgref oci:/run/image:latest --bootloader none /run/target
			installer finalize /run/target
			! grep ' /run/target ' /proc/[0-9]*/mountinfo; echo "mounted nowhere"`,
	}
	run, result := g.Prepare(t)
	wait := aside(t, run)
	t.Parallel()
	wait()
	r := result().Must(t)
	for _, want := range []string{
		"active\nactive\n", "Installation complete: /dev/vd", "\n1\n/run/target: free\n", "\nholders: 0\n", "Installation complete: /run/target",
		"\nreleased: /run/target", "\nmounted nowhere",
	} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("the output has no %q", want)
		}
	}
	if t.Failed() {
		t.Log(r.Stdout)
	}
	checkSysroot(t, "whole disk", func(script string) string { return onRoot(t, whole, os.O_RDONLY, script) }, false)
}
