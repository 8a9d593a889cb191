package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// validator checks documents, one a line, against a schema, by Debian's python3-jsonschema. A
// member that the schema does not describe is an error too, though the schema itself allows it.
const validator = `
import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
for d in schema["$defs"].values():
    if "properties" in d:
        d["additionalProperties"] = False
v = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
n = 0
for line in sys.stdin:
    n += 1
    for e in v.iter_errors(json.loads(line)):
        print("document %d: %s: %s" % (n, "/".join(map(str, e.absolute_path)), e.message[:400]))
print("%d documents" % n)
`

// validate holds documents against the schema that the installer prints.
func validate(t *testing.T, schema string, documents ...string) {
	t.Helper()
	if text := faults(t, schema, documents...); text != "" {
		t.Errorf("%s:\n%.2000s", schema, text)
	}
}

// faults lists the faults of documents.
func faults(t *testing.T, schema string, documents ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), schema+".json")
	must(t, os.WriteFile(file, []byte(Run(t, "schema", schema).Must(t).Stdout), 0o600))
	var lines bytes.Buffer
	for _, d := range documents {
		must(t, json.Compact(&lines, []byte(d)))
		lines.WriteByte('\n')
	}
	cmd := exec.Command("python3", "-c", validator, file)
	cmd.Stdin = &lines
	out, err := cmd.CombinedOutput()
	text, ok := strings.CutSuffix(string(out), fmt.Sprintf("%d documents\n", len(documents)))
	if err != nil || !ok || len(documents) == 0 {
		t.Fatalf("validating %d documents: %v\n%s", len(documents), err, out)
	}
	return text
}

// Output for programs is as its schema says: of success, of a refusal, of a failure, and of a dry
// run.
func TestSchemaOfInstallation(t *testing.T) {
	dir := t.TempDir()
	raw, report := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "report.json")
	makeRaw(t, raw, tinySize)
	withoutKernel, _ := withoutKernel(t)
	for _, c := range []struct { // in this order
		name   string
		args   []string
		status int
	}{
		{"dry run", installArgs(TinyImage(t), raw, "--dry-run"), 0},
		{"success", installArgs(TinyImage(t), raw, "--wipe"), 0},
		{"refusal", installArgs(TinyImage(t), raw), 4},
		{"image", installArgs(withoutKernel, raw, "--wipe"), 5},
		{"no image", installArgs("oci:"+dir+"/none", raw), 5},
	} {
		r := Run(t, append(c.args, "--progress", "json", "--report", report)...)
		if r.Code != c.status {
			t.Fatalf("%s: exit status %d, want %d:\n%s", c.name, r.Code, c.status, r.Stderr)
		}
		var events []string
		for line := range strings.Lines(r.Stdout) {
			events = append(events, line)
		}
		validate(t, "event", events...)
		text, err := os.ReadFile(report)
		must(t, err)
		validate(t, "report", string(text))
	}
	r := Run(t, "verify", "--json", raw) // how the small image fares is not the question
	validate(t, "verify", r.Stdout)
}

// An installation to a file system that is mounted has a report of the same form, and a page.
func TestSchemaOfToFilesystem(t *testing.T) {
	x := mountExt4(t, 400<<20)
	dir := t.TempDir()
	report := filepath.Join(dir, "report.json")
	r := Run(t, "to-filesystem", "--source-imgref", TinyImage(t), "--bootloader", "none", "--progress", "json", "--report", report, x).Must(t)
	validate(t, "event", strings.Split(strings.TrimSpace(r.Stdout), "\n")...)
	text, err := os.ReadFile(report)
	must(t, err)
	validate(t, "report", string(text))
	page := Run(t, "report", "-o", "-", report).Must(t).Stdout
	for _, want := range []string{"Installation complete", "Mounted as root", x + ": ext4 on /dev/loop"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestSchemaOfRelease(t *testing.T) {
	x := mountTiny(t)
	f, err := os.Create(filepath.Join(x, "open"))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	validate(t, "holders", Run(t, "holders", "--json", x).Stdout)
	report := filepath.Join(t.TempDir(), "report.json")
	finalize := func(status int, more ...string) {
		t.Helper()
		r := Run(t, append([]string{"finalize", "--json", "--report", report, x}, more...)...)
		if r.Code != status {
			t.Fatalf("exit status %d, want %d:\n%s", r.Code, status, r.Stderr)
		}
		validate(t, "event", strings.Split(strings.TrimSpace(r.Stdout), "\n")...)
		text, err := os.ReadFile(report)
		must(t, err)
		validate(t, "finalize", string(text))
	}
	finalize(3)
	must(t, f.Close())
	finalize(0, "--keep-mounted")
	validate(t, "holders", Run(t, "holders", "--json", x).Must(t).Stdout)
}

// The validator is no rubber stamp.
func TestSchemaRefuses(t *testing.T) {
	for _, bad := range []string{`{"event":"step","time":"2026-11-21T12:00:00Z"}`, `{"event":"party"}`, `{}`, `{"event":"note","time":"x","message":"m","new":1}`} {
		if faults(t, "event", bad) == "" {
			t.Errorf("%s passes", bad)
		}
	}
	if r := Run(t, "schema", "nonsense"); r.Code != 2 || !strings.Contains(r.Stderr, "event, report, finalize, holders, verify") {
		t.Errorf("exit status %d:\n%s", r.Code, r.Stderr)
	}
}

// Each manual page is as the macros want it, and shows the expected sections.
func TestManPages(t *testing.T) {
	dir := t.TempDir()
	pages := strings.Fields(Run(t, "man", dir).Must(t).Stdout)
	if len(pages) < 10 {
		t.Fatalf("pages %q", pages)
	}
	if out := mustCommand(t, "mandoc", append([]string{"-T", "lint", "-W", "warning"}, pages...)...); out != "" {
		t.Errorf("mandoc says:\n%s", out)
	}
	shown := mustCommand(t, "mandoc", "-T", "utf8", "-O", "width=200", filepath.Join(dir, "installer-to-disk.1"))
	shown = regexp.MustCompile(`.\x08`).ReplaceAllString(shown, "") // bold and underlined, by striking over
	for _, want := range []string{"--source-imgref REF", "containers-storage:NAME", "-q, --quiet", "installer to-disk --source-imgref oci:myos:latest --wipe /dev/vda", "installer(1)"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the page of to-disk lacks %q", want)
		}
	}
}

func TestVersion(t *testing.T) {
	var v struct{ Version, Go, OS, Arch string }
	must(t, json.Unmarshal([]byte(Run(t, "version", "--json").Must(t).Stdout), &v))
	if v.Version == "" || v.Go != runtime.Version() || v.OS != "linux" || v.Arch != runtime.GOARCH {
		t.Errorf("%+v", v)
	}
	if line := Run(t, "version").Must(t).Stdout; !strings.HasPrefix(line, "installer ") || strings.Count(line, "\n") != 1 || !strings.Contains(line, runtime.Version()) {
		t.Errorf("%q", line)
	}
}
