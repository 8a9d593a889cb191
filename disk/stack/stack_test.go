package stack

import "testing"

func TestLayer(t *testing.T) {
	for _, c := range []struct {
		device       Device
		kind         Kind
		noun, remedy string
	}{
		{Device{Name: "dm-0", Label: "my--vg-a--b", UUID: "LVM-x"}, LVM, "LVM volume my--vg-a--b", "vgchange -an my-vg"},
		{Device{Name: "dm-0", Label: "usr", UUID: "CRYPT-VERITY-1-usr"}, Crypt, "dm-verity device usr", "veritysetup close usr"},
		{Device{Name: "dm-0", Label: "i", UUID: "CRYPT-INTEGRITY-1-i"}, Crypt, "dm-integrity device i", "integritysetup close i"},
		{Device{Name: "dm-0", Label: "home", UUID: "CRYPT-LUKS2-1-home"}, Crypt, "encrypted volume home", "cryptsetup close home"},
		{Device{Name: "dm-0", Label: "a", UUID: "mpath-3600"}, Multipath, "multipath device a", "multipath -f a"},
		{Device{Name: "dm-1", Label: "a-part1", UUID: "part1-mpath-3600", Below: "/dev/dm-0"}, MappedPartition, "mapped partition a-part1", "kpartx -d /dev/dm-0"},
		{Device{Name: "dm-0", Label: "s", UUID: "stratis-1-x"}, Stratis, "device s of a Stratis pool", "stratis pool stop --name POOL, as stratis pool list names it"},
		{Device{Name: "dm-0", Label: "isw_x", UUID: "DMRAID-isw_x"}, DeviceMapper, "BIOS RAID isw_x", "dmraid -an isw_x"},
		{Device{Name: "dm-0", Label: "lin"}, DeviceMapper, "device-mapper device lin", "dmsetup remove lin"},
		{Device{Name: "md/d0"}, MDRAID, "MD RAID", "mdadm --stop /dev/md/d0"},
		{Device{Name: "bcache0"}, Bcache, "bcache device", "echo 1 > /sys/block/bcache0/bcache/stop"},
		{Device{Name: "drbd0"}, DRBD, "DRBD device", "drbdadm down RESOURCE, as drbdadm status names it"},
		{Device{Name: "new0"}, Other, "stacked device", "stop /dev/new0 by the program that made it"},
	} {
		if l := c.device.Layer(); l.Kind != c.kind || l.Noun != c.noun || l.Remedy != c.remedy {
			t.Errorf("%+v: %+v, want %s, %q, %q", c.device, l, c.kind, c.noun, c.remedy)
		}
	}
}
