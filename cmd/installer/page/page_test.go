package page

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"installer/disk"
	"installer/finalize"
	"installer/finalize/holders"
	"installer/install"
	"installer/install/verify"
	"installer/install/vm"
)

var begin = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// held is a release that somebody's open file stopped.
func held() *finalize.Report {
	by := []holders.Holder{{Class: holders.FD, PID: 4711, TID: 4712, Comm: "tail", Path: "/root/log", Evidence: "/proc/4711/fd/3", Remedy: "end process 4711"}}
	search := finalize.Search{Report: holders.Report{Version: 1, Verdict: holders.Held, Processes: 7, Holders: by}}
	return &finalize.Report{Version: 1, Mountpoint: "/mnt", Devices: []string{"/dev/loop7"}, Stages: []finalize.StageResult{
		{Name: "trim", Status: finalize.OK, Start: begin, Seconds: 1, Summary: "trimmed"},
		{Name: "prove-no-holders", Status: finalize.Failed, Start: begin.Add(time.Second), Seconds: 3, Evidence: search, Error: "held by tail", Holders: by},
		{Name: "unmount", Status: finalize.NotRun},
	}}
}

// failed is an installation that ended in that release.
func failed() *install.Report {
	return &install.Report{
		Version: 1, Outcome: install.Failed, Error: "Releasing: held", Started: begin, Ended: begin.Add(10 * time.Second),
		Source: install.SourceReport{Reference: "oci:image:latest", Digest: "sha256:d1", Layers: 3, Bytes: 5 << 20},
		Disk: install.DiskReport{Path: "/dev/vdq", Size: 1000 << 20, Filesystem: "xfs", RootUUID: "u-u", Bootloader: "grub", Partitions: []disk.Partition{
			{Number: 1, Name: "BIOS-BOOT", Type: disk.TypeBIOSBoot, Start: 1 << 20, Size: 1 << 20, UUID: "p-1"},
			{Number: 2, Name: "EFI-SYSTEM", Type: disk.TypeESP, Start: 2 << 20, Size: 250 << 20, UUID: "p-2"},
			{Number: 3, Name: "root", Start: 252 << 20, Size: 500 << 20, UUID: "p-3"},
		}},
		Plan:       &install.Plan{Model: "Virtio", Serial: "S3R1AL", Target: "docker://example.org/x", Found: []disk.Found{{Where: "the disk", What: "GPT", Size: 1 << 20}}},
		Deployment: install.DeploymentReport{Commit: "c0ffee", Path: "ostree/deploy/x", Kernel: "6.1.0", Kargs: []string{"rw", "quiet"}, Files: 12, Bytes: 3 << 20},
		SELinux:    &install.SELinuxReport{Policy: "default", Version: 33, Labels: 1, Labelled: 12},
		Steps: []install.StepResult{
			{Name: "import", Title: "Writing", Started: begin, Seconds: 6, Message: "12 files"},
			{Name: "finalize", Title: "Releasing", Started: begin.Add(6 * time.Second), Seconds: 4, Error: "held"},
		},
		Finalize: held(), Notes: []string{"no label"}, UndoErrors: []string{"detached loop7: failed"},
	}
}

func render(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := WriteHTML(&b, data); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Each kind of report has a page, with all that it says.
func TestEveryKind(t *testing.T) {
	build := &vm.Report{Report: *failed(), Machine: vm.MachineReport{Accel: vm.AccelTCG, CPUs: 2, Memory: 1 << 30, Kernel: "6.9", Output: "disk.qcow2",
		Format: "qcow2", Attempts: []string{"kvm hangs"}, Phases: []vm.PhaseTime{{Phase: vm.PhaseKernel, Seconds: 8}}}}
	verified := &verify.Report{Version: 1, Outcome: verify.Damaged, Started: begin, Ended: begin.Add(time.Second), Disk: verify.DiskInfo{Path: "x.raw", Size: 1 << 30, Format: "raw"},
		Checks:   []verify.Check{{Name: "a", Title: "Table", Status: verify.Failed, Detail: "differs"}, {Name: "b", Title: "Boot", Status: verify.NotChecked}},
		Findings: []verify.Finding{{Check: "a", Severity: verify.Error, Where: "primary", What: "is torn", Remedy: "write it anew"}}}
	common := []string{"Installation failed", "/dev/vdq", "Releasing: held", "oci:image:latest", "sha256:d1", "6.1.0", "ostree/deploy/x", "c0ffee", "1 label on 12 files, by the policy default (version 33)", "xfs, UUID u-u", "Virtio, serial S3R1AL",
		"docker://example.org/x", "the disk: GPT", "quiet", "12 files", "EFI system partition", "p-2", "no label", "detached loop7: failed", "10.0 s",
		"prove-no-holders", "held by tail", "not-run", "tail", "process 4711, thread 4712", "/proc/4711/fd/3", "end process 4711"}
	for name, c := range map[string]struct {
		report any
		wants  []string
	}{
		"install":  {failed(), common},
		"build":    {build, append(common, "tcg, 2 processors, 1.0 GiB", "disk.qcow2", "kvm hangs", "kernel")},
		"finalize": {held(), []string{"Not released", "/mnt", "/dev/loop7", "held by tail", "end process 4711"}},
		"holders":  {holders.Report{Verdict: holders.KernelHeld, Holders: []holders.Holder{{Class: holders.Kernel, Remedy: "reboot", Suspect: true}}, Unreadable: []string{"maps of 1"}}, []string{"Held by the kernel", "reboot", "maps of 1", "may hold it"}},
		"verify":   {verified, []string{"The disk is damaged: 1 fault:", "x.raw", "Table", "differs", "not-checked", "is torn", "write it anew"}},
	} {
		html := render(t, c.report)
		for _, want := range c.wants {
			if !strings.Contains(html, want) {
				t.Errorf("%s: the page lacks %q", name, want)
			}
		}
	}
}

func TestOutcomes(t *testing.T) {
	complete, planned, unproven := *failed(), *failed(), *failed()
	unproven.Outcome, unproven.Error = install.Unproven, ""
	unproven.Disk.Mounted = []install.MountedFilesystem{{Role: "root", MountPoint: "/mnt/x", Type: "ext4", Device: "/dev/vdz1"}}
	complete.Outcome, complete.Error, planned.Outcome, planned.Error = install.Complete, "", install.Planned, ""
	released, kept := *held(), *held()
	released.Released, released.Stages = true, released.Stages[:1]
	kept.Stages = kept.Stages[:1]
	for want, r := range map[string]any{
		`"good" id="outcome"`: complete, `"fair" id="outcome"`: planned, `"bad" id="outcome"`: failed(),
		"release skipped: /dev/vdq": unproven, "/mnt/x: ext4 on /dev/vdz1": unproven,
		"Released: /mnt": released, "Ready to be unmounted: /mnt": kept,
		"Nobody holds it":               holders.Report{Verdict: holders.Free, Holders: []holders.Holder{}},
		"It is not known whether":       holders.Report{Verdict: holders.Unknown},
		"The disk is sound":             verify.Report{Outcome: verify.Sound, Findings: []verify.Finding{}},
		"Not all checks could be made:": verify.Report{Outcome: verify.Incomplete},
	} {
		if html := render(t, r); !strings.Contains(html, want) {
			t.Errorf("no %q in the page of %+v", want, r)
		}
	}
}

// Bars and partitions are to scale.
func TestScale(t *testing.T) {
	p := installPage(&vm.Report{Report: *failed()}, false)
	near := func(name string, got, want float64) {
		if math.Abs(got-want) > 0.01 {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	near("begin of the second step", p.Steps.Rows[1].Start, 60)
	near("width of the second step", p.Steps.Rows[1].Width, 40)
	near("begin of root", p.Disk.Parts[2].X, 252)
	near("width of root", p.Disk.Parts[2].Width, 500)
	near("width of the least", p.Disk.Parts[0].Width, leastPart)
	if last := p.Disk.Drawn[2].Name; last != "BIOS-BOOT" {
		t.Errorf("%s hides the thin ones", last)
	}
	for _, c := range []struct {
		end   float64
		ticks int
		last  string
	}{{0.2, 4, "0.15 s"}, {10, 5, "8 s"}, {130, 3, "100 s"}, {0, 5, "0.8 s"}} {
		x := timeline{Rows: make([]bar, 1)}
		x.scale([]span{{0, c.end}})
		if n := len(x.Ticks); n != c.ticks || x.Ticks[n-1].Label != c.last {
			t.Errorf("%v seconds: ticks %v", c.end, x.Ticks)
		}
	}
}

// Whatever a report says, it is text: no element, no attribute, no trick of the terminal or of the
// direction.
func TestHostileText(t *testing.T) {
	const evil = "</style></title><script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{.Title}}\x1b[31m\u202e\x00"
	r := failed()
	r.Source.Reference, r.Disk.Path, r.Error, r.Notes = evil, evil, evil, []string{evil}
	r.Disk.Partitions[2].Name, r.Disk.Partitions[2].UUID, r.Disk.Partitions[2].Type = evil, evil, evil
	r.Deployment.Kargs, r.UndoErrors, r.Plan.Found[0].What, r.Plan.Serial = []string{evil}, []string{evil}, evil, evil
	r.Steps[0].Title, r.Steps[0].Message, r.Steps[1].Error = evil, evil, evil
	stage := &r.Finalize.Stages[1]
	stage.Name, stage.Summary, stage.Error = evil, evil, evil
	stage.Status = evil
	stage.Holders = []holders.Holder{{Class: evil, PID: 1, Comm: evil, Path: evil, Evidence: evil, Namespace: evil, Remedy: evil}}
	stage.Evidence = finalize.Search{Report: holders.Report{Holders: stage.Holders}}
	html := render(t, r)
	for _, bad := range []string{"<script", "<img", "onerror=alert(1)>\"", "\x1b", "\u202e", "\x00"} {
		if strings.Contains(html, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if strings.Count(html, "</style>") != 1 || strings.Count(html, "</title>") != 1+len(r.Disk.Partitions) {
		t.Error("an element was ended from within")
	}
	if strings.Count(html, `&lt;script&gt;`) < 20 || !strings.Contains(html, `\x1b[31m\u202e`) {
		t.Error("the text is not shown as it is")
	}
}

// Evidence of a form that this version does not know is shown whole.
func TestUnknownEvidence(t *testing.T) {
	var b bytes.Buffer
	err := WriteHTML(&b, []byte(`{"released":true,"stages":[{"name":"x","status":"ok","evidence":
		{"zeta":[1,{"new_thing":"there"},[true,null,"a long text that is no mere word"]],"alpha":3.50}}],"later":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	_, html, _ := strings.Cut(b.String(), `class="evidence"`)
	at := -1
	for _, want := range []string{"zeta", "new thing", "there", "yes", "none", "a long text", "alpha", "3.50"} {
		i := strings.Index(html, want)
		if i < at || i < 0 {
			t.Errorf("%q is missing or out of order", want)
		}
		at = i
	}
}

func TestLinesOfEvents(t *testing.T) {
	data, err := json.Marshal(failed())
	if err != nil {
		t.Fatal(err)
	}
	lines := `{"event":"step","title":"x"}` + "\n" + `{"event":"report","report":` + string(data) + "}\n"
	var b bytes.Buffer
	if err := WriteHTML(&b, []byte(lines)); err != nil || !strings.Contains(b.String(), "Installation failed") {
		t.Error(err)
	}
}

// A report and a page may be replaced by a newer one, and nothing else.
func TestRecognises(t *testing.T) {
	object := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for text, want := range map[string]bool{
		render(t, failed()): true, object(failed()): true, object(held()): true, object(holders.Report{Holders: []holders.Holder{}}): true,
		object(vm.Report{Report: *failed()}): true, object(verify.Report{Findings: []verify.Finding{}, Checks: []verify.Check{}}): true,
		"": false, "{}": false, "[]": false, `{"steps":[]}`: false, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<title>": false,
		object(failed()) + object(failed()): false, `{"event":"report","report":` + object(failed()) + "}": false,
		`{"auths":{}}`: false, `{"schemaVersion":2,"manifests":[]}`: false,
	} {
		if Recognises([]byte(text)) != want {
			t.Errorf("%.80q: recognised %t, want %t", text, !want, want)
		}
	}
}

func TestNoReport(t *testing.T) {
	for _, text := range []string{"", "{}", "[]", "3", "null", "not JSON", `{"steps":[],"disk":7}`, `{"steps":[]`, `{"event":"step"}`, `{"verdict":"x","holders":{}}`} {
		var b bytes.Buffer
		if err := WriteHTML(&b, []byte(text)); !errors.Is(err, ErrNoReport) || b.Len() > 0 {
			t.Errorf("%q: %v, %d bytes", text, err, b.Len())
		}
	}
}

// No report makes it fail in another way, or write a page that loads something.
func FuzzWriteHTML(f *testing.F) {
	for _, r := range []any{failed(), held(), holders.Report{Holders: []holders.Holder{{}}}, verify.Report{Findings: []verify.Finding{{}}}} {
		data, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var b bytes.Buffer
		err := WriteHTML(&b, data)
		if err != nil && !errors.Is(err, ErrNoReport) {
			t.Fatal(err)
		}
		if text := b.String(); strings.Contains(text, "<script") || strings.Contains(text, "<img") || err == nil && !strings.HasSuffix(text, "</html>\n") && !strings.HasSuffix(text, "</html>") {
			t.Errorf("a page of %d bytes", b.Len())
		}
	})
}
