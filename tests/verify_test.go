package tests

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"installer/install/verify"
)

// verifyDisk installs the image on a new disk file, and returns its path and the path of its
// deployment.
func verifyDisk(t *testing.T, flags ...string) (raw, deployment string) {
	t.Helper()
	raw = filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(3<<30), f.Close()); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"to-disk", "--source-imgref", CacheImage(t), "--via-loopback", "--generic-image"}, flags...)
	out := Run(t, append(args, raw)...).Must(t).Stdout
	m := regexp.MustCompile(`ostree/deploy/default/deploy/[0-9a-f]{64}\.0`).FindString(out)
	if m == "" {
		t.Fatalf("no deployment in the summary:\n%s", out)
	}
	return raw, m
}

// verified runs the command and reads its report.
func verified(t *testing.T, disk string, flags ...string) (*verify.Report, int) {
	t.Helper()
	return readVerified(t, Run(t, append(append([]string{"verify", "--json"}, flags...), disk)...))
}

func readVerified(t *testing.T, r Result) (*verify.Report, int) {
	t.Helper()
	report := &verify.Report{}
	if err := json.Unmarshal([]byte(r.Stdout), report); err != nil {
		t.Fatalf("reading the report: %v\nexit status %d\n%s%s", err, r.Code, r.Stdout, r.Stderr)
	}
	return report, r.Code
}

// wantSound fails the test unless every check was made and nothing was found.
func wantSound(t *testing.T, disk string) {
	t.Helper()
	report, code := verified(t, disk)
	for _, c := range report.Checks {
		if c.Status != verify.Passed && c.Status != verify.NotApplicable {
			t.Errorf("%s: %s %s", c.Name, c.Status, c.Detail)
		}
	}
	if code != 0 || report.Outcome != verify.Sound || len(report.Findings) != 0 || len(report.Checks) < 15 {
		t.Errorf("exit status %d, %s, %d checks, findings %v", code, report.Outcome, len(report.Checks), report.Findings)
	}
}

// named is a finding that is looked for: its check, and parts of its place and of its text.
type named struct{ check, where, what string }

// wantNamed fails the test unless the report has a fault for each, and the exit status is that of
// damage.
func wantNamed(t *testing.T, report *verify.Report, code int, wanted ...named) {
	t.Helper()
	if code != 1 || report.Outcome != verify.Damaged {
		t.Errorf("exit status %d, outcome %s; want 1, damaged", code, report.Outcome)
	}
	for _, w := range wanted {
		if !slices.ContainsFunc(report.Findings, func(f verify.Finding) bool {
			return f.Severity == verify.Error && f.Check == w.check && strings.Contains(f.Where, w.where) && strings.Contains(f.What, w.what)
		}) {
			t.Errorf("no fault %+v among %v", w, report.Findings)
		}
	}
}

// flip inverts one bit of a byte; to flip it again puts the file as it was.
func flip(t *testing.T, file string, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// digest hashes a sparse file: its size and times, and every block that is not zero, with its place.
func digest(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	fmt.Fprintln(sum, info.Size(), info.ModTime().UnixNano())
	const block = 64 << 10
	buf, zero := make([]byte, block), make([]byte, block)
	for at := int64(0); ; {
		// Where holes are may change by itself, as the file system writes back; content may not.
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return fmt.Sprintf("%x", sum.Sum(nil))
		}
		if err != nil {
			t.Fatal(err)
		}
		start = start / block * block
		n, err := f.ReadAt(buf, start)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if !bytes.Equal(buf[:n], zero[:n]) {
			fmt.Fprintln(sum, start)
			sum.Write(buf[:n])
		}
		at = start + block
	}
}

// onRoot runs a shell script with the root of a raw disk mounted at $1, in a mount namespace of the
// script's own: in the one that all tests share, another test's installer would take a copy of the
// mount along, and keep it alive.
func onRoot(t *testing.T, raw string, mode int, script string, args ...string) string {
	t.Helper()
	return onPartition(t, raw, typeRoot, mode, script, args...)
}

// onPartition is onRoot with the partition of another type.
func onPartition(t *testing.T, raw, guid string, mode int, script string, args ...string) string {
	t.Helper()
	p := mustPartition(t, raw, guid)
	dev, err := attach(raw, mode, p.Start, p.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	fs, err := probe(t.Context(), dev.Name())
	if err != nil {
		t.Fatal(err)
	}
	options := "rw"
	if mode == os.O_RDONLY {
		options = "ro," + noReplay(fs)
	}
	whole := fmt.Sprintf("mount -t %s -o %s %s \"$1\"\n%s\numount \"$1\"\n", fs, options, dev.Name(), script)
	return mustCommand(t, "unshare", append([]string{"--mount", "--propagation", "private", "sh", "-euc", whole, "sh", t.TempDir()}, args...)...)
}

var firstExtent = regexp.MustCompile(`(?m)^\s*0:\s+0\.\.\s*\d+:\s+(\d+)\.\.`)

// physical asks filefrag where the data of a file on an xfs or ext4 begins, in bytes from the start
// of the disk.
func physical(t *testing.T, raw, file string) int64 {
	t.Helper()
	return physicalOn(t, raw, typeRoot, file)
}

func physicalOn(t *testing.T, raw, guid, file string) int64 {
	t.Helper()
	out := onPartition(t, raw, guid, os.O_RDONLY, `filefrag -b512 -v "$1"/$2`, file) // a pattern is allowed
	m := firstExtent.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no extent in\n%s", out)
	}
	sector, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return mustPartition(t, raw, guid).Start + sector*512
}

func mustPartition(t *testing.T, raw, guid string) partition {
	t.Helper()
	p, err := partitionOfType(t.Context(), raw, guid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// onESP finds where the data of a file on the EFI system partition begins, by its content.
func onESP(t *testing.T, raw, name string) int64 {
	t.Helper()
	content := ESPFile(t, raw, name)
	p := mustPartition(t, raw, typeESP)
	f, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 160<<20)
	if _, err := f.ReadAt(b, p.Start); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, content[:min(len(content), 512)])
	if at < 0 {
		t.Fatalf("%s is not found on the partition", name)
	}
	return p.Start + int64(at)
}

// flipCase is a byte to be damaged, and the faults that name it.
type flipCase struct {
	name   string
	at     int64 // from the start of the disk
	wanted []named
}

// TestVerifyFindsFlippedBytes flips one bit at a time, wherever a disk promises something.
func TestVerifyFindsFlippedBytes(t *testing.T) {
	LoopSnapshot(t)
	raw, deployment := verifyDisk(t)
	before := digest(t, raw)
	wantSound(t, raw)
	if digest(t, raw) != before {
		t.Fatal("verify has changed the disk")
	}
	size := int64(3 << 30)
	root, bios := mustPartition(t, raw, typeRoot), mustPartition(t, raw, typeBIOS)
	cases := []flipCase{
		{"primary header", 512 + 56, []named{{"partition-table", "primary partition table", "checksum"}}},
		{"primary entries", 1024 + 56, []named{{"partition-table", "primary partition table", "entries"}}},
		{"backup header", size - 512 + 40, []named{{"partition-table", "backup partition table", "checksum"}}},
		{"protective MBR", 446 + 4, []named{{"partition-table", "boot sector", "protective"}}},
		{"boot.img", 0x5c, []named{{"bios-boot", "boot sector", "loads LBA"}}},
		{"core.img", bios.Start + 20000, []named{{"boot-loader", "(BIOS-BOOT)", "GRUB's code"}}},
		{"EFI program", onESP(t, raw, "/EFI/BOOT/BOOTX64.EFI") + 100000, []named{{"boot-loader", "ESP:/EFI/BOOT/BOOTX64.EFI", "differs from the one"}}},
		{"allocation table", mustPartition(t, raw, typeESP).Start + 32*512 + 12, []named{{"esp-file-system", "(EFI-SYSTEM)", "tables differ"}}},
		{"superblock", root.Start + 108, []named{{"root-super-block", "(root)", "checksum"}}},
	}
	config := ESPFile(t, raw, "/EFI/debian/grub.cfg")
	uuidAt := int64(bytes.Index(config, []byte("--fs-uuid")))
	uuidAt += int64(uuidPattern.FindIndex(config[uuidAt:])[0])
	cases = append(cases, flipCase{"grub.cfg", onESP(t, raw, "/EFI/debian/grub.cfg") + uuidAt, []named{{"esp-boot-files", "ESP:/EFI/debian/grub.cfg", "names the file system"}}})
	add := func(name, path string, at int64, wanted ...named) {
		cases = append(cases, flipCase{name, physical(t, raw, path) + at, wanted})
	}
	entry := "boot/loader.1/entries/ostree-1.conf"
	text := []byte(onRoot(t, raw, os.O_RDONLY, `cat "$1/$2"`, entry))
	kernel := "boot" + strings.TrimPrefix(regexp.MustCompile(`(?m)^linux (.*)$`).FindStringSubmatch(string(text))[1], "/boot")
	commit := filepath.Base(deployment)[:64]
	object := "ostree/repo/objects/" + commit[:2] + "/" + commit[2:] + ".commit"
	add("object", deployment+"/usr/bin/bash", 5000,
		named{"repository", "/ostree/repo/objects/", "it is /" + deployment + "/usr/bin/bash"}, named{"deployment", "/usr/bin/bash", "damaged"})
	add("kernel", kernel, 1<<20, named{"kernel", "/" + kernel, "boot checksum"}, named{"repository", "/ostree/repo/objects/", "/vmlinuz"})
	add("entry: root", entry, int64(uuidPattern.FindIndex(text)[0]), named{"boot-entries", "/" + entry, "root file system has UUID"})
	add("entry: kernel", entry, int64(bytes.Index(text, []byte("/vmlinuz")))+2, named{"boot-entries", "/" + entry, "cannot be found"})
	add("origin", deployment+".origin", 12, named{"origin", deployment + ".origin", "neither"})
	add("commit", object, 200, named{"repository", "/" + object, "checksum"})
	bin := readableBy(t, nobody, raw)
	rootless := []string{"partition-table", "bios-boot", "esp-file-system", "esp-boot-files", "root-super-block"}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			flip(t, raw, c.at)
			defer flip(t, raw, c.at)
			if slices.Contains(rootless, c.wanted[0].check) {
				report, code := asNobody(t, bin, "verify", "--json", raw)
				wantNamed(t, report, code, c.wanted...)
				return
			}
			report, code := verified(t, raw)
			wantNamed(t, report, code, c.wanted...)
		})
	}
}

var uuidPattern = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// TestVerifyFindsChanges changes a deployed ext4 through the kernel, and looks at it while it is
// mounted.
func TestVerifyFindsChanges(t *testing.T) {
	LoopSnapshot(t)
	raw, deployment := verifyDisk(t, "--filesystem", "ext4")
	wantSound(t, raw)
	dirty := filepath.Join(t.TempDir(), "dirty.raw")
	onRoot(t, raw, os.O_RDWR, `
		cd "$1/$2"
		echo x >usr/bin/stranger
		rm usr/bin/bash usr/bin/tar
		echo another >usr/bin/tar
		chmod 700 usr/share
		setfattr -n user.note -v x usr/lib
		echo changed >etc/hosts
		cd /
		sync
		cp --sparse=always "$3" "$4"`, deployment, raw, dirty)
	device, err := attach(raw, os.O_RDWR, 0, 3<<30)
	if err != nil {
		t.Fatal(err)
	}
	if r := Run(t, "verify", raw); r.Code != 4 || !strings.Contains(r.Stderr, "loop device") {
		t.Errorf("a disk with a writable loop device: exit status %d, %s", r.Code, r.Stderr)
	}
	if err := device.Close(); err != nil {
		t.Fatal(err)
	}
	report, code := verified(t, raw)
	wantNamed(t, report, code,
		named{"deployment", deployment + "/usr/bin/stranger", "not in the commit"},
		named{"deployment", deployment + "/usr/bin/bash", "missing"},
		named{"deployment", deployment + "/usr/bin/tar", "mode"},
		named{"deployment", deployment + "/usr/share", "mode"},
		named{"deployment", deployment + "/usr/lib", "user.note"})
	if !slices.ContainsFunc(report.Findings, func(f verify.Finding) bool {
		return f.Severity == verify.Note && f.Check == "etc" && strings.HasSuffix(f.Where, "/etc/hosts")
	}) {
		t.Errorf("the change of /etc/hosts is not noted: %v", report.Findings)
	}
	before := digest(t, dirty)
	report, code = verified(t, dirty)
	wantNamed(t, report, code, named{"root-super-block", "(root)", "recovery"})
	if digest(t, dirty) != before {
		t.Error("verify has changed the disk with the dirty log")
	}
}

// TestVerifyOrdinaryUser verifies a btrfs with systemd-boot, as a qcow2 and without privileges, too.
func TestVerifyOrdinaryUser(t *testing.T) {
	LoopSnapshot(t)
	raw, _ := verifyDisk(t, "--filesystem", "btrfs", "--bootloader", "systemd")
	wantSound(t, raw)
	qcow2 := raw + ".qcow2"
	mustCommand(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
	before := digest(t, qcow2)
	bin := readableBy(t, nobody, raw, qcow2)

	report, code := asNobody(t, bin, "verify", "--json", raw)
	if code != 1 || report.Outcome != verify.Incomplete || len(report.Findings) != 0 {
		t.Errorf("as nobody: exit status %d, %s, %v", code, report.Outcome, report.Findings)
	}
	for _, c := range report.Checks {
		if c.Name == "repository" && (c.Status != verify.NotChecked || !strings.Contains(c.Detail, "there is no kernel in /lib/modules; give an image")) {
			t.Errorf("as nobody: %+v", c)
		}
	}
	device, err := attach(raw, os.O_RDONLY, 0, 3<<30)
	if err != nil {
		t.Fatal(err)
	}
	wantSound(t, device.Name())
	if err := device.Close(); err != nil {
		t.Error(err)
	}
	if report, code = asNobody(t, bin, "verify", "--json", "--partial", qcow2); code != 0 || report.Disk.Format != "qcow2" {
		t.Errorf("--partial: exit status %d, %+v", code, report.Disk)
	}
	verifyUncopied(t, qcow2)
	cmd := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", bin, "verify", "--json", "--partial", raw)
	cmd.Env = []string{"PATH=" + onlyPrograms(t, "unshare", "qemu-img")}
	out, err := cmd.Output()
	must(t, err)
	if report, _ := readVerified(t, Result{Stdout: string(out)}); report.Outcome != verify.Incomplete {
		t.Errorf("root of a user namespace finds the disk %s: %v", report.Outcome, report.Findings)
	}
	if digest(t, qcow2) != before {
		t.Error("verify has changed the qcow2")
	}
	at := mustPartition(t, raw, typeRoot).Start + 0x10000 + 0x30
	flip(t, raw, at)
	report, code = asNobody(t, bin, "verify", "--json", raw)
	wantNamed(t, report, code, named{"root-super-block", "(root)", "checksum"})
	flip(t, raw, at)

	at = onESP(t, raw, espKernel(t, raw)) + 1<<20
	flip(t, raw, at)
	report, code = verified(t, raw)
	wantNamed(t, report, code, named{"boot-loader", "ESP:/ostree/default-", "differs from the one"})
}

// verifyUncopied has root verify a qcow2 with no place for a copy of it; killed in the middle, that
// leaves nothing.
func verifyUncopied(t *testing.T, qcow2 string) {
	t.Helper()
	for _, kill := range []bool{false, true} {
		cmd := exec.CommandContext(t.Context(), BuildInstaller(t), "verify", qcow2)
		cmd.Env = append(os.Environ(), "TMPDIR=/nonexistent")
		stdout, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(stdout)
		daemon := 0
		for lines.Scan() {
			if strings.Contains(lines.Text(), "Mounting read-only") && kill {
				daemon = childNamed(t, cmd, "qemu-storage")
				must(t, cmd.Process.Kill())
			}
		}
		if err := cmd.Wait(); (err != nil) != kill {
			t.Errorf("killed %v: %v", kill, err)
		}
		if kill {
			gone(t, daemon)
		}
	}
}

// espKernel finds the kernel that a boot entry on the EFI system partition names.
func espKernel(t *testing.T, raw string) string {
	t.Helper()
	for line := range strings.Lines(string(ESPFile(t, raw, "/loader/entries/ostree-1.conf"))) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "linux "); ok {
			return name
		}
	}
	t.Fatal("the entry names no kernel")
	return ""
}

// nobody is the user number of a user without rights.
const nobody = 65534

// readableBy gives a user the files, and a copy of the installer that it may execute.
func readableBy(t *testing.T, user int, files ...string) (bin string) {
	t.Helper()
	bin = filepath.Join(filepath.Dir(files[0]), "installer")
	mustCommand(t, "cp", BuildInstaller(t), bin)
	for _, f := range append(files, bin) {
		if err := errors.Join(os.Chown(f, user, user), os.Chmod(filepath.Dir(f), 0o755), os.Chmod(filepath.Dir(filepath.Dir(f)), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// onlyPrograms makes a directory for PATH with nothing but these programs.
func onlyPrograms(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)))
	for _, name := range names {
		path, err := exec.LookPath(name)
		must(t, err)
		must(t, os.Symlink(path, filepath.Join(dir, name)))
	}
	return dir
}

// asNobody runs a program as a user without rights, who may write to /tmp like everyone, and has no
// virtual machine.
func asNobody(t *testing.T, bin string, args ...string) (*verify.Report, int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), bin, args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = &stdout, &stderr, "/"
	cmd.Env = []string{"PATH=" + onlyPrograms(t, "qemu-img"), "TMPDIR=" + filepath.Dir(bin)}
	if err := os.Chown(filepath.Dir(bin), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	err := cmd.Run()
	if exit, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
		t.Fatal(err)
	} else if isExit {
		return readVerified(t, Result{stdout.String(), stderr.String(), exit.ExitCode()})
	}
	return readVerified(t, Result{stdout.String(), stderr.String(), 0})
}
