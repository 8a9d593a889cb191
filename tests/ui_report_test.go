package tests

import (
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// browse runs a browser without a window on a page, in a home of its own, and returns its output.
func browse(t *testing.T, page string, args ...string) string {
	t.Helper()
	home, err := os.MkdirTemp("", "browser")
	must(t, err)
	t.Cleanup(func() { removeWhenLeft(t, home) })
	all := []string{"HOME=" + home, "TMPDIR=" + home, "XDG_RUNTIME_DIR=" + home, "chromium", "--headless", "--no-sandbox", "--disable-gpu",
		"--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-breakpad", "--disable-crash-reporter", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--user-data-dir=" + home + "/data"}
	all = append(append(all, args...), "file://"+page)
	return RunBinary(t, "env", all...).Must(t).Stdout
}

// removeWhenLeft removes a browser's home. Its helpers write there until they have ended, which is
// after it has.
func removeWhenLeft(t *testing.T, home string) {
	t.Helper()
	left := func() bool {
		names, err := filepath.Glob("/proc/[0-9]*/cmdline")
		must(t, err)
		for _, name := range names {
			text, _ := os.ReadFile(name) // a process that ended meanwhile has none
			if strings.Contains(string(text), home) {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(20 * time.Second); !left() && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	if err := os.RemoveAll(home); err != nil {
		t.Error(err)
	}
}

// A report as a page: by the suffix of --report, and from the JSON of another run. The browser's
// own reading of it is complete, and its drawing is to scale.
func TestReportPage(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	makeRaw(t, raw, tinySize)
	page, report := filepath.Join(dir, "direct.html"), filepath.Join(dir, "report.json")
	Run(t, installArgs(TinyImage(t), raw, "--report", page)...).Must(t)
	checkPage(t, page, "Installation complete", raw)

	Run(t, installArgs(TinyImage(t), raw, "--wipe", "--karg", "x=</title><script>", "--report", report)...).Must(t)
	made := strings.TrimSpace(Run(t, "report", report).Must(t).Stdout)
	if made != filepath.Join(dir, "report.html") {
		t.Fatalf("the page is said to be %q", made)
	}
	r := readReport(t, report)
	wants := []string{"Installation complete", raw, r.Source.Digest, r.Deployment.Path, r.Deployment.Kernel, r.Disk.RootUUID, "x=&lt;/title&gt;&lt;script&gt;", "was on the disk before"}
	wants = append(wants, r.Deployment.Kargs[0], "EFI-SYSTEM", "prove-released")
	for _, s := range r.Finalize.Stages {
		wants = append(wants, `id="stage-`+s.Name+`"`)
	}
	wants = append(wants, scalars(t, r.Finalize.Stages[9].Evidence)...)
	checkPage(t, made, wants...)
	checkDrawing(t, made)
}

// scalars lists every word of a piece of evidence.
func scalars(t *testing.T, evidence json.RawMessage) []string {
	t.Helper()
	found := regexp.MustCompile(`"([^"]+)"(?:[,\]}\s])`).FindAllStringSubmatch(string(evidence), -1)
	if len(found) == 0 {
		t.Fatalf("no evidence in %s", evidence)
	}
	var list []string
	for _, m := range found {
		list = append(list, m[1])
	}
	return list
}

// checkPage has a browser read the page. Nothing in it may come from elsewhere, or run.
func checkPage(t *testing.T, page string, wants ...string) {
	t.Helper()
	dom := browse(t, page, "--dump-dom")
	for _, want := range wants {
		if !strings.Contains(dom, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	foreign := regexp.MustCompile(`(?i)<(script|link|img|iframe|object|embed|base|form)\b|\b(src|href|action|srcset)\s*=|url\(|@import|https?:|\bon[a-z]+\s*=\s*"`)
	if found := foreign.FindString(dom); found != "" {
		t.Errorf("the page refers to something else: %q", found)
	}
	if !strings.Contains(dom, "<svg") {
		t.Error("nothing is drawn")
	}
}

// checkDrawing measures, in the browser's drawings at two widths, the picture of the disk: the
// small disk's EFI system partition takes as much as its root.
func checkDrawing(t *testing.T, page string) {
	t.Helper()
	for _, width := range []int{800, 1400} {
		shot := filepath.Join(t.TempDir(), "page.png")
		browse(t, page, "--window-size="+strconv.Itoa(width)+",1600", "--screenshot="+shot)
		f, err := os.Open(shot)
		must(t, err)
		img, err := png.Decode(f)
		f.Close()
		must(t, err)
		esp, root := widest(img, color.RGBA{0xd1, 0x81, 0x2a, 0xff}), widest(img, color.RGBA{0x2f, 0x74, 0xd0, 0xff})
		if img.Bounds().Dx() != width || esp < width/4 || root < width/4 || float64(esp)/float64(root) < 0.95 || float64(esp)/float64(root) > 1.05 {
			t.Errorf("at a width of %d the EFI system partition takes %d and the root %d, in a picture of %v", width, esp, root, img.Bounds())
		}
	}
}

// widest is the length of the longest row of one colour.
func widest(img image.Image, want color.RGBA) int {
	longest := 0
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		run := 0
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			if color.RGBAModel.Convert(img.At(x, y)) != want {
				run = 0
				continue
			}
			run++
			longest = max(longest, run)
		}
	}
	return longest
}

// A release that is stopped names the holder and the remedy on its page too; holders --report makes
// the same.
func TestReportPageOfHolders(t *testing.T) {
	x := mountTiny(t)
	f, err := os.Create(filepath.Join(x, "open"))
	must(t, err)
	t.Cleanup(func() { f.Close() }) // before the unmount
	dir := t.TempDir()
	page := filepath.Join(dir, "finalize.html")
	if r := Run(t, "finalize", "--report", page, x); r.Code != 3 {
		t.Fatalf("exit status %d:\n%s", r.Code, r.Stderr)
	}
	wants := []string{"Not released", `<span class="badge bad">fd</span>`, "process " + strconv.Itoa(os.Getpid()), "to do"}
	checkPage(t, page, append(wants, "not-run")...)
	page = filepath.Join(dir, "holders.html")
	if r := Run(t, "holders", "--report", page, x); r.Code != 3 {
		t.Fatalf("exit status %d:\n%s", r.Code, r.Stderr)
	}
	text, err := os.ReadFile(page)
	must(t, err)
	for _, want := range append(wants[1:], "Held") {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page of holders lacks %q", want)
		}
	}
}

func TestReportRefusals(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		must(t, os.WriteFile(name, []byte(text), 0o600))
		return name
	}
	other, sound := write("other.json", `{"name":"other"}`), write("good.json", `{"verdict":"free","holders":[]}`)
	for want, args := range map[string][]string{
		"none.json: no such file":               {"report", filepath.Join(dir, "none.json")},
		"other.json: this is no report":         {"report", other},
		"x.html: .*nowhere.*no such file or di": {"report", "-o", dir + "/nowhere/x.html", sound},
	} {
		r := Run(t, args...)
		if r.Code != 1 || !regexp.MustCompile(want).MatchString(r.Stderr) || r.Stdout != "" {
			t.Errorf("%q: exit status %d, want 1 and %q:\n%s", args, r.Code, want, r.Stderr)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if r := Run(t, "report", "-o", "-", sound).Must(t); !strings.HasPrefix(r.Stdout, "<!DOCTYPE html>") {
		t.Errorf("standard output has %.40q", r.Stdout)
	}
}

// mountTiny mounts a small file system of its own, until the test ends.
func mountTiny(t *testing.T) string { return mountExt4(t, 64<<20) }

func mountExt4(t *testing.T, size int64) string {
	t.Helper()
	raw, dir := filepath.Join(t.TempDir(), "fs.raw"), t.TempDir()
	makeRaw(t, raw, size)
	device := loopDevice(t, raw)
	mustCommand(t, "mkfs.ext4", "-q", device)
	must(t, unix.Mount(device, dir, "ext4", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	return dir
}
