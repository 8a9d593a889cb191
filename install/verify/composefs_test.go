package verify

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"installer/finalize"
	"installer/rootfs/deploy"
	"installer/rootfs/image"
	"installer/rootfs/ostree"
	"installer/tests/kit"
)

// deployTree deploys a directory with the settings of its prepare-root.conf, and returns the root.
func deployTree(t *testing.T, conf string) (root *os.File, repo *ostree.Repo, d *deploy.Deployment) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	source := t.TempDir()
	for name, text := range map[string]string{
		"usr/lib/os-release": "ID=lab\n", "usr/lib/modules/6.1/vmlinuz": "kernel", "usr/lib/modules/6.1/initramfs.img": "initramfs",
		"usr/etc/passwd": "root\n", "usr/lib/ostree/prepare-root.conf": conf, "usr/empty": "",
	} {
		must(os.MkdirAll(filepath.Join(source, filepath.Dir(name)), 0o755))
		must(os.WriteFile(filepath.Join(source, name), []byte(text), 0o644))
	}
	img, err := image.Open(t.Context(), image.Ref{Transport: image.TransportRootfs, Name: source}, image.OpenOptions{})
	must(err)
	defer img.Close()
	root, err = os.Open(t.TempDir())
	must(err)
	t.Cleanup(func() { root.Close() })
	must(deploy.InitSysroot(root))
	ledger := finalize.NewLedger()
	repo, err = ostree.Create(root, ostree.Config{Bootloader: "none"}, ledger)
	must(err)
	t.Cleanup(func() { must(repo.Close()) })
	tree, err := img.Import(t.Context(), deploy.NewSink(repo), image.ImportOptions{})
	must(err)
	commit, err := deploy.WriteImage(t.Context(), repo, img, tree, "")
	must(err)
	settings, err := deploy.ReadRootSettings(os.DirFS(source))
	must(err)
	d, err = deploy.Deploy(t.Context(), root, repo, commit, deploy.Options{Kargs: []string{"rw"}, Refspec: deploy.RootfsRef, Root: settings}, ledger)
	must(err)
	kit.Run(t, "chattr", "-i", filepath.Join(root.Name(), d.Path))
	return root, repo, d
}

// TestComposefsImages damages the image of a deployment in every way that the check must see.
func TestComposefsImages(t *testing.T) {
	const wanted = "[composefs]\nenabled=yes\n"
	for name, c := range map[string]struct {
		conf   string
		change func(t *testing.T, path string)
		status Status
		want   string // in the detail, or in a finding
	}{
		"as it must be": {wanted, nil, Passed, "1 composefs image as the commits say; digest [0-9a-f]{64}$"},
		"not asked for": {"[composefs]\nenabled=no\n", nil, NotApplicable, "no deployment"},
		"missing":       {wanted, remove, Failed, "mounts no root without it"},
		"not needed":    {"[composefs]\nenabled=maybe\n", remove, NotApplicable, "without composefs"},
		"longer":        {wanted, func(t *testing.T, path string) { appendTo(t, path, "x") }, Failed, "longer"},
		"shorter":       {wanted, func(t *testing.T, path string) { truncate(t, path) }, Failed, "differs"},
		"a bit":         {wanted, func(t *testing.T, path string) { flip(t, path) }, Failed, "differs"},
		"no settings":   {wanted, func(t *testing.T, path string) { replaceConf(t, path) }, Failed, "perhaps"},
	} {
		t.Run(name, func(t *testing.T) {
			root, repo, dep := deployTree(t, c.conf)
			path := filepath.Join(root.Name(), dep.Path, deploy.ComposefsName)
			if c.change != nil {
				c.change(t, path)
			}
			f := &findings{result: Check{Status: Passed}, found: map[Severity]int{}}
			check := &composefsCheck{findings: f, tree: tree{root, finalize.NewLedger()}, repo: repo}
			if err := check.check(t.Context(), []*deployment{{path: dep.Path, stateroot: dep.Stateroot, commit: dep.Commit}}); err != nil {
				t.Fatal(err)
			}
			text := f.result.Detail
			for _, found := range f.list {
				text += "\n" + found.String()
			}
			if f.result.Status != c.status || !regexp.MustCompile(c.want).MatchString(text) {
				t.Errorf("%s: %s", f.result.Status, text)
			}
			if c.status == Passed && !strings.Contains(text, dep.Composefs) {
				t.Errorf("the digest is not %s: %s", dep.Composefs, text)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, path, text string) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string) {
	if err := os.Truncate(path, 8192); err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(inverted(t, path, 1200), 1200); err != nil {
		t.Fatal(err)
	}
}

// replaceConf gives the deployment settings that its initramfs would refuse.
func replaceConf(t *testing.T, path string) {
	conf := filepath.Join(filepath.Dir(path), "usr/lib/ostree/prepare-root.conf")
	remove(t, conf)
	if err := os.WriteFile(conf, []byte("[composefs]\nenabled=perhaps\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
