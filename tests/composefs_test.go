package tests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"installer/tests/kit"
)

// An image that asks for composefs is installed with the image by which its initramfs mounts the
// root, and nothing turns composefs off; its settings are those of the repository.
func TestComposefsDeployment(t *testing.T) {
	ref := configured(t, map[string]string{"usr/lib/ostree/prepare-root.conf": "[composefs]\nenabled = yes\n[sysroot]\nreadonly = false\n"})
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	report := filepath.Join(t.TempDir(), "report.json")
	Run(t, installArgs(ref, raw, "--report", report)...).Must(t)
	var r struct {
		Notes      []string
		Deployment struct {
			Path, Composefs string
			Kargs           []string
		}
	}
	data, err := os.ReadFile(report)
	must(t, err)
	must(t, json.Unmarshal(data, &r))
	if text := strings.Join(append(r.Notes, r.Deployment.Kargs...), "\n"); strings.Contains(text, "composefs") {
		t.Errorf("composefs is spoken of:\n%s", text)
	}
	var checked struct {
		Checks []struct{ Name, Status, Detail string }
	}
	must(t, json.Unmarshal([]byte(Run(t, "verify", "--json", raw).Stdout), &checked))
	seen := false // of a disk without a boot loader, which has faults
	for _, c := range checked.Checks {
		seen = seen || c.Name == "composefs" && c.Status == "passed" && strings.Contains(c.Detail, r.Deployment.Composefs)
	}
	if !seen {
		t.Errorf("the checks are %+v", checked.Checks)
	}
	root := MountRootReadOnly(t, raw)
	image := filepath.Join(root, r.Deployment.Path, ".ostree.cfs")
	if got := strings.TrimSpace(kit.Oracle(t, "composefs-info", "measure-file", image)); got != r.Deployment.Composefs {
		t.Errorf("the digest is %s, the report has %q", got, r.Deployment.Composefs)
	}
	for _, name := range strings.Fields(kit.Oracle(t, "composefs-info", "objects", image)) {
		if _, err := os.Stat(filepath.Join(root, "ostree/repo/objects", name)); err != nil {
			t.Error(err)
		}
	}
	if config, err := os.ReadFile(filepath.Join(root, "ostree/repo/config")); err != nil || !strings.Contains(string(config), "readonly=false") {
		t.Errorf("the repository's configuration: %s, %v", config, err)
	}
}
