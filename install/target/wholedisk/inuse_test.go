package wholedisk

import (
	"testing"

	"installer/disk"
	"installer/finalize/holders"
)

// A mount that a use names already, in the same namespace, is not named twice; every other holder
// of the device is, and no user of a file on it.
func TestHoldersThatCompleteARefusal(t *testing.T) {
	uses := []disk.Use{{Kind: disk.Mounted, Mountpoint: "/mnt"}, {Kind: disk.Mounted, Mountpoint: "/other", Foreign: true}, {Kind: disk.Swap, Why: "mounted at /swap"},
		{Kind: disk.Mounted, Mountpoint: "/kept", Foreign: true, Orphan: "mnt:[3]"}}
	for _, c := range []struct {
		holder holders.Holder
		want   bool
	}{
		{holders.Holder{Class: holders.MountClass, Path: "/mnt"}, false},
		{holders.Holder{Class: holders.MountClass, Path: "/mnt", Namespace: "mnt:[1]"}, true},
		{holders.Holder{Class: holders.MountClass, Path: "/mnt2"}, true},
		{holders.Holder{Class: holders.MountClass, Path: "/other"}, true},
		{holders.Holder{Class: holders.MountClass, Path: "/other", Namespace: "mnt:[2]"}, false},
		{holders.Holder{Class: holders.MountClass, Path: "/swap"}, true},
		{holders.Holder{Class: holders.Namespace, PID: 1, Namespace: "mnt:[2]"}, false},
		{holders.Holder{Class: holders.Namespace, Namespace: "mnt:[2]"}, true},
		{holders.Holder{Class: holders.MountClass, Path: "/kept", Namespace: "mnt:[3]"}, false},
		{holders.Holder{Class: holders.Namespace, PID: 1, Namespace: "mnt:[3]"}, true},
		{holders.Holder{Class: holders.FD, PID: 1, Path: "/mnt/file"}, false},
		{holders.Holder{Class: holders.DetachedMount, PID: 1}, true},
		{holders.Holder{Class: holders.OutOfSight}, true},
	} {
		unnamed := newMounts(uses, []holders.Holder{c.holder})
		if got := concernsDevice(c.holder, unnamed); got != c.want {
			t.Errorf("%+v: %v, want %v", c.holder, got, c.want)
		}
	}
}
