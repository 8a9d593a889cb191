package tests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// diskSize is the size of the raw disk files that are installed on, in bytes. They are sparse.
const diskSize = 3 << 30

// setup is one way to install.
type setup struct {
	filesystem string
	bootloader string
	selftest   string // the value of installer.selftest; "" is none
}

// installed is a disk made by the installer, under strace. The tests of a run share it and must not
// change it.
type installed struct {
	setup
	raw    string
	result Result
	calls  []Syscall
	report runReport
}

// runReport holds the fields of --report that the tests read: as a script would, by the names in
// the JSON.
type runReport struct {
	Version int
	Outcome string
	Error   string
	Source  struct {
		Reference, Digest string
		BaseLayers        int    `json:"base_layers"`
		BaseCommit        string `json:"base_commit"`
	}
	Deployment struct {
		Commit, Path, Kernel string
		Composefs            string
		BootChecksum         string `json:"boot_checksum"`
		Kargs                []string
		Files                int
		Bytes                int64
	}
	Disk struct {
		Path, Filesystem, Bootloader string
		Size                         int64
		RootUUID                     string `json:"root_uuid"`
		Partitions                   []struct {
			Number      int
			Name, Type  string
			UUID        string
			Start, Size int64
		}
	}
	Steps    []struct{ Name, Title, Error string }
	Finalize *struct {
		Released bool
		Stages   []struct {
			Name, Status, Summary, Error string
			Evidence                     json.RawMessage
		}
	}
	UndoErrors []string `json:"undo_errors"`
}

var disks struct {
	sync.Mutex
	done map[setup]*installed
}

// Installed returns the disk of a setup, installed once a run.
func Installed(t testing.TB, s setup) *installed {
	t.Helper()
	disks.Lock()
	defer disks.Unlock()
	if d, ok := disks.done[s]; ok {
		return d
	}
	name := strings.Join([]string{"disk", s.filesystem, s.bootloader, s.selftest}, "-")
	d := &installed{setup: s, raw: filepath.Join(runDir, name+".raw")}
	makeRaw(t, d.raw, diskSize)
	defer func() {
		if disks.done[s] == nil { // it failed; the next test that wants the disk tries again
			_ = os.Remove(d.raw)
		}
	}()
	report := filepath.Join(runDir, name+".json")
	d.result, d.calls = Strace(t, BuildInstaller(t), append(s.args(t), "--report", report, d.raw)...)
	d.result.Must(t)
	d.report = readReport(t, report)
	if disks.done == nil {
		disks.done = map[setup]*installed{}
	}
	disks.done[s] = d
	return d
}

// args are the arguments of the installer but for the disk.
func (s setup) args(t testing.TB) []string {
	t.Helper()
	args := []string{"to-disk", "--via-loopback", "--generic-image", "--source-imgref", CacheImage(t),
		"--filesystem", s.filesystem, "--bootloader", s.bootloader, "--karg", "console=ttyS0,115200n8"}
	switch s.selftest {
	case "":
	case "report":
		args = append(args, "--karg", "installer.selftest")
	default:
		args = append(args, "--karg", "installer.selftest="+s.selftest)
	}
	return args
}

// makeRaw makes an empty sparse file.
func makeRaw(t testing.TB, name string, size int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func readReport(t testing.TB, name string) runReport {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var r runReport
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatalf("reading the report %s: %v", name, err)
	}
	return r
}

// installArgs are those of the quickest installation of ref on a raw file.
func installArgs(ref, raw string, more ...string) []string {
	return append([]string{"to-disk", "--via-loopback", "--source-imgref", ref, "--bootloader", "none"}, append(more, raw)...)
}
