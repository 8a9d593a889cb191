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
	mustCommand(t, "secilc", "-o", binary, "-f", filepath.Join(dir, "contexts"), source)
	return binary
}

// shapesImage is the small image with a file of each shape that an object can have.
func shapesImage(t *testing.T) string {
	t.Helper()
	return Variant(t, TinyImage(t), func(w *tar.Writer) error {
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

// On a machine that labels every file with SELinux, the installed system is whole for the ostree
// and the verify of one that does not.
func TestInstallWithSELinuxLoaded(t *testing.T) {
	dir := t.TempDir()
	whole, root := filepath.Join(dir, "whole.raw"), filepath.Join(dir, "root.raw")
	for _, file := range []string{whole, root} {
		must(t, os.WriteFile(file, nil, 0o600))
		must(t, os.Truncate(file, tinySize))
	}
	g := Guest{
		Image: shapesImage(t), Disks: map[string]string{"whole": whole, "root": root}, Policy: selinuxPolicy(t),
		Enforce: os.Getenv("INSTALLER_SELINUX_ENFORCE") != "",
		Script: `
			grep -q selinuxfs /proc/filesystems; cat /sys/fs/selinux/enforce /proc/self/attr/current; echo
			touch /tmp/labelled; stat -c "label %C" /tmp/labelled
			installer to-disk --progress plain --source-imgref oci:/run/image:latest --bootloader none /dev/disk-whole
			mkfs.ext4 -q /dev/disk-root; mkdir /run/target; mount /dev/disk-root /run/target
			installer to-filesystem --progress plain --source-imgref oci:/run/image:latest --bootloader none /run/target && echo installed || echo "refused by $?"
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
	checkSysroot(t, "whole disk", func(script string) string { return onRoot(t, whole, os.O_RDONLY, script) })
	report, _ := verified(t, whole)
	for _, f := range report.Findings {
		if f.Severity == verify.Error && !strings.HasPrefix(f.Check, "esp-") { // it has no boot loader
			t.Errorf("verify finds %d faults, one of them %s", report.Errors(), f)
			break
		}
	}
	if strings.Contains(r.Stdout, "\ninstalled\n") {
		checkSysroot(t, "file system", func(script string) string {
			return mustCommand(t, "unshare", "--mount", "--propagation", "private", "sh", "-euc",
				"mount -o ro,loop,noload "+root+" \"$1\"\n"+script+"\numount \"$1\"", "sh", t.TempDir())
		})
	} else if !strings.Contains(r.Stdout, "refused by 4") || !strings.Contains(r.Stdout, "SELinux") {
		t.Errorf("to-filesystem neither installed nor refused the file system for its labels:\n%s", r.Stdout)
	}
}

// checkSysroot has ostree check a repository; run runs a script with the root at $1.
func checkSysroot(t *testing.T, name string, run func(script string) string) {
	t.Helper()
	out := run(`ostree fsck --repo="$1/ostree/repo" 2>&1 | tail -n 3
		find "$1" -xdev -exec getfattr -h -m security.selinux {} + 2>/dev/null | grep -c security.selinux || true`)
	if !strings.Contains(out, "no errors found") || !strings.HasSuffix(strings.TrimSpace(out), "\n0") {
		t.Errorf("%s: ostree fsck, and the number of labelled files:\n%s", name, out)
	}
}
