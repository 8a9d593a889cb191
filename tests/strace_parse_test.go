package tests

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestParseStrace(t *testing.T) {
	const log = `10 umount2("/mnt/a b", UMOUNT_NOFOLLOW <unfinished ...>
11 mount("tmpfs", "/x", "tmpfs", 0, NULL) = 0
10 <... umount2 resumed>)              = -1 EBUSY (Device or resource busy)
12 clock_nanosleep(CLOCK_REALTIME, 0, {tv_sec=1, tv_nsec=0}, NULL) = 0
13 umount2("/gone", MNT_DETACH <unfinished ...>
11 +++ exited with 0 +++
12 --- SIGCHLD {si_signo=SIGCHLD} ---
14 nanosleep({tv_sec=9, tv_nsec=0},  <unfinished ...>
14 <... nanosleep resumed> <unfinished ...>) = ?
15 ???()                                = ?
16 ???( <detached ...>
18 ???( <unfinished ...>
18 <... ??? resumed>)                  = ?
18 <... ??? resumed> <unfinished ...>) = ?
17 mount("tmpfs", "/late", "tmpfs", 0, NULL <detached ...>
`
	calls, err := parseStrace(strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	got := Unmounts(t, calls)
	want := map[Unmount]bool{
		{PID: 10, Target: "/mnt/a b", Flags: "UMOUNT_NOFOLLOW"}: true,
		{PID: 13, Target: "/gone", Flags: "MNT_DETACH"}:         true,
	}
	if len(got) != len(want) {
		t.Fatalf("unmounts %+v", got)
	}
	for _, u := range got {
		if !want[u] {
			t.Errorf("unexpected unmount %+v", u)
		}
	}
	if n := len(Named(calls, "clock_nanosleep")); n != 1 {
		t.Errorf("%d sleeps, want 1", n)
	}
	if _, err := parseStrace(strings.NewReader("what is this\n")); err == nil {
		t.Error("a line that is no call was passed over")
	}
}

// Of a real program: a lazy unmount and a plain one, in processes of their own.
func TestStrace(t *testing.T) {
	dir := t.TempDir()
	r, calls := Strace(t, "unshare", "--mount", "sh", "-euc", `
		mkdir "$1/lazy" "$1/plain"
		mount -t tmpfs one "$1/lazy"
		mount -t tmpfs two "$1/plain"
		umount -l "$1/lazy"
		umount "$1/plain"`, "sh", dir)
	r.Must(t)
	found := map[string]Unmount{}
	for _, u := range Unmounts(t, calls) {
		found[filepath.Base(u.Target)] = u
	}
	if u := found["lazy"]; !u.OK || !strings.Contains(u.Flags, "MNT_DETACH") {
		t.Errorf("lazy unmount seen as %+v", u)
	}
	if u := found["plain"]; !u.OK || strings.Contains(u.Flags, "MNT_DETACH") {
		t.Errorf("plain unmount seen as %+v", u)
	}
	if len(Named(calls, "unshare")) == 0 {
		t.Error("unshare was not seen")
	}
}
