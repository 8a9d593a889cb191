package tests

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"installer/install/verify"
)

// initialSIDs are the kernel's initial security identifiers, in the order in which it numbers them
// (security/selinux/include/initial_sid_to_string.h).
const initialSIDs = "kernel security unlabeled fs file file_labels init any_socket port netif netmsg node igmp_packet " +
	"icmp_socket tcp_socket sysctl_modprobe sysctl sysctl_fs sysctl_kernel sysctl_net sysctl_net_unix sysctl_vm sysctl_dev " +
	"kmod policy scmp_packet devnull"

// allowAll is an SELinux policy in CIL: every process is a process_t, every file a file_t, and a
// process may do everything to both. Classes that it does not have are allowed.
func allowAll() string {
	classes := map[string]string{
		"file":       "ioctl read write create getattr setattr lock relabelfrom relabelto append map unlink link rename execute entrypoint open mounton",
		"dir":        "ioctl read write create getattr setattr lock relabelfrom relabelto append map unlink link rename execute add_name remove_name reparent search rmdir open mounton",
		"lnk_file":   "ioctl read write create getattr setattr lock relabelfrom relabelto append map unlink link rename execute",
		"filesystem": "mount remount unmount getattr relabelfrom relabelto associate",
		"process":    "fork transition dyntransition sigchld",
	}
	var b strings.Builder
	b.WriteString("(handleunknown allow)(mls true)(policycap open_perms)(sensitivity s0)(sensitivityorder (s0))(category c0)(categoryorder (c0))(sensitivitycategory s0 (c0))\n" +
		"(user system_u)(role object_r)(role system_r)(type process_t)(type file_t)(userrole system_u object_r)(userrole system_u system_r)\n" +
		"(roletype system_r process_t)(roletype object_r process_t)(roletype object_r file_t)(roletype system_r file_t)(userlevel system_u (s0))(userrange system_u ((s0)(s0 (c0))))\n" +
		"(context processes (system_u system_r process_t ((s0)(s0))))(context files (system_u object_r file_t ((s0)(s0))))\n")
	var names []string
	for name, permissions := range classes {
		names = append(names, name)
		fmt.Fprintf(&b, "(class %s (%s))(allow process_t file_t (%s (all)))(allow process_t process_t (%[1]s (all)))(allow file_t file_t (%[1]s (all)))\n", name, permissions, name)
	}
	slices.Sort(names)
	fmt.Fprintf(&b, "(classorder (%s))(sidorder (%s))\n", strings.Join(names, " "), initialSIDs)
	for _, sid := range strings.Fields(initialSIDs) {
		context := "files"
		if sid == "kernel" || sid == "init" {
			context = "processes"
		}
		fmt.Fprintf(&b, "(sid %s)(sidcontext %[1]s %s)\n", sid, context)
	}
	for _, fs := range []string{"xfs", "ext4", "btrfs"} {
		fmt.Fprintf(&b, "(fsuse xattr %s files)\n", fs)
	}
	b.WriteString("(fsuse trans tmpfs files)(fsuse trans devtmpfs files)\n")
	for _, fs := range []string{"proc", "sysfs", "erofs", "rootfs", "selinuxfs"} {
		fmt.Fprintf(&b, "(genfscon %s \"/\" files)\n", fs)
	}
	return b.String()
}

// selinuxPolicy compiles allowAll.
func selinuxPolicy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "policy.cil"), filepath.Join(dir, "policy")
	must(t, os.WriteFile(source, []byte(allowAll()), 0o600))
	const version = "33" // the latest that Linux 6.1 reads
	mustCommand(t, "secilc", "-c", version, "-o", binary, "-f", filepath.Join(dir, "contexts"), source)
	return binary
}

// shapesImage is the small image with a policy, and a file of each shape that an object can have.
func shapesImage(t *testing.T) string {
	t.Helper()
	return Variant(t, labelledImage(t), func(w *tar.Writer) error {
		for _, h := range []*tar.Header{
			{Name: "usr/bin/", Typeflag: tar.TypeDir, Mode: 0o755},
			{Name: "usr/bin/capable", Mode: 0o755, PAXRecords: map[string]string{
				"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			}},
			{Name: "usr/bin/attributes", Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.kind": "test"}},
			{Name: "usr/bin/hard-link", Typeflag: tar.TypeLink, Linkname: "usr/bin/attributes"},
			{Name: "usr/bin/link", Typeflag: tar.TypeSymlink, Linkname: "capable"},
		} {
			if err := w.WriteHeader(h); err != nil {
				return err
			}
		}
		return nil
	})
}

// On a machine that labels every file with SELinux, the installed system has the labels of its own
// policy, which that machine does not know, or none at all; and is whole for the ostree and the
// verify of another one.
func TestInstallWithSELinuxLoaded(t *testing.T) {
	dir := t.TempDir()
	plain, labelled, root := filepath.Join(dir, "plain.raw"), filepath.Join(dir, "labelled.raw"), filepath.Join(dir, "root.raw")
	for _, file := range []string{plain, labelled, root} {
		must(t, os.WriteFile(file, nil, 0o600))
		must(t, os.Truncate(file, tinySize))
	}
	g := Guest{
		Image: shapesImage(t), Disks: map[string]string{"plain": plain, "labelled": labelled, "root": root}, Policy: selinuxPolicy(t),
		Enforce: os.Getenv("INSTALLER_SELINUX_ENFORCE") != "",
		Script: `
			grep -q selinuxfs /proc/filesystems; cat /sys/fs/selinux/enforce /proc/self/attr/current; echo
			touch /tmp/labelled; stat -c "label %C" /tmp/labelled
			install="--progress plain --source-imgref oci:/run/image:latest --bootloader none"
			installer to-disk $install --disable-selinux /dev/disk-plain
			installer to-disk $install /dev/disk-labelled
			mkfs.ext4 -q /dev/disk-root; mkdir /run/target; mount /dev/disk-root /run/target
			installer to-filesystem $install --disable-selinux /run/target && echo installed || echo "refused by $?"
			installer to-filesystem $install /run/target && echo "installed with labels"
			umount /run/target`,
	}
	run, result := g.Prepare(t)
	wait := aside(t, run)
	t.Parallel()
	wait()
	r := result().Must(t)
	if !strings.Contains(r.Stdout, "label system_u:object_r:file_t:s0") {
		t.Errorf("the guest does not label files:\n%s", r.Stdout)
	}
	checkSysroot(t, "disk without labels", func(script string) string { return onRoot(t, plain, os.O_RDONLY, script) }, false)
	checkSysroot(t, "disk with labels", func(script string) string { return onRoot(t, labelled, os.O_RDONLY, script) }, true)
	checkSysroot(t, "file system", func(script string) string {
		return mustCommand(t, "unshare", "--mount", "--propagation", "private", "sh", "-euc",
			"mount -o ro,loop,noload "+root+" \"$1\"\n"+script+"\numount \"$1\"", "sh", t.TempDir())
	}, true)
	for _, whole := range []string{plain, labelled} {
		report, _ := verified(t, whole)
		for _, f := range report.Findings {
			if (f.Severity == verify.Error || f.Check == "labels") && !strings.HasPrefix(f.Check, "esp-") { // it has no boot loader
				t.Errorf("verify finds %d faults, one of them %s", report.Errors(), f)
				break
			}
		}
	}
	if !strings.Contains(r.Stdout, "refused by 4") || !strings.Contains(r.Stdout, "installed with labels") || strings.Contains(r.Stdout, "installed\n") {
		t.Errorf("to-filesystem did not refuse what it should, or did not install:\n%s", r.Stdout)
	}
}

// checkSysroot has ostree check a repository, and looks at the labels of all files; run runs a script
// with the root at $1.
func checkSysroot(t *testing.T, name string, run func(script string) string, labelled bool) {
	t.Helper()
	if out := run(`ostree fsck --repo="$1/ostree/repo" 2>&1 | tail -n 3`); !strings.Contains(out, "no errors found") {
		t.Errorf("%s: ostree fsck:\n%s", name, out)
	}
	files := readLabels(t, run(listLabels))
	if labelled {
		checkLabels(t, files)
		return
	}
	for at, f := range files {
		if f.label != "" {
			t.Fatalf("%s: %s has the label %s", name, at, f.label)
		}
	}
}
