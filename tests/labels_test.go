package tests

import (
	"archive/tar"
	"encoding/json"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"installer/install"
	"installer/install/verify"
)

// debianPolicy is the SELinux policy of the package selinux-policy-default, as files of an image.
func debianPolicy(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, pattern := range []string{"config", "default/contexts/files/file_contexts", "default/contexts/files/file_contexts.homedirs",
		"default/contexts/files/file_contexts.subs_dist", "default/policy/policy.*"} {
		found, err := filepath.Glob("/etc/selinux/" + pattern)
		must(t, err)
		if len(found) != 1 {
			t.Fatalf("the package selinux-policy-default has %v for %s", found, pattern)
		}
		files[strings.TrimPrefix(found[0], "/")] = readText(t, found[0])
	}
	return files
}

// netRaw is a capability, an attribute before the label in the order of names: the ostree of Debian 12 puts
// the label after all others.
const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// labelledImage is the small image with Debian's policy, files of many types and a name for each,
// and a hard link whose names have different labels.
func labelledImage(t *testing.T) string {
	t.Helper()
	files := debianPolicy(t)
	maps.Copy(files, map[string]string{
		"etc/shadow": "root:*::\n", "etc/ssh/sshd_config": "x", "usr/bin/passwd": "x", "usr/sbin/sshd": "x", "usr/lib/libx.so.1": "x",
		"usr/lib/systemd/systemd": "x", "usr/share/doc/x": "x", "var/log/messages": "x", "var/lib/dpkg/status": "x", "usr/bin/su": "x",
		"usr/lib/link": "-> libx.so.1",
	})
	ref := configured(t, files)
	return Variant(t, ref, func(w *tar.Writer) error {
		for _, h := range []*tar.Header{
			{Name: "usr/bin/mount", Mode: 0o4755, PAXRecords: map[string]string{"SCHILY.xattr.security.selinux": "other:r:stale_t:s0\x00", "SCHILY.xattr.security.capability": netRaw}},
			{Name: "usr/share/mount-copy", Typeflag: tar.TypeLink, Linkname: "usr/bin/mount"},
			{Name: "etc/init.d/", Typeflag: tar.TypeDir, Mode: 0o755},
			{Name: "etc/init.d/x", Mode: 0o755},
		} {
			if err := w.WriteHeader(h); err != nil {
				return err
			}
		}
		return nil
	})
}

// placed is a file of a target: its type by find's letter, and its label, "" for none.
type placed struct {
	kind, links, label string
}

// listLabels is a script that lists the files of a root at $1, and then their labels.
const listLabels = `cd "$1"; find . -xdev -printf '%y %n %p\n'; echo LABELS
	find . -xdev -print0 | xargs -0 getfattr -h --absolute-names -n security.selinux 2>/dev/null || true; cd /`

// readLabels reads the output of listLabels.
func readLabels(t *testing.T, out string) map[string]*placed {
	t.Helper()
	list, labels, found := strings.Cut(out, "LABELS\n")
	if !found {
		t.Fatalf("no labels in:\n%s", out)
	}
	files := map[string]*placed{}
	for line := range strings.Lines(list) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3); len(f) == 3 {
			files[f[2]] = &placed{kind: f[0], links: f[1]}
		}
	}
	at := ""
	for line := range strings.Lines(labels) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "# file: "); ok {
			at = name
		} else if label, ok := strings.CutPrefix(line, "security.selinux="); ok && files[at] != nil {
			files[at].label = strings.TrimSuffix(strings.Trim(label, `"`), `\000`)
		}
	}
	return files
}

var inDeployment = regexp.MustCompile(`^\./ostree/deploy/default/deploy/[0-9a-f]{64}\.0(/.*)?$`)

// seenAs returns the path by which the running system labels a file of a target, and whether its
// label is one of the policy's at all.
func seenAs(name string, f *placed) (as string, known bool) {
	rest, inVar := strings.CutPrefix(name, "./ostree/deploy/default/var")
	switch {
	case inDeployment.MatchString(name):
		as = "/" + strings.TrimPrefix(inDeployment.FindStringSubmatch(name)[1], "/")
		return as, as != "/proc"
	case inVar:
		return "/var" + rest, true
	case name == "./boot" || strings.HasPrefix(name, "./boot/"):
		return name[1:], f.kind == "d" || f.links == "1"
	case name == "." || name == "./lost+found" || name == "./.bootc-aleph.json":
		return "/" + strings.TrimPrefix(name[1:], "/"), true
	case strings.HasSuffix(name, "root-transient/upper"):
		return "/", true
	case strings.HasSuffix(name, ".file"):
		return "", false
	}
	return "/usr", true
}

// kindNames are matchpathcon's words for find's letters.
var kindNames = map[string]string{"f": "file", "d": "dir", "l": "lnk_file"}

// checkLabels compares the labels of a target with those of libselinux, by the policy of this
// machine.
func checkLabels(t *testing.T, files map[string]*placed) {
	t.Helper()
	asked := map[string]map[string]string{} // labels by letter and path
	each := func(fn func(name, kind, as string)) {
		for name, f := range files {
			as, known := seenAs(name, f)
			kind := f.kind
			if as == "/usr" {
				kind = "d"
			}
			if known {
				fn(name, kind, as)
			}
		}
	}
	each(func(_, kind, as string) {
		if asked[kind] == nil {
			asked[kind] = map[string]string{}
		}
		asked[kind][as] = ""
	})
	for kind, labels := range asked {
		list := slices.Collect(maps.Keys(labels))
		args := []string{"-f", "/etc/selinux/default/contexts/files/file_contexts", "-n", "-m", kindNames[kind]}
		out := strings.Split(strings.TrimSpace(mustCommand(t, "matchpathcon", append(args, list...)...)), "\n")
		for i, as := range list {
			labels[as] = strings.Replace(out[i], "<<none>>", "", 1)
		}
	}
	total, wrong := 0, 0
	each(func(name, kind, as string) {
		total++
		if got, want := files[name].label, asked[kind][as]; got != want {
			if wrong++; wrong < 20 {
				t.Errorf("%s, which is %s, has the label %q, want %q", name, as, got, want)
			}
		}
	})
	if total < 300 || wrong > 0 {
		t.Errorf("%d of %d labels are wrong", wrong, total)
	}
}

// sameAsOstree commits the deployed tree by ostree and the policy in it, and compares the two listings.
const sameAsOstree = `work=$(mktemp -d "$2/XXXXXX"); repo=$1/ostree/repo
	ostree checkout --repo="$repo" "$(ostree rev-parse --repo="$repo" ostree/1/1/0)" "$work/tree"
	ostree init --repo="$work/repo" --mode=bare
	ostree commit --repo="$work/repo" --branch=x --selinux-policy="$work/tree" --tree=dir="$work/tree" >/dev/null
	ostree ls --repo="$repo" -R -C -X ostree/1/1/0 / >"$work/ours"; ostree ls --repo="$work/repo" -R -C -X x / >"$work/ostree"
	diff "$work/ours" "$work/ostree" && echo equal && head -n 1 "$work/ours"`

// An image with an SELinux policy is installed with the labels that libselinux and ostree give it,
// the same each time.
func TestLabels(t *testing.T) {
	ref := labelledImage(t)
	commits := map[string]bool{}
	for _, flags := range [][]string{nil, {"--filesystem", "ext4", "--root-ssh-authorized-keys", sshKeys(t)}} {
		raw, report := filepath.Join(t.TempDir(), "raw"), filepath.Join(t.TempDir(), "report")
		makeRaw(t, raw, tinySize)
		Run(t, installArgs(ref, raw, append(flags, "--report", report)...)...).Must(t)
		checkLabels(t, readLabels(t, onRoot(t, raw, os.O_RDONLY, listLabels)))
		if out := onRoot(t, raw, os.O_RDONLY, sameAsOstree, t.TempDir()); !strings.HasPrefix(out, "equal\n") || !strings.Contains(out, "root_t") {
			t.Errorf("the commit, and that of ostree:\n%s", out)
		}
		var r install.Report
		must(t, json.Unmarshal([]byte(readText(t, report)), &r))
		commits[r.Deployment.Commit] = true
		if s := r.SELinux; s == nil || s.Policy != "default" || s.Version < 30 || len(s.Checksum) != 64 || s.Labels < 10 || s.Labelled < 100 || s.System < 100 {
			t.Errorf("the report says %+v of the labels", s)
		}
		found, _ := verified(t, raw)
		for _, f := range found.Findings {
			if (f.Severity == verify.Error || f.Check == "labels") && !strings.HasPrefix(f.Check, "esp-") { // it has no boot loader
				t.Errorf("verify finds %s", f)
			}
		}
		checkWrongLabels(t, raw)
	}
	if len(commits) != 1 {
		t.Errorf("the same image has the commits %v", commits)
	}
}

// checkWrongLabels changes labels of a disk, which verify must list.
func checkWrongLabels(t *testing.T, raw string) {
	t.Helper()
	onRoot(t, raw, os.O_RDWR, `cd "$1"/ostree/deploy/default; label() { setfattr -h -n security.selinux -v "system_u:object_r:$1:s0" "$2"; }
		label etc_t deploy/*.0/etc/shadow; label usr_t deploy/*.0/etc/init.d/x; label usr_t var/log/messages; label tmp_t deploy/*.0/usr/share/doc
		setfattr -h -x security.selinux var/lib/dpkg; cd /`)
	report, _ := verified(t, raw)
	var got []string
	for _, f := range report.Findings {
		if f.Check == "labels" {
			got = append(got, string(f.Severity)+" "+f.String())
		}
	}
	text := strings.Join(got, "\n")
	for _, want := range []string{
		`(?m)^note /ostree/\S*/etc: 1 file with the label of /usr/etc`,
		`(?m)^note \S*/etc/init\.d/x: its SELinux label is system_u:object_r:usr_t:s0, and by the policy system_u:object_r:initrc_exec_t:s0$`,
		`(?m)^note \S*/var/log/messages: its SELinux label is`, `(?m)^note \S*/var/lib/dpkg: it has no SELinux label, and by the policy`,
		`(?m)^error \S*/usr/share/doc: its SELinux label is system_u:object_r:tmp_t:s0`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("verify does not find %s", want)
		}
	}
	if len(got) != 5 {
		t.Errorf("verify finds of the labels:\n%s", text)
	}
}

// sshKeys is a file with a key of root's.
func sshKeys(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keys")
	must(t, os.WriteFile(name, []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIb3Kb4t0mL1YvYVd9Cq9V4mTZb0lJ9rX5nU6uZ0dQpM x\n"), 0o600))
	return name
}

// A policy with a broken line, and one that is incomplete, are refused before the first write; a
// system that starts without SELinux gets no labels.
func TestBrokenPolicy(t *testing.T) {
	policy := debianPolicy(t)
	contexts := "etc/selinux/default/contexts/files/file_contexts"
	broken, incomplete := maps.Clone(policy), maps.Clone(policy)
	broken[contexts+".local"] = "# one's own\n/opt/(x system_u:object_r:usr_t:s0\n"
	delete(incomplete, contexts)
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"broken":     {broken, path.Base(contexts) + `\.local, line 2: the regular expression "/opt/\(x"`},
		"incomplete": {incomplete, contexts},
	} {
		ref, raw := configured(t, c.files), filepath.Join(t.TempDir(), "raw")
		refused(t, 5, installArgs(ref, rawFile(t, tinySize)), c.want)
		makeRaw(t, raw, tinySize)
		Run(t, installArgs(ref, raw, "--disable-selinux")...).Must(t)
		for at, f := range readLabels(t, onRoot(t, raw, os.O_RDONLY, listLabels)) {
			if f.label != "" {
				t.Fatalf("%s: with --disable-selinux %s has the label %s", name, at, f.label)
			}
		}
	}
}
