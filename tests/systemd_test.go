package tests

import (
	"os"
	"path/filepath"
	"testing"
)

// On a machine with systemd, whose services have mount namespaces with copies of every mount, a disk is installed and
// released, and a mount that nobody uses has no holder: a mount that goes with an unmount does not hold it.
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
			for p in /proc/[0-9]*; do [ "$(readlink $p/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ] || cat $p/comm || :; done
			installer to-disk --progress plain --source-imgref oci:/run/image:latest --bootloader none /dev/disk-whole
			mkfs.ext4 -q /dev/disk-root; mkdir /run/target; mount /dev/disk-root /run/target
			echo holders; installer holders /run/target && echo "holders: $?" || echo "holders: $?"
			installer to-filesystem --progress plain --source-imgref oci:/run/image:latest --bootloader none /run/target
			echo finalize; installer finalize /run/target && echo "finalize: $?" || echo "finalize: $?"
			! grep /run/target /proc/*/mountinfo
			lsblk`,
	}
	run, result := g.Prepare(t)
	run()
	t.Log(result().Must(t).Stdout)
}
