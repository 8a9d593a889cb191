package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"installer/install/verify"
)

// section is the outcome of one command in the guest.
type section struct {
	status int
	text   string
}

// sections splits the output of stacks.sh by its headings.
func sections(t *testing.T, output string) map[string]section {
	t.Helper()
	found := map[string]section{}
	headings := regexp.MustCompile(`(?m)^## (\S+) (\d+).*\n`).FindAllStringSubmatchIndex(output, -1)
	for i, h := range headings {
		end := len(output)
		if i+1 < len(headings) {
			end = headings[i+1][0]
		}
		status, err := strconv.Atoi(output[h[4]:h[5]])
		must(t, err)
		found[output[h[2]:h[3]]] = section{status, output[h[1]:end]}
	}
	return found
}

// wanted is a section as it must be: "!" before a text says that it must not be there.
type wanted struct {
	name   string
	status int
	texts  []string
}

// claimed are the refusals of disks below others: every mount and every layer is named, with its
// remedy, and nothing is written.
var claimed = []wanted{
	{"claimed-lvm", 4, []string{"/dev/mapper/my--vg-root: mounted at /run/t/my--vg-root (umount it)",
		"/dev/lvm: physical volume of the active LVM volume group my-vg", "(vgchange -an my-vg)", "sectors written: 0\n", "!mount namespace of process"}},
	{"claimed-luks", 4, []string{"/dev/mapper/deep-home: mounted at /run/t/deep-home", "/dev/mapper/secret: physical volume of the active LVM volume group deep",
		"(vgchange -an deep); /dev/luks1: opened as the encrypted volume /dev/mapper/secret", "(cryptsetup close secret)", "sectors written: 0\n"}},
	{"claimed-raid1", 4, []string{"mounted at /run/t/md0", "/dev/raid1: member of the RAID /dev/md0 (raid1) (mdadm --stop /dev/md0)", "sectors written: 0\n"}},
	{"claimed-cache", 4, []string{"mounted at /run/t/bcache0", "/dev/cache: part of the bcache device /dev/bcache0 (echo 1 > /sys/block/bcache0/bcache/stop)",
		"/dev/cache: cache device of the bcache set ", "(echo 1 > /sys/fs/bcache/"}}, // bcache itself writes to it
	{"claimed-path", 4, []string{"mounted at /run/t/mpatha", "/dev/path: path of the multipath device /dev/mapper/mpatha",
		"(multipath -f mpatha; or install to /dev/mapper/mpatha)", "sectors written: 0\n"}},
	{"claimed-linear", 4, []string{"mounted at /run/t/lin", "/dev/linear: part of the device-mapper device /dev/mapper/lin", "(dmsetup remove lin)", "sectors written: 0\n"}},

	{"holders-lvm", 3, []string{"held by 5 holders (1 mount, 4 block-claim)", "to do: unmount /run/t/my--vg-root", "to do: take it apart: vgchange -an my-vg"}},
	{"holders-luks", 3, []string{"held by 3 holders (1 mount, 2 block-claim)", "to do: unmount /run/t/deep-home\n", "/holders/dm-", "(encrypted volume secret)"}},
	{"holders-cache", 3, []string{"held by 3 holders (1 mount, 2 block-claim)", "to do: take it apart: echo 1 > /sys/block/bcache0/bcache/stop\n", "to do: take it apart: echo 1 > /sys/fs/bcache/"}},
	{"holders-mount", 0, []string{"/run/t/deep-home: free"}},
	{"holders-top", 3, []string{"held by 1 holder (1 mount)", "to do: unmount /run/t/deep-home"}},
}

// released are the outcomes of finalize: it unmounts, and the remedy that it names sets the disks
// free.
var released = []wanted{
	{"finalize-my--vg-root", 1, []string{"(LVM volume my--vg-root) stays, and has /dev/lvm claimed; to take it apart: vgchange -an my-vg\n", "remedy: vgchange -an my-vg\n"}},
	{"finalize-deep-home", 1, []string{"(LVM volume deep-home) stays, and has /dev/luks1 claimed; to take it apart: vgchange -an deep, then cryptsetup close secret\n"}},
	{"finalize-md0", 1, []string{"/dev/md0 (MD RAID) stays, and has /dev/raid", "/dev/raid1", "/dev/raid2", " claimed; to take it apart: mdadm --stop /dev/md0\n"}},
	{"finalize-bcache0", 1, []string{"/dev/bcache0 (bcache device) stays", "echo 1 > /sys/block/bcache0/bcache/stop, then echo 1 > /sys/fs/bcache/"}},
	{"finalize-mpatha", 1, []string{"(multipath device mpatha) stays, and has /dev/path claimed; to take it apart: multipath -f mpatha\n"}},
	{"finalize-lin", 1, []string{"(device-mapper device lin) stays, and has /dev/linear claimed; to take it apart: dmsetup remove lin\n"}},
	{"free-luks", 0, []string{"/dev/disk-luks: free"}},
	{"free-cache", 0, []string{"/dev/disk-cache: free"}},
}

// written are installations on stacked devices, and on former members of stacks.
var written = []wanted{
	{"inactive-lvm", 4, []string{"/dev/lvm is not empty: the disk: LVM physical volume", "--wipe", "sectors written: 0\n"}},
	{"inactive-luks", 4, []string{"the disk: GPT partition table", "partition 1: LUKS encrypted volume", "sectors written: 0\n"}},
	{"inactive-raid1", 4, []string{"the disk: Linux RAID member", "sectors written: 0\n"}},
	{"inactive-back", 4, []string{"the disk: bcache or bcachefs device", "sectors written: 0\n"}},
	{"install-my--vg-root", 0, []string{"LVM volume my--vg-root, 900.0 MiB", "Installation complete: /dev/mapper/my--vg-root",
		"stays, and has /dev/lvm claimed; to take it apart: vgchange -an my-vg"}},
	{"install-md0", 0, []string{"Installation complete: /dev/md0", "stays, and has /dev/raid", "/dev/raid1", "/dev/raid2", " claimed; to take it apart: mdadm --stop /dev/md0"}},
	{"install-lin", 0, []string{"will be overwritten: partition 1: LUKS encrypted volume", "Installation complete: /dev/mapper/lin",
		"stays, and has /dev/luks claimed; to take it apart: dmsetup remove lin"}},
	{"after-md0", 0, []string{"/dev/md0: free"}},
	{"stale-raid1", 0, []string{"linux_raid_member"}},
	{"stale-0.90", 0, []string{"Version : 0.90"}},
	{"stale-1.0", 0, []string{"Version : 1.0\n"}},
	{"wiped-raid1", 0, []string{"will be overwritten: the disk: Linux RAID member", "Installation complete: /dev/raid1"}},
}

// Real LVM, LUKS, RAID, bcache, multipath and device-mapper devices: a disk below them is refused by
// the name of its claimer until the remedy that is named has been taken, a release says how far it
// reaches, and an installation on one, or on a former member, is sound and leaves no old signature.
// Multipath has one path, whose device is made by dmsetup with the UUID of multipath's: multipath
// itself takes no virtio disks.
func TestStacks(t *testing.T) {
	dir := t.TempDir()
	disks := map[string]string{"programs": strings.TrimSpace(mustCommand(t, "image/stacks"))}
	for _, name := range []string{"lvm", "luks", "raid1", "raid2", "back", "cache", "path", "linear"} {
		disks[name] = filepath.Join(dir, name+".raw")
		makeRaw(t, disks[name], tinySize)
	}
	script, err := os.ReadFile("stacks.sh")
	must(t, err)
	g := Guest{
		Image: TinyImage(t), Disks: disks, Script: string(script), Timeout: 10 * time.Minute,
		Modules: []string{"overlay", "dm-mod", "dm-snapshot", "dm-crypt", "xts", "raid1", "bcache", "dm-multipath", "dm-service-time"},
	}
	run, result := g.Prepare(t)
	wait := aside(t, run)
	t.Parallel()
	wait()
	r := result().Must(t)
	got := sections(t, r.Stdout)
	for _, w := range slices.Concat(claimed, released, written) {
		w.check(t, got)
	}
	if t.Failed() {
		t.Log(r.Stdout)
	}
	checkStackDisks(t, dir, disks, got["sizes"].text)
}

func (w wanted) check(t *testing.T, got map[string]section) {
	t.Helper()
	s, ok := got[w.name]
	if !ok || s.status != w.status {
		t.Errorf("%s ended with status %d (it ran: %t), want %d", w.name, s.status, ok, w.status)
	}
	for _, text := range w.texts {
		text, not := strings.CutPrefix(text, "!")
		if strings.Contains(s.text, text) == not {
			t.Errorf("%s: that %q is there must be %t, in\n%s", w.name, text, !not, s.text)
		}
	}
	if strings.Contains(s.text, "still mounted") {
		t.Errorf("%s: the mount is still there", w.name)
	}
}

// checkStackDisks verifies the systems that the guest installed: those on the LV and on the RAID by
// the part of a disk that each was, the others as whole disks.
func checkStackDisks(t *testing.T, dir string, disks map[string]string, sizes string) {
	t.Helper()
	part := func(name, disk string, skip int) string {
		size := regexp.MustCompile(`(?m)^` + name + ` (\d+)$`).FindStringSubmatch(sizes)
		if size == nil {
			t.Fatalf("the size of %s is not in %q", name, sizes)
		}
		file := filepath.Join(dir, name+".part")
		mustCommand(t, "dd", "if="+disks[disk], "of="+file, "bs=4096", "conv=sparse", "status=none", "iflag=skip_bytes,count_bytes",
			fmt.Sprintf("skip=%d", skip), "count="+size[1])
		return file
	}
	for name, disk := range map[string]string{
		"LV": part("my--vg-root", "lvm", 1<<20), "RAID": part("md0", "raid2", 0), "dm-linear device": disks["luks"], "former RAID member": disks["raid1"],
	} {
		report, _ := verified(t, disk)
		for _, f := range report.Findings {
			if f.Severity == verify.Error && f.Check != "esp-boot-files" { // it has no boot loader
				t.Errorf("%s: %s", name, f)
			}
		}
		if types := strings.Fields(mustCommand(t, "wipefs", "--noheadings", "--output", "TYPE", disk)); !slices.Equal(types, []string{"gpt", "gpt", "PMBR"}) {
			t.Errorf("%s: wipefs finds %v", name, types)
		}
		r := Run(t, installArgs(TinyImage(t), disk)...)
		const content = "is not empty: the disk: GPT partition table; partition 1 (BIOS-BOOT): no known content; " +
			"partition 2 (EFI-SYSTEM): FAT file system; partition 3 (root): xfs file system; to do: "
		if r.Code != 4 || !strings.Contains(r.Stderr, content) {
			t.Errorf("%s: it is refused with status %d for\n%s", name, r.Code, r.Stderr)
		}
	}
}
