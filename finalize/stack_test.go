package finalize

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"installer/disk/block"

	"installer/disk/mounts"
	"installer/finalize/holders"
)

// machine makes a sysfs with the devices of each line: "NUMBER NAME SLAVES DIRECTORY/FILE=TEXT...".
func machine(t *testing.T, lines ...string) sysfs {
	t.Helper()
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(root, "dev/block"), 0o755))
	must(os.MkdirAll(filepath.Join(root, "class/block"), 0o755))
	for _, line := range lines {
		fields := strings.Fields(line)
		dir := filepath.Join(root, "block", fields[1])
		must(os.MkdirAll(filepath.Join(dir, "holders"), 0o755))
		must(os.Symlink("../../block/"+fields[1], filepath.Join(root, "dev/block", fields[0])))
		must(os.Symlink("../../block/"+fields[1], filepath.Join(root, "class/block", filepath.Base(fields[1]))))
		must(os.WriteFile(filepath.Join(dir, "dev"), []byte(fields[0]+"\n"), 0o644))
		for _, slave := range strings.Split(strings.Trim(fields[2], "-"), ",") {
			if slave == "" {
				continue
			}
			must(os.MkdirAll(filepath.Join(dir, "slaves", filepath.Base(slave)), 0o755))
			must(os.MkdirAll(filepath.Join(root, "block", slave, "holders", filepath.Base(fields[1])), 0o755))
		}
		for _, file := range fields[3:] {
			name, text, _ := strings.Cut(file, "=")
			must(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			must(os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o644))
		}
	}
	return sysfs{holders.Sysfs(root)}
}

func TestStack(t *testing.T) {
	s := machine(t,
		"8:0 sda -", "8:1 sda/sda1 - partition=1", "8:16 sdb -", "8:32 sdc -", "8:48 sdd -", "8:64 sde -", "8:80 sdf -",
		"253:0 dm-0 sda/sda1 dm/name=my--group-root dm/uuid=LVM-abc",
		"253:1 dm-1 dm-0 dm/name=secret dm/uuid=CRYPT-LUKS2-abc",
		"253:2 dm-2 sdb dm/name=mpatha dm/uuid=mpath-36",
		"253:3 dm-3 sdf dm/name=linear",
		"9:0 md0 sdc,sdd", "259:0 md0/md0p1 - partition=1", "252:0 bcache0 sde", "8:96 sdg -",
		"253:4 dm-4 dm-2 dm/name=mpatha-part1 dm/uuid=part1-mpath-36", "7:0 loop0 - loop/autoclear=0 loop/backing_file=/x", "7:1 loop1 - loop/autoclear=1 loop/backing_file=/y")
	for number, want := range map[string][]string{
		"8:0": nil, "8:1": nil, "7:0": nil,
		"253:0": {"/dev/dm-0 (LVM volume my--group-root)", "/dev/sda1 claimed", "apart: vgchange -an my-group"},
		"253:1": {"/dev/dm-1", "/dev/sda1 claimed", "apart: cryptsetup close secret, then vgchange -an my-group"},
		"253:2": {"/dev/dm-2", "/dev/sdb", "multipath -f mpatha"},
		"253:3": {"/dev/dm-3", "/dev/sdf", "dmsetup remove linear"},
		"253:4": {"/dev/dm-4 (mapped partition mpatha-part1)", "/dev/sdb claimed", "kpartx -d /dev/dm-2, then multipath -f mpatha"},
		"9:0":   {"/dev/md0", "/dev/sdc, /dev/sdd", "mdadm --stop /dev/md0"},
		"259:0": {"/dev/md0", "/dev/sdc, /dev/sdd", "mdadm --stop /dev/md0"},
		"252:0": {"/dev/bcache0", "/dev/sde", "/sys/block/bcache0/bcache/stop"},
	} {
		n, err := block.ParseNumber(number)
		if err != nil {
			t.Fatal(err)
		}
		why, err := s.beneath(n)
		if err != nil || (why == "") != (want == nil) {
			t.Errorf("%s: %q, %v", number, why, err)
		}
		for _, part := range want {
			if !strings.Contains(why, part) {
				t.Errorf("%s: %q lacks %q", number, why, part)
			}
		}
	}
	cache := filepath.Join(string(s.Sysfs), "block/sdg/bcache")
	if err := errors.Join(os.Mkdir(cache, 0o755), os.Symlink("../../../fs/bcache/55-66", cache+"/set")); err != nil {
		t.Fatal(err)
	}
	for number, want := range map[string]string{
		"8:96": "echo 1 > /sys/fs/bcache/55-66/stop", "8:1": "cryptsetup close secret, vgchange -an my-group", "8:16": "kpartx -d /dev/dm-2, multipath -f mpatha",
		"8:32": "mdadm --stop /dev/md0", "253:0": "cryptsetup close secret", "7:0": "",
	} {
		n, err := block.ParseNumber(number)
		if err != nil {
			t.Fatal(err)
		}
		list, err := s.Claimers(n)
		var remedies []string
		for _, h := range list {
			remedies = append(remedies, strings.TrimPrefix(h.Remedy, "take it apart: "))
		}
		if got := strings.Join(remedies, ", "); err != nil || got != want {
			t.Errorf("%s is claimed by %v, %v, want %q", number, list, err, want)
		}
	}
	if _, err := s.beneath(mounts.DevNum{Major: 99}); err == nil {
		t.Error("a device that is not there stands on none")
	}
	if a, b := s.attachment(mounts.DevNum{Major: 7}), s.attachment(mounts.DevNum{Major: 7, Minor: 1}); a != "/x" || b != "" {
		t.Errorf("attached to %q and %q", a, b)
	}
}
