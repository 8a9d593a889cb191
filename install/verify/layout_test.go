package verify

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"installer/disk"
	"installer/finalize"
)

// shelf is a machine that mounts: by where a volume begins, a directory in place of it, or why
// there is none.
type shelf struct {
	dirs map[int64]string
	errs map[int64]error
}

func (s shelf) OpenRoot(_ context.Context, v Volume) (*Root, error) {
	if err := s.errs[v.Start]; err != nil {
		return nil, err
	}
	dir, err := os.Open(s.dirs[v.Start])
	if err != nil {
		return nil, err
	}
	return &Root{Dir: dir, Close: dir.Close}, nil
}

// ext4Disk has an ext4 at the start of each MiB, as far as a superblock tells; its UUID ends in
// the number.
type ext4Disk struct{}

func (ext4Disk) ReadAt(p []byte, at int64) (int, error) {
	b := make([]byte, 2048)
	binary.LittleEndian.PutUint16(b[1024+0x38:], 0xef53)
	b[1024+0x77] = byte(at >> 20)
	clear(p)
	if from := at % (1 << 20); from < int64(len(b)) {
		copy(p, b[from:])
	}
	return len(p), nil
}

var _ io.ReaderAt = ext4Disk{}

func TestLayout(t *testing.T) {
	const rootPart = "root type"
	tests := map[string]struct {
		types    []string           // of the partitions 1, 2, ...; "root type" is already taken for the root
		holds    map[int64][]string // directories, by the partition's number
		errs     map[int64]error    // of mounting
		unable   bool               // nothing can be mounted here
		wantRoot int                // number of the partition, 0 is none
		wantBoot int
		status   Status
		finding  string
	}{
		"as installed":        {types: []string{rootPart}, wantRoot: 1, status: NotApplicable},
		"boot by content":     {types: []string{typeLinux, rootPart}, holds: map[int64][]string{1: {"loader", "ostree"}}, wantRoot: 2, wantBoot: 1, status: Passed},
		"boot without loader": {types: []string{typeLinux, rootPart}, holds: map[int64][]string{1: {"ostree"}}, wantRoot: 2, wantBoot: 1, status: Passed},
		"both by content": {types: []string{typeLinux, typeLinux}, wantRoot: 2, wantBoot: 1, status: Passed,
			holds: map[int64][]string{1: {"loader", "ostree"}, 2: {"ostree/repo", "boot"}}},
		"type goes first": {types: []string{typeLinux, typeBoot, rootPart}, wantRoot: 3, wantBoot: 2, status: Failed,
			holds: map[int64][]string{1: {"loader", "ostree"}, 2: {"loader", "ostree"}}, finding: "partition 1: it holds boot entries or kernels, as partition 2"},
		"data":         {types: []string{typeLinux, rootPart}, holds: map[int64][]string{1: {"home"}}, wantRoot: 2, status: Passed, finding: "no part of the system"},
		"unused boot":  {types: []string{typeBoot, rootPart}, wantRoot: 2, status: Passed, finding: "neither loader nor ostree"},
		"another root": {types: []string{typeLinux, rootPart}, holds: map[int64][]string{1: {"ostree/repo"}}, wantRoot: 2, status: Passed, finding: "the root is partition 2"},
		"two roots": {types: []string{typeLinux, typeLinux}, wantRoot: 1, status: Failed, finding: "which of them is the root is not known",
			holds: map[int64][]string{1: {"ostree/repo"}, 2: {"ostree/repo"}}},
		"no root":        {types: []string{typeLinux}, status: Failed, finding: "there is no root partition"},
		"damaged":        {types: []string{typeLinux, rootPart}, errs: map[int64]error{1: errors.New("bad superblock")}, wantRoot: 2, status: Failed, finding: "partition 1: its content cannot be read: bad"},
		"no driver":      {types: []string{typeLinux, rootPart}, errs: map[int64]error{1: &UnavailableError{errors.New("no ext4")}}, wantRoot: 2, status: NotChecked},
		"guessed boot":   {types: []string{typeBoot, rootPart}, unable: true, wantRoot: 2, wantBoot: 1, status: Passed},
		"guessed both":   {types: []string{typeLinux, typeBoot}, unable: true, wantRoot: 1, wantBoot: 2, status: Passed},
		"cannot be told": {types: []string{typeLinux, typeLinux}, unable: true, status: NotChecked},
		"boot not known": {types: []string{typeLinux, rootPart}, unable: true, wantRoot: 2, status: NotChecked},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			i := &inspection{report: &Report{}, disk: device{ReaderAt: ext4Disk{}}, source: &source{sector: 512}}
			i.ledger = finalize.NewLedger()
			mounts := shelf{dirs: map[int64]string{}, errs: map[int64]error{}}
			for n, kind := range c.types {
				p := Partition{Number: n + 1, Type: kind, Start: int64(n+1) << 20, Size: 1 << 20}
				if kind == rootPart {
					i.rootfs, i.arch = &p, "amd64"
					continue
				}
				i.others = append(i.others, p)
				mounts.dirs[p.Start], mounts.errs[p.Start] = t.TempDir(), c.errs[int64(n+1)]
				for _, dir := range c.holds[int64(n+1)] {
					if err := os.MkdirAll(filepath.Join(mounts.dirs[p.Start], dir), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			if !c.unable {
				i.opts.Root = mounts
			}
			i.perform(t.Context(), alone("layout"))
			if got := number(i.rootfs); got != c.wantRoot {
				t.Errorf("the root is %d, want %d", got, c.wantRoot)
			}
			if got := number(i.boot); got != c.wantBoot {
				t.Errorf("/boot is %d, want %d", got, c.wantBoot)
			}
			if open := i.ledger.Open(); len(open) > 0 {
				t.Errorf("left open: %v", open)
			}
			checkFindings(t, i.report, c.status, c.finding)
		})
	}
}

// alone is a check that is made without those before it.
func alone(name string) check {
	c := checks[slices.IndexFunc(checks, func(c check) bool { return c.name == name })]
	c.missing = nil
	return c
}

func number(p *Partition) int {
	if p == nil {
		return 0
	}
	return p.Number
}

func checkFindings(t *testing.T, r *Report, status Status, finding string) {
	t.Helper()
	var found []string
	for _, f := range r.Findings {
		found = append(found, f.String())
	}
	if text := strings.Join(found, "\n"); r.Checks[0].Status != status || !strings.Contains(text, finding) || (finding == "") != (text == "") {
		t.Errorf("%+v, found %q, want %s, %q", r.Checks[0], text, status, finding)
	}
}

// A disk must start in some way: by an EFI system partition, or by boot code with a partition for
// the rest of it.
func TestAtLeastOneWayToStart(t *testing.T) {
	root := disk.Partition{Number: 2, UUID: "two", Type: "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", Start: 2 << 20, Size: 1 << 20}
	bios := disk.Partition{Number: 1, Type: disk.TypeBIOSBoot, Start: 1 << 20, Size: 1 << 20}
	esp := bios
	esp.Type = disk.TypeESP
	for _, c := range []struct {
		name  string
		first disk.Partition
		code  bool
		well  bool
	}{
		{"BIOS", bios, true, true}, {"UEFI", esp, false, true}, {"no code", bios, false, false},
		{"no BIOS boot partition", disk.Partition{Number: 1, Type: typeLinux, Start: 1 << 20, Size: 1 << 20}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := &inspection{report: &Report{}, disk: device{ext4Disk{}, 4 << 20, 512}, layout: layout{bootCode: c.code}}
			table := disk.GPT{First: 2048, Last: 6143, Partitions: []disk.Partition{c.first, root}}
			i.perform(t.Context(), check{name: "partition-table", run: func(_ context.Context, i *inspection, f *findings) error {
				(&tableCheck{f, &i.layout, i.disk}).usePartitions(table)
				return nil
			}})
			want := Failed
			if c.well {
				want = Passed
			}
			if got := i.report.Checks[0]; got.Status != want {
				t.Errorf("%+v, %v", got, i.report.Findings)
			}
			if !c.well && !strings.Contains(i.report.Findings[0].What, "nothing starts this disk") {
				t.Errorf("found %v", i.report.Findings)
			}
		})
	}
}
