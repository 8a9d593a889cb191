package disk

import (
	"errors"
	"testing"
)

func TestPlan(t *testing.T) {
	const size = 10 << 30
	l, err := Plan(size, 512, PlanOptions{Arch: "amd64", BIOSBoot: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		name, typ   string
		start, size int64
	}{
		{"BIOS-BOOT", "21686148-6449-6e6f-744e-656564454649", mib, mib},
		{"EFI-SYSTEM", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", 2 * mib, 512 * mib},
		{"root", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", 514 * mib, size - 515*mib},
	}
	if len(l.Partitions) != len(want) {
		t.Fatalf("%d partitions", len(l.Partitions))
	}
	seen := map[string]bool{l.UUID: true}
	for i, w := range want {
		p := l.Partitions[i]
		if p.Number != i+1 || p.Name != w.name || p.Type != w.typ || p.Start != w.start || p.Size != w.size {
			t.Errorf("partition %d is %+v, want %+v", i+1, p, w)
		}
		if seen[p.UUID] || len(p.UUID) != 36 || p.UUID[14] != '4' {
			t.Errorf("UUID %q is not random, version 4", p.UUID)
		}
		seen[p.UUID] = true
	}
}

func TestPlanARM64(t *testing.T) {
	l, err := Plan(4<<30, 4096, PlanOptions{Arch: "arm64", RootSize: 1<<30 + 1})
	if err != nil {
		t.Fatal(err)
	}
	root := part(t, l, NameRoot)
	if root.Type != "b921b045-1df0-41c3-af44-4c6f280d3fae" || root.Number != 2 || root.Size != 1<<30+mib {
		t.Errorf("root is %+v", root)
	}
}

// The size that TooSmallError asks for must be enough, and one sector less must not.
func TestPlanTooSmallIsExact(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for _, o := range []PlanOptions{
			{Arch: "amd64", BIOSBoot: true},
			{Arch: "amd64", MinRoot: 3<<30 + 5},
			{Arch: "arm64", RootSize: 2 << 30},
		} {
			_, err := Plan(64*mib, sector, o)
			var small *TooSmallError
			if !errors.As(err, &small) || small.Have != 64*mib {
				t.Fatalf("%+v: %v", o, err)
			}
			l, err := Plan(small.Need, sector, o)
			if err != nil {
				t.Errorf("%+v, %d bytes: %v", o, small.Need, err)
			} else if root := part(t, l, NameRoot); root.Size < max(o.MinRoot, o.RootSize) {
				t.Errorf("%+v: root of %d", o, root.Size)
			}
			if _, err := Plan(small.Need-int64(sector), sector, o); !errors.As(err, &small) {
				t.Errorf("%+v, one sector less: %v", o, err)
			}
		}
	}
}

func TestPlanRefusesNonsense(t *testing.T) {
	for _, o := range []PlanOptions{
		{Arch: "vax"},
		{Arch: "arm64", BIOSBoot: true},
		{Arch: "amd64", ESPSize: 16 * mib},
		{Arch: "amd64", RootSize: 8 * mib},
		{Arch: "amd64", RootSize: 1 << 30, MinRoot: 2 << 30},
		{Arch: "amd64", NewUUID: func() (string, error) { return "", errors.New("no entropy") }},
	} {
		if l, err := Plan(100<<30, 512, o); err == nil {
			t.Errorf("%+v gave %+v", o, l)
		}
	}
	if _, err := Plan(100<<30, 520, PlanOptions{Arch: "amd64"}); err == nil {
		t.Error("a sector size of 520 was accepted")
	}
}
