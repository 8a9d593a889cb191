package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// selinuxDisk returns a disk with the image that has an SELinux policy and a root on composefs,
// installed once a run. The tests must not change it.
func selinuxDisk(t *testing.T) (raw string, report runReport) {
	t.Helper()
	selinuxDisks.Lock()
	defer selinuxDisks.Unlock()
	raw, file := filepath.Join(runDir, "disk-selinux.raw"), filepath.Join(runDir, "disk-selinux.json")
	if !selinuxDisks.made {
		makeRaw(t, raw, diskSize)
		defer func() {
			if !selinuxDisks.made { // the next test that wants the disk tries again
				_ = os.Remove(raw)
			}
		}()
		installSELinux(t, cachedImage(t, selinuxImage), raw, file)
		selinuxDisks.made = true
	}
	return raw, readReport(t, file)
}

// installSELinux installs an image with an SELinux policy on a disk that reports its boot.
func installSELinux(t *testing.T, ref, raw, report string) {
	t.Helper()
	Run(t, "to-disk", "--via-loopback", "--generic-image", "--source-imgref", ref, "--filesystem", "ext4",
		"--bootloader", "grub", "--karg", "console=ttyS0,115200n8", "--karg", "installer.selftest=brief",
		"--karg", "sysctl.kernel.printk_ratelimit=0", "--karg", "mitigations=off", "--karg", "rcupdate.rcu_expedited=1", "--report", report, raw).Must(t)
}

var selinuxDisks struct {
	sync.Mutex
	made bool
}

// onDeployment runs a script in the deployment of a disk, by the programs of the deployment: $target is
// the root of the disk, $deploy the deployment, $repo the repository. The disk is changed.
func onDeployment(t *testing.T, raw, script string) string {
	t.Helper()
	return onRoot(t, raw, os.O_RDWR, `unshare --mount --propagation private sh -euc '
		cd "$1"/ostree/deploy/default/deploy/*.0
		mount -t tmpfs tmpfs run
		mount -t proc proc proc
		mount --bind /dev dev
		mkdir run/target
		mount --bind "$1" run/target
		export target=/run/target repo=/run/target/ostree/repo deploy=/run/target/ostree/deploy/default/deploy/"${PWD##*/}"
		exec chroot . /bin/sh -euc "$2"' sh "$1" "$2" 2>&1`, script)
}

// The commit of an image with a policy is the commit that ostree makes of the same tree, labels included; the
// composefs image of its deployment is the one that ostree writes for the commit; and setfiles finds no label
// that the policy does not give.
func TestSELinuxDisk(t *testing.T) {
	raw, report := selinuxDisk(t)
	wantSound(t, raw)
	disk := filepath.Join(t.TempDir(), "disk.raw")
	mustCommand(t, "cp", "--sparse=always", raw, disk)
	out := onDeployment(t, disk, `
		commit=`+report.Deployment.Commit+`
		contexts=$deploy/etc/selinux/default/contexts/files/file_contexts
		setfiles -n -v -F -r "$deploy" "$contexts" "$deploy"
		setfiles -n -v -F -r "$target/ostree/deploy/default" "$contexts" "$target/ostree/deploy/default/var"
		setfiles -n -v -F -e "$repo/objects" -e "$deploy" -e "$target/ostree/deploy/default/var" -r "$target" "$contexts" "$target"
		before=$(find "$repo/objects" -type f | wc -l)
		(cd "$deploy"; find . -maxdepth 1 -name etc -o -maxdepth 1 -name .ostree.cfs) | sed s/.// >/run/skip
		ostree commit --repo="$repo" --branch=oracle --selinux-policy="$deploy" --skip-list=/run/skip --tree=dir="$deploy" >/dev/null
		for c in $commit oracle; do ostree show --repo="$repo" $c | sed -n "s/^ContentChecksum: */content /p"; done
		echo "new objects $(($(find "$repo/objects" -type f | wc -l) - before))"
		ostree admin deploy --sysroot="$target" --stateroot=default --no-merge $commit >/dev/null
		cmp "$deploy/.ostree.cfs" "${deploy%.0}.1/.ostree.cfs" && echo "composefs equal"
		composefs-info dump "$deploy/.ostree.cfs" >/run/dump
		mkcomposefs --from-file /run/dump /run/cfs
		cmp "$deploy/.ostree.cfs" /run/cfs && echo "dump equal"
		echo "measured $(composefs-info measure-file "$deploy/.ostree.cfs") $(fsverity digest --compact "$deploy/.ostree.cfs")"
		ostree fsck --repo="$repo" | tail -n 1`)
	content := regexp.MustCompile(`(?m)^content ([0-9a-f]{64})$`).FindAllStringSubmatch(out, -1)
	if len(content) != 2 || content[0][1] != content[1][1] {
		t.Errorf("the contents of our commit and of ostree's: %q", content)
	}
	for _, want := range []string{"\nnew objects 1\n", "\ncomposefs equal\n", "\ndump equal\n", "no errors found",
		"\nmeasured " + report.Deployment.Composefs + " " + report.Deployment.Composefs + "\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no line %q", want)
		}
	}
	for _, line := range relabelled(out, otherwise) {
		t.Error(line)
	}
	if t.Failed() {
		t.Logf("\n%s", out)
	}
}

// otherwise are changes that setfiles would make where ostree and bootc label by other rules than the path.
var otherwise = []*regexp.Regexp{
	regexp.MustCompile(`/deploy/[0-9a-f]{64}\.0/proc from system_u:object_r:mnt_t:s0 `),               // ostree looks /proc up as /mnt
	regexp.MustCompile(`/deploy/[0-9a-f]{64}\.0/\.ostree\.cfs from system_u:object_r:usr_t:s0 `),      // bootc labels it as a file of /usr
	regexp.MustCompile(`^/run/target/ostree\S* from system_u:object_r:usr_t:s0 to \S+:default_t:s0$`), // the folders around deployments, too
	regexp.MustCompile(`/root-transient/upper from system_u:object_r:root_t:s0 `),                     // a root directory
	regexp.MustCompile(`^/run/target/boot/ostree/\S+ from system_u:object_r:modules_object_t:s0 `),    // kernel and initramfs are links to objects
}

// relabelled returns the lines of restorecon and setfiles, but for the changes in ignore.
func relabelled(out string, ignore []*regexp.Regexp) (lines []string) {
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		change, ok := strings.CutPrefix(line, "Would relabel ")
		if ok && !slices.ContainsFunc(ignore, func(r *regexp.Regexp) bool { return r.MatchString(change) }) {
			lines = append(lines, line)
		}
	}
	return lines
}
