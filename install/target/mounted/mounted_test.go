package mounted

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"installer/disk"
	"installer/disk/mounts"
	"installer/finalize"
	"installer/finalize/holders"
)

// A place for a boot loader for BIOS needs a GPT with a partition of its own.
func TestNoBIOS(t *testing.T) {
	m := &Mounted{tree: &Tree{Root: Filesystem{Mount: mounts.Mount{Point: "/mnt"}}}, noPlace: errors.New("no partition")}
	if got := m.noBIOS(); !strings.Contains(got, "/mnt must be on a partition") || !strings.Contains(got, "(no partition)") {
		t.Errorf("without a partition: %q", got)
	}
	m.place, m.noPlace = &Place{Disk: "/dev/vda"}, nil
	if got := m.noBIOS(); !strings.Contains(got, "/dev/vda needs a BIOS boot partition") {
		t.Errorf("without a BIOS boot partition: %q", got)
	}
	m.place.BIOSBoot = &disk.Partition{}
	if got := m.noBIOS(); got != "" {
		t.Errorf("with a BIOS boot partition: %q", got)
	}
}

// Files are deleted only where a search proved that nobody uses them.
func TestVerdict(t *testing.T) {
	suspect := holders.Holder{Class: holders.Cwd, PID: 7, Comm: "sh", Suspect: true, Remedy: "end it"}
	blind := holders.Unseen{Spot: holders.OtherPIDNamespaces, Subject: "processes of the host", Count: 1}
	for name, c := range map[string]struct {
		report       holders.Report
		says, advice string
	}{
		"free":                {report: holders.Report{Verdict: holders.Free, Unseen: []holders.Unseen{blind}}}, // the kernel counts no reference
		"in a container":      {holders.Report{Verdict: holders.Unknown, Unseen: []holders.Unseen{blind}}, "not known; not seen: processes outside", "--pid=host"},
		"out of sight":        {holders.Report{Verdict: holders.Unknown, Probed: holders.IsReferenced, Unseen: []holders.Unseen{blind}}, "the kernel counts references", "--pid=host"},
		"a suspect":           {holders.Report{Verdict: holders.Unknown, Holders: []holders.Holder{suspect}}, "process 7 (sh", ""},
		"no verdict was made": {says: "not known"},
	} {
		err := verdict("/mnt", c.report)
		if c.says == "" != (err == nil) || err != nil && (!errors.As(err, new(*disk.RefusedError)) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", name, err)
		}
		if a := (interface{ Advice() string })(nil); errors.As(err, &a) && !strings.Contains(a.Advice(), c.advice) {
			t.Errorf("%s: to do: %s", name, a.Advice())
		}
	}
	for _, v := range []holders.Verdict{holders.Held, holders.KernelHeld} {
		if err := verdict("/mnt", holders.Report{Verdict: v}); !errors.As(err, new(*finalize.HeldError)) {
			t.Errorf("%s: %v", v, err)
		}
	}
}

// A boot that is a link would have boot files written elsewhere.
func TestCheckBoot(t *testing.T) {
	for name, make := range map[string]func(string) error{
		"nothing":     func(string) error { return nil },
		"a directory": func(boot string) error { return os.Mkdir(boot, 0o755) },
		"a link":      func(boot string) error { return os.Symlink("usr", boot) },
		"a file":      func(boot string) error { return os.WriteFile(boot, nil, 0o644) },
	} {
		root := t.TempDir()
		if err := make(filepath.Join(root, "boot")); err != nil {
			t.Fatal(err)
		}
		refused := name == "a link" || name == "a file"
		if err := checkBoot(root); errors.As(err, new(*disk.RefusedError)) != refused || err != nil != refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}
