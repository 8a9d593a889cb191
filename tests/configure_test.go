package tests

import (
	"archive/tar"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/tests/layout"
)

// configured is the small image with more files, or symbolic links (text "-> TARGET").
func configured(t *testing.T, files map[string]string) string {
	t.Helper()
	return Variant(t, TinyImage(t), func(w *tar.Writer) error {
		for name, text := range files {
			h := tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}
			if target, isLink := strings.CutPrefix(text, "-> "); isLink {
				h.Typeflag, h.Linkname, h.Size, text = tar.TypeSymlink, target, 0, ""
			}
			if err := w.WriteHeader(&h); err != nil {
				return err
			}
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
		}
		return nil
	})
}

// richConfig is an image's configuration that says everything to-disk understands.
var richConfig = map[string]string{
	"usr/lib/bootc/install/00-base.toml": "[install]\nroot-fs-type = \"btrfs\"\nkargs = [\"nosmt\", \"console=tty0\"]\nstateroot = \"base\"\nunknown = 1\n",
	"etc/bootc/install/50-site.toml":     "[install.filesystem.root]\ntype = \"ext4\"\n[install]\nstateroot = \"site\"\nkargs = [\"debug\", \"a b\"]\nkarg-deletes = [\"console=tty1\"]\nroot-mount-spec = \"LABEL=x\"\n",
	"usr/lib/bootc/kargs.d/10.toml":      "kargs = [\"console=ttyS0,115200n8\", \"console=tty1\"]\n",
	"usr/lib/bootc/kargs.d/20.toml":      "kargs = [\"never\"]\nmatch-architectures = [\"aarch64\"]\n",
	"usr/share/kargs":                    "kargs = [\"by-a-link\"]\n",
	"usr/lib/bootc/kargs.d/30.toml":      "-> ../../../share/kargs",
	"etc/selinux/config":                 "SELINUX=enforcing\n",
	"root":                               "-> var/roothome",
}

// planReport holds the fields of a plan that the tests read.
type planReport struct {
	Plan *struct {
		Filesystem string
		Stateroot  string
		Bootloader string
		Kargs      []string
		Config     []string `json:"config_files"`
		RootNeed   int64    `json:"root_need"`
	}
	Outcome    string
	Notes      []string
	Deployment struct {
		Path  string
		Kargs []string
	}
	Disk struct {
		Filesystem string
		RootUUID   string `json:"root_uuid"`
	}
}

func readPlan(t *testing.T, args ...string) planReport {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.json")
	Run(t, append([]string{args[0], "--report", file}, args[1:]...)...).Must(t)
	data, err := os.ReadFile(file)
	must(t, err)
	var r planReport
	must(t, json.Unmarshal(data, &r))
	return r
}

// The image's configuration decides choices that the command line leaves open, and the
// kernel arguments come in the documented order; a key without effect is noted.
func TestImageConfiguresItsInstallation(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	must(t, os.WriteFile(keys, []byte("ssh-ed25519 ABCDE example@demo\n"), 0o600))
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	r := readPlan(t, installArgs(configured(t, richConfig), raw, "--karg-delete", "nosmt", "--karg", "quiet", "--karg", "nosmt=force",
		"--disable-selinux", "--root-ssh-authorized-keys", keys)...)
	if r.Disk.Filesystem != "ext4" || !strings.HasPrefix(r.Deployment.Path, "ostree/deploy/site/") {
		t.Errorf("%+v", r)
	}
	got := strings.Join(r.Deployment.Kargs, " ")
	want := `^root=UUID=` + r.Disk.RootUUID + ` rw systemd\.gpt_auto=0 selinux=0 console=tty0 debug a b console=ttyS0,115200n8 by-a-link quiet nosmt=force ostree=\S+$`
	if !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("kernel arguments %s\nwant %s", got, want)
	}
	notes := strings.Join(r.Notes, "\n")
	for _, part := range []string{"/usr/lib/bootc/install/00-base.toml: unknown key install.unknown", "root-mount-spec"} {
		if !strings.Contains(notes, part) {
			t.Errorf("no note of %q in:\n%s", part, notes)
		}
	}
	FsckAll(t, raw, "ext4")
	deployment := DefaultDeployment(t, MountRootReadOnly(t, raw))
	line, err := os.ReadFile(filepath.Join(deployment, "etc/tmpfiles.d/bootc-root-ssh.conf"))
	must(t, err)
	if want := "f~ /var/roothome/.ssh/authorized_keys 600 root root - c3NoLWVkMjU1MTkgQUJDREUgZXhhbXBsZUBkZW1vCg==\n"; string(line) != want {
		t.Errorf("root's keys: %q, want %q", line, want)
	}
	info, err := os.Stat(filepath.Join(deployment, "etc/tmpfiles.d/bootc-root-ssh.conf"))
	must(t, err)
	if info.Mode() != 0o644 {
		t.Errorf("root's keys have the mode %v", info.Mode())
	}
	// systemd itself must read it as meant.
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\n"), 0o644))
	must(t, os.MkdirAll(filepath.Join(root, "var/roothome/.ssh"), 0o700))
	mustCommand(t, "systemd-tmpfiles", "--create", "--root="+root, filepath.Join(deployment, "etc/tmpfiles.d/bootc-root-ssh.conf"))
	made, err := os.ReadFile(filepath.Join(root, "var/roothome/.ssh/authorized_keys"))
	if err != nil || string(made) != "ssh-ed25519 ABCDE example@demo\n" {
		t.Errorf("systemd-tmpfiles makes %q, %v", made, err)
	}
}

// The command line wins over the configuration, and a dry run writes nothing.
func TestDryRun(t *testing.T) {
	raw := rawFile(t, tinySize)
	ref := configured(t, richConfig)
	args := installArgs(ref, raw, "--dry-run", "--filesystem", "xfs", "--stateroot", "mine")
	r := readPlan(t, args...)
	if r.Outcome != "planned" || r.Plan == nil || r.Plan.Filesystem != "xfs" || r.Plan.Stateroot != "mine" || r.Plan.Bootloader != "none" || len(r.Plan.Config) != 5 {
		t.Errorf("%+v, plan %+v", r, r.Plan)
	}
	out := Run(t, args...).Must(t).Stdout
	for _, part := range []string{raw, "is empty", "EFI-SYSTEM", "root", "xfs, needs", ref, "nosmt console=tty0", "/etc/bootc/install/50-site.toml", "nothing was written"} {
		if !strings.Contains(out, part) {
			t.Errorf("the plan lacks %q:\n%s", part, out)
		}
	}
	if strings.Contains(out, "complete") {
		t.Error("a dry run says that something is complete")
	}
	nothingLeft(t, filepath.Dir(raw))
}

// A disk of just the size that a dry run asks for must do, and no smaller one would: the rest of the
// root is the room that the plan leaves on purpose.
func TestPlanIsExact(t *testing.T) {
	const mib = 1 << 20
	const others = 516 * mib // partitions beside the root, and the tables
	for _, fs := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			raw := filepath.Join(t.TempDir(), "disk.raw")
			makeRaw(t, raw, 8<<30)
			need := readPlan(t, installArgs(CacheImage(t), raw, "--dry-run", "--filesystem", fs)...).Plan.RootNeed
			need = (need + mib - 1) / mib * mib
			must(t, os.Truncate(raw, need+others-8*mib))
			refused(t, 4, installArgs(CacheImage(t), raw, "--filesystem", fs), `too small`)
			must(t, os.Truncate(raw, need+others))
			Run(t, installArgs(CacheImage(t), raw, "--filesystem", fs)...).Must(t)
			var st unix.Statfs_t
			must(t, unix.Statfs(MountRootReadOnly(t, raw), &st))
			free := int64(st.Bfree) * st.Bsize
			if fs == "btrfs" { // whose chunks make a free byte mean little
				free = 64 * mib
			}
			limit := int64(128 * mib)
			if fs == "xfs" { // the plan has room for the reverse mapping, which not every mkfs.xfs switches on
				limit = 192 * mib
			}
			if free < 32*mib || free > limit {
				t.Errorf("%d MiB are free on a root of %d MiB", free/mib, need/mib)
			}
		})
	}
}

// All that can be known of an image is known before the disk is written.
func TestRefusedBeforeTheFirstWrite(t *testing.T) {
	plain := func(files map[string]string) func(*testing.T) string {
		return func(t *testing.T) string { return configured(t, files) }
	}
	ref := func(make func(*testing.T) (string, string)) func(*testing.T) string {
		return func(t *testing.T) string { ref, _ := make(t); return ref }
	}
	const install = "usr/lib/bootc/install/00.toml"
	keys := filepath.Join(t.TempDir(), "keys")
	must(t, os.WriteFile(keys, []byte("ssh-ed25519 ABCDE example@demo\n"), 0o600))
	for name, c := range map[string]struct {
		ref    func(*testing.T) string
		args   []string
		status int
		want   string
	}{
		"no kernel":             {ref(withoutKernel), nil, 5, `no kernel`},
		"no system":             {ref(withoutSystem), nil, 5, `/usr/lib/os-release`},
		"layer of wrong digest": {ref(changedHeader), nil, 5, `the SHA-256 of the blob`},
		"layer damaged":         {ref(changedMiddle), nil, 5, `layer sha256:`},
		"layer of wrong diff":   {ref(wrongDiffID), nil, 5, `diff`},
		"no boot loader":        {plain(nil), []string{"--bootloader", "grub"}, 5, `the image has no /usr/bin/grub-mkimage: add package grub-common`},
		"configured loader":     {plain(map[string]string{install: "[install]\nbootloader = \"systemd\""}), []string{"--bootloader", ""}, 5, `systemd.*for UEFI|UEFI alone`},
		"unknown loader":        {plain(map[string]string{install: "[install]\nbootloader = \"grub-cc\""}), []string{"--bootloader", ""}, 5, `install configuration: .*grub-cc`},
		"no TOML":               {plain(map[string]string{install: "[install"}), nil, 5, `entry "usr/lib/bootc/install/00\.toml"`},
		"no file system":        {plain(map[string]string{install: "[install]\nroot-fs-type = \"vfat\""}), nil, 5, `vfat`},
		"encrypted":             {plain(map[string]string{install: "[install]\nblock = [\"tpm2-luks\"]"}), nil, 5, `tpm2-luks is not supported yet.*TPM`},
		"encrypted only":        {plain(map[string]string{install: "[install]\nblock = [\"tpm2-luks\"]"}), []string{"--block-setup", "direct"}, 5, `direct is not enabled`},
		"a bad kernel argument": {plain(map[string]string{"usr/lib/bootc/kargs.d/0.toml": "kargs = [\"a\\tb\"]"}), nil, 5, `kernel argument`},
		"bound images":          {plain(map[string]string{"usr/lib/bootc/bound-images.d/app.image": "-> /usr/share/app.image"}), nil, 5, `app\.image.*--bound-images=skip`},
		"composefs":             {plain(map[string]string{"etc/ostree/prepare-root.conf": "[composefs]\nenabled = signed\n"}), nil, 5, `composefs.enabled=signed.*no key in /etc/ostree/initramfs-root-binding.key`},
		"transient root":        {plain(map[string]string{"usr/lib/ostree/prepare-root.conf": "[root]\ntransient=true\n"}), nil, 5, `root.transient.*needs composefs`},
		"fs-verity":             {plain(map[string]string{"usr/lib/ostree/prepare-root.conf": "[composefs]\nenabled = verity\n"}), []string{"--filesystem", "xfs"}, 4, `fs-verity.*xfs has none; to do: --filesystem ext4`},
		"keys in memory": {plain(map[string]string{"usr/lib/ostree/prepare-root.conf": "[etc]\ntransient = true\n"}),
			[]string{"--root-ssh-authorized-keys", keys}, 5, `etc.transient=true; to do: put the keys into the image`},
		"no signature": {plain(map[string]string{install: "[install]\nenforce-container-sigpolicy = true"}), nil, 5, `install configuration demands a signature`},
		"fetch check":  {plain(nil), []string{"--run-fetch-check", "--target-imgref", "oci:/nonexistent/image"}, 5, `could not fetch its updates.*/nonexistent/image`},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, c.status, installArgs(c.ref(t), rawFile(t, tinySize), c.args...), c.want)
		})
	}
}

func TestRefusedFlags(t *testing.T) {
	raw, ref := rawFile(t, tinySize), TinyImage(t)
	empty := filepath.Join(t.TempDir(), "keys")
	must(t, os.WriteFile(empty, []byte("# no key\n\n"), 0o600))
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"encrypted":          {[]string{"--block-setup", "tpm2-luks"}, `not supported yet.*LUKS.*TPM.*/boot`},
		"unknown setup":      {[]string{"--block-setup", "lvm"}, `lvm`},
		"unknown treatment":  {[]string{"--bound-images", "copy"}, `--bound-images: .*stored, pull or skip`},
		"no keys file":       {[]string{"--root-ssh-authorized-keys", "/nonexistent"}, `--root-ssh-authorized-keys: .*/nonexistent`},
		"no keys":            {[]string{"--root-ssh-authorized-keys", empty}, `holds no key`},
		"check and no check": {[]string{"--run-fetch-check", "--skip-fetch-check"}, `exclude each other`},
		"a bad deletion":     {[]string{"--karg-delete", "a\tb"}, `to delete: .*kernel argument`},
	} {
		t.Run(name, func(t *testing.T) { refused(t, 2, installArgs(ref, raw, c.args...), c.want) })
	}
}

// Images that are bound may be left out, and are named.
func TestBoundImagesAreSkipped(t *testing.T) {
	ref := configured(t, map[string]string{"usr/lib/bootc/bound-images.d/app.image": "-> /usr/share/app.image"})
	r := readPlan(t, installArgs(ref, rawFile(t, tinySize), "--dry-run", "--bound-images", "skip")...)
	if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, "app.image") {
		t.Errorf("notes: %s", notes)
	}
}

// atTerminal runs the installer at a pseudo-terminal and types text there.
func atTerminal(t *testing.T, text string, args ...string) (output string, status int) {
	t.Helper()
	quoted := make([]string, 0, len(args)+1)
	for _, arg := range append([]string{BuildInstaller(t)}, args...) {
		quoted = append(quoted, "'"+arg+"'")
	}
	cmd := exec.CommandContext(t.Context(), "script", "-qefc", strings.Join(quoted, " "), "/dev/null")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// At a terminal, the content of a disk is shown and must be given up by name of
// yes; elsewhere and with --yes nobody is asked.
func TestConfirmation(t *testing.T) {
	ref := TinyImage(t)
	used := func(t *testing.T) string {
		raw := filepath.Join(t.TempDir(), "disk.raw")
		makeRaw(t, raw, tinySize)
		mustCommand(t, "mkfs.ext4", "-q", "-L", "precious", raw)
		return raw
	}
	for _, answer := range []string{"no\n", "\n", "y\n"} {
		raw := used(t)
		unchanged(t, raw)
		out, status := atTerminal(t, answer, installArgs(ref, raw, "--wipe")...)
		for _, part := range []string{"WILL BE LOST", "ext", "Type yes to overwrite " + raw, "not confirmed: nothing was written"} {
			if !strings.Contains(out, part) {
				t.Errorf("answer %q: no %q in:\n%s", answer, part, out)
			}
		}
		if status != 1 || strings.Contains(out, "complete:") {
			t.Errorf("answer %q: exit status %d", answer, status)
		}
		nothingLeft(t, filepath.Dir(raw))
	}
	for _, c := range []struct {
		text string
		args []string
		asks bool
	}{{"yes\n", nil, true}, {"", []string{"--yes"}, false}} {
		out, status := atTerminal(t, c.text, installArgs(ref, used(t), append(c.args, "--wipe")...)...)
		if status != 0 || !strings.Contains(out, "Installation complete") || strings.Contains(out, "Type yes") != c.asks {
			t.Errorf("%q: exit status %d:\n%s", c.text, status, out)
		}
	}
	empty := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, empty, tinySize)
	if out, status := atTerminal(t, "", installArgs(ref, empty)...); status != 0 || strings.Contains(out, "Type yes") {
		t.Errorf("an empty file: exit status %d:\n%s", status, out)
	}
}

// A disk device is asked about even when it is empty: it may be the wrong one.
func TestConfirmationOfADevice(t *testing.T) {
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, tinySize)
	device := loopDevice(t, raw)
	out, status := atTerminal(t, "no\n", "to-disk", "--source-imgref", TinyImage(t), "--bootloader", "none", device)
	if status != 1 || !strings.Contains(out, "is empty") || !strings.Contains(out, "Type yes to overwrite "+device) {
		t.Errorf("exit status %d:\n%s", status, out)
	}
}

// The configuration is printed as bootc prints it, of an image and of the running root.
func TestPrintConfiguration(t *testing.T) {
	ref := configured(t, richConfig)
	r := Run(t, "print-configuration", "--source-imgref", ref).Must(t)
	const want = `{"block":["direct"],"boot-mount-spec":null,"bootloader":null,"bootupd":null,"discoverable-partitions":null,` +
		`"enforce-container-sigpolicy":null,"filesystem":{"root":{"type":"ext4"}},"match-architectures":null,"ostree":null,` +
		`"root-fs-type":"ext4","root-mount-spec":"LABEL=x","stateroot":"site"}` + "\n"
	if r.Stdout != want {
		t.Errorf("got  %swant %s", r.Stdout, want)
	}
	if !strings.Contains(r.Stderr, "unknown key install.unknown") {
		t.Errorf("standard error: %s", r.Stderr)
	}
	all := Run(t, "print-configuration", "--all", "--source-imgref", ref).Must(t).Stdout
	if !strings.Contains(all, `"karg-deletes":["console=tty1"],"kargs":["nosmt","console=tty0","debug","a b"]`) {
		t.Errorf("with --all: %s", all)
	}
	if out := Run(t, "print-configuration").Must(t).Stdout; !json.Valid([]byte(out)) || !strings.HasPrefix(out, `{"block":`) {
		t.Errorf("of the running root: %s", out)
	}
	dir, _ := splitRef(ref)
	config, _, _, err := layout.Read(dir)
	must(t, err)
	if config.Architecture != "amd64" {
		t.Errorf("the image is for %s", config.Architecture)
	}
}
