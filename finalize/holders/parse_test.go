package holders

import (
	"slices"
	"strings"
	"testing"

	"installer/disk/mounts"
)

func TestParseMapping(t *testing.T) {
	for line, want := range map[string]mapping{
		"7f2c1d0d6000-7f2c1d0e6000 r--s 00000000 07:00 133                        /path/a file": {dev: mounts.DevNum{Major: 7}, inode: "133", path: "/path/a file"},
		"7f2c1d0d6000-7f2c1d0e6000 rw-p 00000000 00:2a 9 /m\\012x (deleted)":                    {dev: mounts.DevNum{Minor: 42}, inode: "9", path: "/m\\012x (deleted)"},
		"7f2c1d0d6000-7f2c1d0e6000 rw-p 00000000 103:10ff 9":                                    {dev: mounts.DevNum{Major: 0x103, Minor: 0x10ff}, inode: "9"},
	} {
		got, err := parseMapping(line)
		want.line = line
		if err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	if m, err := parseMapping("7f2c r--s 0"); err == nil {
		t.Errorf("%+v", m)
	}
}

// TestMatchingMaps has a path that looks like the device.
func TestMatchingMaps(t *testing.T) {
	text := "1-2 r--p 00000000 08:01 5 /tmp/x 07:00 y\n2-3 r--p 00000000 07:00 6    /mnt/a\n3-4 r--p 00001000 07:00 6    /mnt/a\n4-5 rw-p 0 07:00 7 /mnt/b"
	d := mounts.DevNum{Major: 7}
	found := mergeMaps(matchingMaps([]byte(text), mapPattern(d), d))
	if len(found) != 2 || found[0].path != "/mnt/a" || found[1].path != "/mnt/b" {
		t.Errorf("%+v", found)
	}
}

func TestParseFDInfo(t *testing.T) {
	info, err := parseFDInfo([]byte("pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t99\nscm_fds: 3\n"))
	if err != nil || info.mount != 15 || info.inode != 99 || info.flags != "02" || socketCount(info.extra) != 3 {
		t.Errorf("%+v, %v", info, err)
	}
	info, err = parseFDInfo([]byte("pos:\t0\nflags:\t02004000\nmnt_id:\t15\n"))
	if err != nil || info.extra != "" {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := parseFDInfo([]byte("pos:\t0\n")); err == nil {
		t.Error("accepted without mnt_id")
	}
}

func TestParseFanotify(t *testing.T) {
	g := parseFanotify("fanotify flags:200 event-flags:8000\nfanotify mnt_id:2a mflags:0 mask:20 ignored_mask:0\nfanotify sdev:700003 mflags:0 mask:20 ignored_mask:0\n")
	if !g.reportsHandles() || !slices.Equal(g.mounts, []int{42}) || !slices.Equal(g.devs, []mounts.DevNum{{Major: 7, Minor: 3}}) {
		t.Errorf("%+v", g)
	}
}

func TestParseStat(t *testing.T) {
	st, err := parseStat([]byte("42 (a) b (c)) Z 7 42 42 0 -1 2097152 0 0"))
	if err != nil || st.comm != "a) b (c)" || st.state != 'Z' || st.parent != 7 || st.flags != flagKThread {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestRingFiles(t *testing.T) {
	text := "SqMask:\t0x0\nUserFiles:\t3\n    0: /mnt/a b\n    2: /x\\040y\nUserBufs:\t1\n    0: /no\n"
	if got := ringFiles(text); !slices.Equal(got, []string{"/mnt/a b", "/x y"}) {
		t.Errorf("%q", got)
	}
}

func TestOverlayDirs(t *testing.T) {
	for options, want := range map[string]bool{
		`rw,lowerdir=/a\:b:l/relative:/c\040d,upperdir=/u,workdir=/w,index=off`: true,
		`rw,lowerdir=/a\:b:/c\040d::/u,workdir=/w`:                              false, // :: is before data layers
	} {
		got, relative := overlayDirs(options)
		if want := []string{"/a:b", "/c d", "/u", "/w"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if relative != want {
			t.Errorf("%s: relative %v", options, relative)
		}
	}
}

func TestParseProbes(t *testing.T) {
	if p := parseUprobe("p:uprobes/x /mnt/a:b:0x0000000000001000 %ip"); p.path != "/mnt/a:b" || p.event != "uprobes/x" {
		t.Errorf("%+v", p)
	}
	if p := keptInterpreter("enabled\ninterpreter /mnt/i\nflags: OCF\n"); p != "/mnt/i" {
		t.Errorf("%q", p)
	}
	if p := keptInterpreter("enabled\ninterpreter /mnt/i\nflags: OC\n"); p != "" {
		t.Errorf("%q", p)
	}
}

func TestDescendants(t *testing.T) {
	members, err := descendants(10, map[int]int{11: 10, 12: 11, 13: 1, 10: 1})
	if err != nil || len(members) != 3 || !members[12] || members[13] {
		t.Errorf("%v", members)
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		r    Report
		want Verdict
	}{
		{Report{}, Free},
		{Report{Holders: []Holder{{Class: FD}}}, Held},
		{Report{Holders: []Holder{{Class: Kernel}}}, KernelHeld},
		{Report{Holders: []Holder{{Class: FSContext, Suspect: true}}}, Unknown},
		{Report{Unreadable: []string{"x"}}, Unknown},
		{Report{Unreadable: []string{"x"}, Probed: Unreferenced}, Unknown}, // other mounts, or none, may be in use
		{Report{Unreadable: []string{"x"}, Probed: Unreferenced, proven: true}, Free},
		{Report{Holders: []Holder{{Class: Loop}}, proven: true}, Held},
	} {
		c.r.judge()
		if c.r.Verdict != c.want {
			t.Errorf("%+v: want %s", c.r, c.want)
		}
	}
}

// FuzzParsers gives every parser of this package any text: none may panic.
func FuzzParsers(f *testing.F) {
	f.Add([]byte("7f2c1d0d6000-7f2c1d0e6000 r--s 00000000 07:00 133 /path"))
	f.Add([]byte("pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t9\nfanotify flags:10 event-flags:0\n"))
	f.Add([]byte("42 (a) b (c)) Z 7 42 42 0 -1 2097152 0 0"))
	f.Add([]byte("UserFiles:\t1\n    0: /a\n"))
	f.Add([]byte("rw,lowerdir=/a\\:b:/c,upperdir=/u"))
	f.Add(diagRequest())
	f.Fuzz(func(t *testing.T, text []byte) {
		d := mounts.DevNum{Major: 7}
		for _, m := range matchingMaps(text, mapPattern(d), d) {
			if m.dev != d {
				t.Errorf("%+v is not of %s", m, d)
			}
		}
		if info, err := parseFDInfo(text); err == nil && info.mount < 0 {
			t.Errorf("%+v", info)
		}
		s := string(text)
		parseFanotify(s)
		ringFiles(s)
		socketCount(s)
		keptInterpreter(s)
		parseUprobe(s)
		namespaceInode(s)
		absolute, _ := overlayDirs(s)
		for _, dir := range absolute {
			if !strings.HasPrefix(dir, "/") {
				t.Errorf("%q is relative", dir)
			}
		}
		parseStat(text)
		new(sockets).parse(text)
		parseSocket(text)
		receivedFiles(text)
		eachRecord(text, func([]byte) {})
	})
}

func BenchmarkScan(b *testing.B) {
	list, err := mounts.OwnMounts()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Scan(b.Context(), MountTarget(list[len(list)-1])); err != nil {
			b.Fatal(err)
		}
	}
}
