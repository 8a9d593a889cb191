package mounts_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"installer/disk/mounts"
)

const canned = `22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 /mnt1 /mnt2 rw,noatime shared:4 master:1 propagate_from:7 - ext3 /dev/root rw,errors=continue
91 44 0:4 mnt:[4026532178] /run/a\040name rw unbindable - nsfs nsfs rw
40 36 0:52 / /mnt2/o ro,nosuid shared:0 future:9 - overlay overlay rw,lowerdir=/a\054b:/c,upperdir=/u
`

func TestParse(t *testing.T) {
	list, err := mounts.Parse(strings.NewReader(canned))
	if err != nil || len(list) != 4 {
		t.Fatalf("%v, %v", list, err)
	}
	m := list[1]
	if m.ID != 36 || m.Parent != 35 || m.Dev.String() != "98:0" || m.Root != "/mnt1" || m.Point != "/mnt2" ||
		m.Shared != 4 || m.Master != 1 || m.PropagateFrom != 7 || m.FSType != "ext3" || m.ReadOnlySuper() {
		t.Errorf("%+v", m)
	}
	if list[2].Point != "/run/a name" || !list[2].Unbindable {
		t.Errorf("%+v", list[2])
	}
	if !strings.HasPrefix(canned[strings.Index(canned, "\n")+1:], m.Line()+"\n") {
		t.Errorf("the line came back as %q", m.Line())
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"22 27\n", "x 27 0:21 / /proc rw - proc proc rw\n",
		"22 27 0:99999999999 / /proc rw - proc proc rw\n", "22 27 0:21 / /proc rw shared:x - proc proc rw\n"} {
		if list, err := mounts.Parse(strings.NewReader(text)); err == nil {
			t.Errorf("%q gave %v", text, list)
		}
	}
}

func TestDevNumJSON(t *testing.T) {
	text, err := json.Marshal(mounts.DevNum{Major: 259, Minor: 70000})
	var back mounts.DevNum
	if err != nil || string(text) != `"259:70000"` || json.Unmarshal(text, &back) != nil || back.Minor != 70000 {
		t.Errorf("%s, %v, %v", text, back, err)
	}
}

func TestLeafFirst(t *testing.T) {
	list := []mounts.Mount{{ID: 1, Parent: 1, Point: "/"}, {ID: 2, Parent: 1, Point: "/m"}, {ID: 3, Parent: 2, Point: "/m/a"},
		{ID: 4, Parent: 3, Point: "/m/a/b"}, {ID: 5, Parent: 2, Point: "/m/c"}, {ID: 6, Parent: 5, Point: "/m/c"}, {ID: 7, Parent: 1, Point: "/other"}}
	order, err := mounts.LeafFirst(list, 2)
	if err != nil {
		t.Fatal(err)
	}
	var ids []int
	for _, m := range order {
		ids = append(ids, m.ID)
	}
	if want := []int{6, 5, 4, 3, 2}; !slices.Equal(ids, want) {
		t.Errorf("%v, want %v", ids, want)
	}
	if _, err := mounts.LeafFirst(list, 99); err == nil {
		t.Error("an unknown mount was found")
	}
}

func TestCovering(t *testing.T) {
	list := []mounts.Mount{{ID: 1, Point: "/"}, {ID: 2, Point: "/mnt"}, {ID: 3, Point: "/mnt/a"}, {ID: 4, Point: "/mnt"}}
	for path, want := range map[string]int{"/mnt": 4, "/mntx": 1, "/mnt/a/b": 3, "/mnt/ab": 4, "/": 1} {
		if m, ok := mounts.Covering(list, path); !ok || m.ID != want {
			t.Errorf("%s is on %d, want %d", path, m.ID, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(canned)
	if own, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		f.Add(string(own))
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := mounts.Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, m := range list {
			if again, err := mounts.Parse(strings.NewReader(m.Line() + "\n")); err == nil && len(again) == 1 && again[0].ID != m.ID {
				t.Errorf("%q came back as %+v", m.Line(), again[0])
			}
		}
	})
}
