package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"installer/install"
	"installer/install/hostprog"
	"installer/install/outfile"
	"installer/install/verify"
)

const (
	testDigest = "sha256:000102"
	checksum   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

// goodReport is the last message of an honest guest.
const goodReport = `{"event":"report","report":{"version":1,"outcome":"complete","source":{"digest":"sha256:000102"},` +
	`"deployment":{"commit":"` + checksum + `","boot_checksum":"` + checksum + `","path":"ostree/deploy/default/deploy/` + checksum + `.0"},` +
	`"finalize":{"version":1,"mount_point":"/","released":true,"stages":[{"name":"unmount","status":"ok","seconds":1}]}}}`

// say runs a machine whose guest sends these lines of its installer's output and this exit message,
// and returns how the build takes it.
func say(t *testing.T, exit string, lines ...string) (*build, []install.Event, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "messages")
	var text strings.Builder
	text.WriteString("{\"phase\":\"devices\"}\n{\"phase\":\"installer\"}\n")
	for _, line := range lines {
		fmt.Fprintf(&text, "{\"line\":%s}\n", line)
	}
	text.WriteString(exit + "\n")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	// Descriptor 4 is the console, 5 the monitor, 6 the channel.
	b, events := fakeBuild(t, "read greeting <&5; printf 'begin\\033[2Jend\\n' >&4; cat '"+file+"' >&6")
	b.opts.Accel = AccelTCG
	_, err := b.install(t.Context())
	b.complete(err)
	return b, *events, err
}

func TestHonestGuestIsBelieved(t *testing.T) {
	b, _, err := say(t, `{"exit":{"status":0}}`, `{"event":"step","step":"import","index":1,"count":2}`, goodReport)
	if err != nil || b.report.Outcome != install.Complete || len(b.report.Finalize.Stages) != 1 {
		t.Errorf("got %v, %+v", err, b.report.Report)
	}
}

// Only a success that the host can confirm is one; everything else is a failure with a status that
// a command has.
func TestHostileGuestIsNotBelieved(t *testing.T) {
	in := func(old, new string) string { return strings.Replace(goodReport, old, new, 1) }
	for name, c := range map[string]struct {
		exit   string
		lines  []string
		status int // of a GuestError; 0: a MachineError
		want   string
	}{
		"no report":             {`{"exit":{"status":0}}`, nil, 0, "without a report"},
		"empty report":          {`{"exit":{"status":0}}`, []string{`{"event":"report"}`}, 0, "an empty one"},
		"report of a failure":   {`{"exit":{"status":0}}`, []string{in("complete", "failed")}, 0, "without a report of success"},
		"another digest":        {`{"exit":{"status":0}}`, []string{in("sha256:000102", "sha256:ffff")}, 0, `"sha256:ffff", and the image has "sha256:000102"`},
		"no digest":             {`{"exit":{"status":0}}`, []string{in("sha256:000102", "")}, 0, "the image has"},
		"no proofs":             {`{"exit":{"status":0}}`, []string{in("finalize", "finalise")}, 0, "without the proofs"},
		"not released":          {`{"exit":{"status":0}}`, []string{in("true", "false")}, 0, "without the proofs"},
		"no stages":             {`{"exit":{"status":0}}`, []string{in(`{"name":"unmount","status":"ok","seconds":1}`, "")}, 0, "without the proofs"},
		"a stage that failed":   {`{"exit":{"status":0}}`, []string{in(`"ok"`, `"failed"`)}, 0, `the stage unmount "failed"`},
		"a stage of no status":  {`{"exit":{"status":0}}`, []string{in(`"ok"`, `"fine"`)}, 0, `the stage unmount "fine"`},
		"two reports":           {`{"exit":{"status":0}}`, []string{in("complete", "failed"), goodReport}, 0, "a second report"},
		"a path elsewhere":      {`{"exit":{"status":0}}`, []string{in("ostree/deploy/default", "../../etc")}, 0, "a deployment that cannot be"},
		"no commit":             {`{"exit":{"status":0}}`, []string{in(checksum, "none")}, 0, "a deployment that cannot be"},
		"status 256":            {`{"exit":{"status":256}}`, []string{goodReport}, 1, "in the virtual machine"},
		"status 6":              {`{"exit":{"status":6,"error":"x"}}`, nil, 1, "in the virtual machine: x"},
		"status 1<<32":          {`{"exit":{"status":4294967296}}`, []string{goodReport}, 1, "in the virtual machine"},
		"status 5":              {`{"exit":{"status":5,"error":"bad image"}}`, nil, 5, "bad image"},
		"status 3":              {`{"exit":{"status":3,"error":"held"}}`, nil, 3, "held"},
		"status -7":             {`{"exit":{"status":-7,"error":"gone"}}`, []string{goodReport}, 0, "gone"},
		"status of no number":   {`{"exit":{"status":"0"}}`, []string{goodReport}, 0, "no message"},
		"exit before the start": {`{"phase":"installer"}`, nil, 0, "no place in the phase"},
		"an unknown event":      {`{"exit":{"status":0}}`, []string{`{"event":"triumph"}`, goodReport}, 0, `unknown kind "triumph"`},
		"an event of no kind":   {`{"exit":{"status":0}}`, []string{`7`, goodReport}, 0, "no event"},
		"a large event":         {`{"exit":{"status":0}}`, []string{`{"event":"note","message":"` + strings.Repeat("a b ", 20000) + `"}`, goodReport}, -1, ""},
		"an event of many members": {`{"exit":{"status":0}}`, []string{`{"event":"note","x":[` + strings.Repeat(`"a",`, 30000) + `"a"]}`, goodReport}, 0,
			"an event of"},
		"a stage without one": {`{"exit":{"status":0}}`, []string{`{"event":"stage"}`, goodReport}, 0, "without its status"},
		"a message too long":  {`{"exit":{"status":0,"error":"` + strings.Repeat("x", maxLine) + `"}}`, []string{goodReport}, 0, "middle of its work"},
	} {
		t.Run(name, func(t *testing.T) {
			b, _, err := say(t, c.exit, c.lines...)
			var guest *GuestError
			var machine *MachineError
			switch {
			case c.status < 0:
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			case c.status > 0 && (!errors.As(err, &guest) || guest.Status != c.status):
				t.Errorf("got %v (%+v), want status %d", err, guest, c.status)
			case c.status == 0 && !errors.As(err, &machine):
				t.Errorf("got %v, want a failure of the machine", err)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if b.report.Outcome != install.Failed || b.report.Error == "" {
				t.Errorf("the outcome is %q", b.report.Outcome)
			}
		})
	}
}

// Characters that command a terminal or change the direction of its text come out of a guest
// escaped, and long texts shortened: in events, in the report, in errors and in the console's last
// lines.
func TestTextsOfAGuestAreClean(t *testing.T) {
	const evil = `\u001b[2J\u001b]0;x\u0007\nInstallation complete\r\u202e\u2028\u009b\u0000`
	report := strings.Replace(goodReport, `"version":1,`, `"version":1,"notes":["`+evil+`"],"steps":[{"name":"`+evil+`"}],"error":"`+evil+`",`, 1)
	report = strings.Replace(report, `"seconds":1`, `"seconds":1,"evidence":{"`+evil+`":["`+evil+`"]}`, 1)
	b, events, err := say(t, `{"exit":{"status":1,"error":"`+evil+`"}}`,
		`{"event":"step","step":"`+evil+`","title":"`+evil+`"}`, `{"event":"note","message":"`+strings.Repeat("long ", 1000)+`"}`,
		`{"event":"stage","stage":{"name":"`+evil+`","status":"ok","summary":"`+evil+`"}}`, report)
	if err == nil {
		t.Fatal("it is taken for a success")
	}
	// Line breaks of an error are those between the lines of the console.
	for line := range strings.SplitSeq(err.Error(), "\n") {
		wantPlain(t, "an error", line)
	}
	if !strings.Contains(err.Error(), `  | begin\x1b[2Jend`) {
		t.Errorf("the console is not shown: %q", err)
	}
	text, err := json.Marshal(struct {
		Events []install.Event
		Report *Report
	}{events, b.report})
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	walk(value, func(s string) {
		if s != b.report.Error && !strings.HasPrefix(s, "in the virtual machine") {
			wantPlain(t, "a text", s)
		}
	})
	if n := slices.IndexFunc(events, func(e install.Event) bool { return e.Kind == install.EventNote }); n < 0 || len(events[n].Message) > 2100 {
		t.Errorf("a long text was not shortened")
	}
}

func wantPlain(t *testing.T, what, s string) {
	t.Helper()
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.HasPrefix(s, "Installation complete") {
		t.Errorf("%s is %q", what, s)
	}
}

func walk(value any, do func(string)) {
	switch x := value.(type) {
	case string:
		do(x)
	case []any:
		for _, v := range x {
			walk(v, do)
		}
	case map[string]any:
		for k, v := range x {
			do(k)
			walk(v, do)
		}
	}
}

// Numbers that a display computes with are made to fit.
func TestNumbersOfAGuest(t *testing.T) {
	e, err := parseEvent([]byte(`{"event":"progress","index":-3,"count":1000000,"done":-5,"total":10,"seconds":-1}`))
	if err != nil || e.Index != 0 || e.Count != maxSteps || e.Done != 0 || e.Seconds != 0 {
		t.Errorf("got %+v, %v", e, err)
	}
	if e, err = parseEvent([]byte(`{"event":"progress","done":50,"total":10,"index":7,"count":5}`)); err != nil || e.Done != 10 || e.Index != 5 {
		t.Errorf("got %+v, %v", e, err)
	}
}

// A guest that never stops to talk is ended, and so is one that goes through its phases twice.
func TestGuestMessagesAreBounded(t *testing.T) {
	w := &watcher{phase: PhaseInstaller, taken: maxMessages, console: hostprog.NewTail(100)}
	if err := w.take([]byte(`{"beat":true}`)); err == nil || !strings.Contains(err.Error(), "more than 1048576 messages") {
		t.Errorf("got %v", err)
	}
	for message, phase := range map[string]Phase{
		`{"phase":"devices"}`:       PhaseInstaller,
		`{"phase":"installer"}`:     PhaseInstaller,
		`{"line":{}}`:               PhaseDevices,
		`{"exit":{"status":0}}`:     PhaseDevices,
		`{"beat":true}`:             PhaseOff,
		`{"exit":{"status":  1} }`:  PhaseOff,
		`{"phase":"something new"}`: PhaseKernel,
	} {
		w := &watcher{phase: phase, console: hostprog.NewTail(100), started: func() {}, line: func([]byte) error { return nil }}
		if err := w.take([]byte(message)); err == nil || !strings.Contains(err.Error(), "no place in the phase") {
			t.Errorf("%s in the phase %s: %v", message, phase, err)
		}
	}
}

// The guest's names of its devices are replaced with the names that the user knows, in messages and
// in JSON.
func TestGuestDevicesAreNotNamed(t *testing.T) {
	names := deviceNames{target: `a"b/disk.qcow2`, source: "docker://os"}
	line, err := names.inJSON([]byte(`{"message":"reading oci-archive:/dev/installer-source to /dev/installer-target, rootfs:/run/source","done":9007199254740993}`))
	var e install.Event
	if err := errors.Join(err, json.Unmarshal(line, &e)); err != nil || e.Message != `reading docker://os to a"b/disk.qcow2, docker://os` || e.Done != 9007199254740993 {
		t.Errorf("got %q %d, %v", e.Message, e.Done, err)
	}
	if got := names.inText("/dev/installer-source: x"); got != "docker://os: x" {
		t.Errorf("got %q", got)
	}
	for _, bad := range []string{"", "{", `{"a":1`, "nonsense"} {
		if _, err := names.inJSON([]byte(bad)); err == nil {
			t.Errorf("%q was taken for JSON", bad)
		}
	}
}

// A machine that verifies reports each check, and cannot be mistaken for one that found nothing.
func TestVerifierTakesWholeChecks(t *testing.T) {
	var got []string
	v := &Verifier{said: func(c verify.Check, f []verify.Finding) { got = append(got, c.Name+" "+f[0].What) }}
	if err := v.guestSays([]byte(`{"check":{"name":"kernel","status":"failed"},"findings":[{"what":"bad","severity":"error"}]}`)); err != nil || !slices.Equal(got, []string{"kernel bad"}) {
		t.Errorf("got %q, %v", got, err)
	}
	if err := v.guestSays([]byte(`{"report":{"outcome":"damaged"}}`)); err != nil || v.report.Outcome != verify.Damaged {
		t.Errorf("got %+v, %v", v.report, err)
	}
	for _, bad := range []string{
		`[]`, `{"check":{"name":"kernel","status":"failed"}}`, `{"check":{"name":"kernel","status":"splendid"}}`,
		`{"check":{"name":"kernel","status":"passed"},"findings":[{"severity":"error"}]}`,
		`{"check":{"name":"kernel","status":"passed"},"findings":[{"severity":"slight"}]}`,
	} {
		if err := v.guestSays([]byte(bad)); err == nil {
			t.Errorf("%s was taken for a check", bad)
		}
	}
}

// A verifier that ends without a report has failed, whatever its exit status.
func TestVerifierWithoutReport(t *testing.T) {
	for status, want := range map[int]int{0: 1, 256: 1, 1: 1, 4: 4, -1: 1} {
		b, _ := fakeBuild(t, fmt.Sprintf(`read greeting <&5; printf '{"phase":"devices"}\n{"phase":"installer"}\n{"exit":{"status":%d}}\n' >&6`, status))
		j := b.job()
		j.accel, j.line = AccelTCG, (&Verifier{}).guestSays
		w, err := j.run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := w.guestError("").(*GuestError).Status; got != want {
			t.Errorf("status %d of the guest becomes %d, want %d", status, got, want)
		}
	}
}

// The disk is looked at by the host, whatever the guest said of it.
func TestOutputIsChecked(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T, file string)
		want string
	}{
		"empty":            {func(*testing.T, string) {}, "partition table"},
		"text":             {func(t *testing.T, f string) { overwrite(t, f, 0, strings.Repeat("no disk ", 1000)) }, "partition table"},
		"no file systems":  {partitioned, "its partition 1 is not the one that was planned"},
		"backing file":     {func(t *testing.T, f string) { qcow2(t, f, "-b", "/etc/passwd", "-F", "raw") }, "refers to"},
		"another size":     {func(t *testing.T, f string) { qcow2(t, f) }, "it has 2147483648 bytes in sectors of 512, planned were 1073741824"},
		"a damaged backup": {func(t *testing.T, f string) { partitioned(t, f); overwrite(t, f, 1<<30-512, "nothing") }, "backup"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b, _ := fakeBuild(t, "exit 3")
			b.opts.Output = filepath.Join(dir, "disk.qcow2")
			b.report.Disk.Size, b.report.Disk.SectorSize = 1<<30, sector
			b.report.Deployment.Kargs = []string{"ostree=/ostree/boot.1/x"}
			out, err := outfile.Create(b.opts.Output)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			if err := out.Truncate(1 << 30); err != nil {
				t.Fatal(err)
			}
			b.output = out
			c.make(t, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), out.Fd()))
			_, err = b.checkOutput(context.Background())
			var fault *OutputError
			if err == nil || c.want != "" && (!errors.As(err, &fault) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "/proc/") {
				t.Errorf("a name that nobody knows: %v", err)
			}
		})
	}
}

func overwrite(t *testing.T, file string, at int64, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(text), at); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// partitioned has the table of an installation by another program, and nothing in its partitions.
func partitioned(t *testing.T, file string) {
	t.Helper()
	cmd := exec.Command("sfdisk", "--quiet", file)
	cmd.Stdin = bytes.NewBufferString("label: gpt\nsize=1MiB, type=21686148-6449-6E6F-744E-656564454649\n" +
		"size=100MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\ntype=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func qcow2(t *testing.T, file string, options ...string) {
	t.Helper()
	args := append(append([]string{"create", "-q", "-f", "qcow2"}, options...), file, "2G")
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
