package tests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"installer/install/verify"
	"installer/tests/kit"
)

// An image that asks for composefs is installed with the image by which its initramfs mounts the
// root, and nothing turns composefs off; its settings are those of the repository.
func TestComposefsDeployment(t *testing.T) {
	ref := configured(t, map[string]string{"usr/lib/ostree/prepare-root.conf": "[composefs]\nenabled = yes\n[sysroot]\nreadonly = false\n"})
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	report := filepath.Join(t.TempDir(), "report.json")
	Run(t, installArgs(ref, raw, "--report", report)...).Must(t)
	var r struct {
		Notes      []string
		Deployment struct {
			Path, Composefs string
			Kargs           []string
		}
	}
	data, err := os.ReadFile(report)
	must(t, err)
	must(t, json.Unmarshal(data, &r))
	if text := strings.Join(append(r.Notes, r.Deployment.Kargs...), "\n"); strings.Contains(text, "composefs") {
		t.Errorf("composefs is spoken of:\n%s", text)
	}
	var checked struct {
		Checks []struct{ Name, Status, Detail string }
	}
	must(t, json.Unmarshal([]byte(Run(t, "verify", "--json", raw).Stdout), &checked))
	seen := false // of a disk without a boot loader, which has faults
	for _, c := range checked.Checks {
		seen = seen || c.Name == "composefs" && c.Status == "passed" && strings.Contains(c.Detail, r.Deployment.Composefs)
	}
	if !seen {
		t.Errorf("the checks are %+v", checked.Checks)
	}
	root := MountRootReadOnly(t, raw)
	image := filepath.Join(root, r.Deployment.Path, ".ostree.cfs")
	if got := strings.TrimSpace(kit.Oracle(t, "composefs-info", "measure-file", image)); got != r.Deployment.Composefs {
		t.Errorf("the digest is %s, the report has %q", got, r.Deployment.Composefs)
	}
	for _, name := range strings.Fields(kit.Oracle(t, "composefs-info", "objects", image)) {
		if _, err := os.Stat(filepath.Join(root, "ostree/repo/objects", name)); err != nil {
			t.Error(err)
		}
	}
	if config, err := os.ReadFile(filepath.Join(root, "ostree/repo/config")); err != nil || !strings.Contains(string(config), "readonly=false") {
		t.Errorf("the repository's configuration: %s, %v", config, err)
	}
}

// Where an image demands it, every object and the composefs image have fs-verity: with the digests
// of the fsverity program, in an image that is equal to that of libostree's own deployment of the
// commit, which measures the files, too. Debian's kernel has fs-verity; this machine's may not.
func TestVerityDeployment(t *testing.T) {
	dir := t.TempDir()
	disks := map[string]string{"ext4": filepath.Join(dir, "ext4"), "btrfs": filepath.Join(dir, "btrfs"), "peer": filepath.Join(dir, "peer")}
	for _, file := range disks {
		makeRaw(t, file, tinySize)
	}
	disks["oracle"] = erofsOf(t, kit.OracleTree(t))
	g := Guest{
		Timeout: 10 * time.Minute,
		Image: configured(t, map[string]string{
			"usr/lib/ostree/prepare-root.conf": "[composefs]\nenabled = verity\n", "usr/share/large": strings.Repeat("0123456789abcdef\n", 200_000),
		}), Disks: disks,
		Script: `
			tree=/run/oracle libraries=/run/oracle/usr/lib/x86_64-linux-gnu
			mkdir $tree /run/root /run/peer
			mount -o ro /dev/disk-oracle $tree
			oracle() { program=$1; shift; $libraries/ld-linux-x86-64.so.2 --library-path $libraries $tree/usr/bin/$program "$@"; }
			for fs in ext4 btrfs; do
				installer to-disk --progress plain --source-imgref oci:/run/image:latest --bootloader none --filesystem $fs /dev/disk-$fs
				installer verify /dev/disk-$fs || true
				mount -o ro $(readlink -f /dev/disk-$fs)3 /run/root
				cd /run/root
				objects=$(find ostree/repo/objects -type f)
				image=$(echo ostree/deploy/default/deploy/*.0/.ostree.cfs)
				oracle fsverity measure $objects $image ostree/repo/config >/run/measured
				oracle fsverity digest $objects $image ostree/repo/config >/run/computed
				cmp /run/measured /run/computed
				echo "$fs: measured $(wc -l </run/measured) of $(echo $objects | wc -w) objects"
				if [ $fs = btrfs ]; then # what follows is the same on each, and slow in emulation
					cd /; umount /run/root
					continue
				fi
				ostree fsck --repo=ostree/repo
				commit=$(basename $(dirname $image)); commit=${commit%.0}
				ostree show --repo=ostree/repo --print-metadata-key=ostree.composefs.digest.v0 $commit >/run/named
				grep $image /run/measured >/run/of-image
				echo "$fs: named $(sed 's/byte//; s/0x//g' /run/named | tr -dc '0-9a-f') and $(sed 's/^sha256:\([0-9a-f]*\) .*/\1/' /run/of-image)"
				mkfs.ext4 -q -F -b 4096 -O verity /dev/disk-peer
				mount /dev/disk-peer /run/peer
				oracle ostree admin init-fs --modern /run/peer
				oracle ostree admin stateroot-init --sysroot=/run/peer default
				oracle ostree config --repo=/run/peer/ostree/repo set sysroot.bootloader none
				oracle ostree config --repo=/run/peer/ostree/repo set ex-integrity.fsverity yes
				oracle ostree pull-local --repo=/run/peer/ostree/repo ostree/repo $commit
				oracle ostree admin deploy --sysroot=/run/peer --os=default $commit
				cmp $image /run/peer/$image
				oracle fsverity measure /run/peer/$image
				echo "$fs: equal"
				cd /; umount /run/root /run/peer
			done`,
	}
	run, result := g.Prepare(t)
	wait := aside(t, run)
	t.Parallel()
	wait()
	r := result().Must(t)
	for _, pattern := range []string{
		`ext4: measured [1-9][0-9]* of [1-9][0-9]* objects\n`, `btrfs: measured [1-9][0-9]* of [1-9][0-9]* objects\n`,
		`ext4: named ([0-9a-f]{64}) and ([0-9a-f]{64})\n`, `ext4: equal\n`,
	} {
		found := regexp.MustCompile(pattern).FindStringSubmatch(r.Stdout)
		if found == nil || len(found) == 3 && found[1] != found[2] {
			t.Errorf("%q is not in the guest's output:\n%s", pattern, r.Stdout)
		}
	}
	if strings.Count(r.Stdout, "1 composefs image as the commits say") != 2 {
		t.Errorf("verify:\n%s", r.Stdout)
	}
	// This machine's kernel may be unable to read the files, which is no damage of theirs.
	report, _ := verified(t, disks["ext4"])
	for _, f := range report.Findings {
		if f.Severity == verify.Error && !strings.HasPrefix(f.Check, "esp-") { // it has no boot loader
			t.Errorf("verify finds on this machine: %s", f)
		}
	}
}
