package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ownMounts is a disk whose file systems somebody has made and mounted, as to-filesystem wants them:
// a BIOS boot partition, a root, and a boot file system where boot names its kind.
type ownMounts struct {
	t          testing.TB
	raw        string
	root       string // where it is mounted
	kind, boot string
	devices    []*os.File
	points     []string // mounted, in order
}

// mountOwn makes the disk and mounts its file systems. The loop devices go with the mounts.
func mountOwn(t testing.TB, size int64, kind, boot string) *ownMounts {
	t.Helper()
	dir := t.TempDir()
	m := &ownMounts{t: t, raw: filepath.Join(dir, "disk.raw"), root: filepath.Join(dir, "root"), kind: kind, boot: boot}
	makeRaw(t, m.raw, size)
	table := fmt.Sprintf("label: gpt\nsize=1M,type=%s\n", typeBIOS)
	if boot != "" {
		table += "size=300M,type=L\n"
	}
	script := filepath.Join(dir, "table")
	mustWrite(t, script, table+fmt.Sprintf("type=%s\n", typeRoot))
	mustCommand(t, "sh", "-c", `sfdisk --quiet "$1" <"$2"`, "sh", m.raw, script)
	parts, err := Partitions(t.Context(), m.raw)
	if err != nil {
		t.Fatal(err)
	}
	m.mount(parts[len(parts)-1], kind, m.root)
	if boot != "" {
		m.mount(parts[1], boot, filepath.Join(m.root, "boot"))
	}
	t.Cleanup(func() {
		if len(m.points) > 0 {
			m.unmount()
		}
	})
	return m
}

func (m *ownMounts) mount(p partition, kind, at string) {
	m.t.Helper()
	dev, err := attach(m.raw, os.O_RDWR, p.Start, p.Size)
	if err != nil {
		m.t.Fatal(err)
	}
	m.devices = append(m.devices, dev)
	force := "-f"
	if kind == "ext4" {
		force = "-F"
	}
	mustCommand(m.t, "mkfs."+kind, "-q", force, dev.Name())
	if err := os.MkdirAll(at, 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := unix.Mount(dev.Name(), at, kind, 0, ""); err != nil {
		m.t.Fatalf("mounting %s: %v", at, err)
	}
	m.points = append(m.points, at)
}

// unmount takes everything down, each by one call, which must succeed at once.
func (m *ownMounts) unmount() {
	m.t.Helper()
	for _, at := range slices.Backward(m.points) {
		if err := unix.Unmount(at, 0); err != nil {
			m.t.Errorf("unmounting %s: %v", at, err)
		}
	}
	for _, dev := range m.devices {
		if err := dev.Close(); err != nil {
			m.t.Error(err)
		}
	}
	m.points, m.devices = nil, nil
}

// check has the file systems' own checkers look at them, unmounted.
func (m *ownMounts) check() {
	m.t.Helper()
	if err := checkPartition(m.t.Context(), m.raw, typeRoot, m.kind, checkers[m.kind]); err != nil {
		m.t.Error(err)
	}
	if m.boot != "" {
		if err := checkPartition(m.t.Context(), m.raw, typeLinux, m.boot, checkers[m.boot]); err != nil {
			m.t.Error(err)
		}
	}
}

// readOnly reports whether a mount's superblock is read-only, by mountinfo.
func readOnly(t testing.TB, at string) bool {
	t.Helper()
	return slices.Contains(strings.Split(strings.TrimSpace(mustCommand(t, "findmnt", "--noheadings", "--output", "FS-OPTIONS", at)), ","), "ro")
}

func mustWrite(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tinyArgs install the small image on a root; it has no boot loader.
func tinyArgs(t testing.TB, root string, more ...string) []string {
	t.Helper()
	return append(append([]string{"to-filesystem", "--source-imgref", TinyImage(t), "--bootloader", "none"}, more...), root)
}

// An installation on each file system, with GRUB for BIOS, and no EFI system partition.
func TestToFilesystem(t *testing.T) {
	for _, kind := range []string{"ext4", "btrfs"} {
		t.Run(kind, func(t *testing.T) { installOnMounts(t, mountOwn(t, diskSize, kind, "")) })
	}
}

// The same with a boot file system of its own, without which the system would not start.
func TestBootToFilesystem(t *testing.T) {
	m := mountOwn(t, diskSize, "xfs", "ext4")
	d := installOnMounts(t, m)
	end := bootAside(t, BootOptions{Disk: m.raw, Firmware: BIOS})
	t.Parallel()
	e := end(t)[0]
	bootedInto(t, e, d)
	bootedBy(t, e, BIOS)
}

// installOnMounts wants the caller's mounts to be left read-only and held by nobody: they unmount at
// once, are clean, and ostree takes them for its own.
func installOnMounts(t *testing.T, m *ownMounts) *installed {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.json")
	r := Run(t, "to-filesystem", "--source-imgref", CacheImage(t), "--generic-image", "--karg", "console=ttyS0,115200n8",
		"--karg", "installer.selftest=brief", "--report", file, m.root).Must(t)
	if !strings.Contains(r.Stdout, "Installation complete: "+m.root) {
		t.Errorf("standard output:\n%s", r.Stdout)
	}
	d := &installed{raw: m.raw, report: readReport(t, file)}
	checkMountedReport(t, m, d.report)
	OstreeChecks(t, m.root)
	checkBootOf(t, m, d.report)
	for _, at := range m.points {
		if !readOnly(t, at) {
			t.Errorf("%s is not read-only", at)
		}
	}
	m.unmount()
	nothingLeft(t, filepath.Dir(m.raw))
	m.check()
	return d
}

// checkMountedReport wants every stage that leaves the mounts, and no other.
func checkMountedReport(t *testing.T, m *ownMounts, r runReport) {
	t.Helper()
	if r.Outcome != "complete" || r.Disk.Path != m.root || r.Disk.Filesystem != m.kind || r.Finalize == nil || r.Finalize.Released {
		t.Fatalf("the report says %q of %+v, released: %+v", r.Outcome, r.Disk, r.Finalize)
	}
	var stages []string
	for _, s := range r.Finalize.Stages {
		stages = append(stages, s.Name)
		if s.Status != "ok" && s.Status != "note" {
			t.Errorf("stage %s: %s", s.Name, s.Status)
		}
	}
	if got := strings.Join(stages, " "); got != "drop-handles prove-self-free trim remount-read-only freeze-thaw prove-no-holders" {
		t.Errorf("stages: %s", got)
	}
	uuid := strings.TrimSpace(mustCommand(t, "findmnt", "--noheadings", "--output", "UUID", m.root))
	if r.Disk.RootUUID != uuid || !slices.Contains(r.Deployment.Kargs, "root=UUID="+uuid) {
		t.Errorf("UUID %s, kernel arguments %q, want %s", r.Disk.RootUUID, r.Deployment.Kargs, uuid)
	}
}

// checkBootOf wants kernels and boot entries on the boot file system, where there is one, and
// mounted by the installed system.
func checkBootOf(t *testing.T, m *ownMounts, r runReport) {
	t.Helper()
	fstab := filepath.Join(m.root, r.Deployment.Path, "etc/fstab")
	text, err := os.ReadFile(fstab)
	if m.boot == "" {
		if strings.Contains(string(text), "/boot") {
			t.Errorf("without a boot file system, fstab has %s", text)
		}
		return
	}
	must(t, err)
	uuid := strings.TrimSpace(mustCommand(t, "findmnt", "--noheadings", "--output", "UUID", m.points[1]))
	if !strings.Contains(string(text), "UUID="+uuid+" /boot auto ro 0 0\n") || !slices.Contains(r.Deployment.Kargs, "boot=UUID="+uuid) {
		t.Errorf("fstab %q, kernel arguments %q, want %s", text, r.Deployment.Kargs, uuid)
	}
	config, err := os.ReadFile(filepath.Join(m.points[1], "grub/grub.cfg"))
	if err != nil || !strings.Contains(string(config), uuid) {
		t.Errorf("GRUB's configuration does not name %s (%v)", uuid, err)
	}
	must(t, unix.Unmount(m.points[1], 0))
	entries, err := os.ReadDir(filepath.Join(m.root, "boot"))
	if err != nil || len(entries) > 0 {
		t.Errorf("on the root below the boot file system: %v, %v", entries, err)
	}
	must(t, unix.Mount(m.devices[1].Name(), m.points[1], m.boot, unix.MS_RDONLY, ""))
}

// The command works in the mount namespace of its caller, also where that is a copy, as a
// container's is: its mounts are another's too.
func TestToFilesystemInACopiedNamespace(t *testing.T) {
	m := mountOwn(t, tinySize, "ext4", "")
	args := append([]string{"--mount", "--propagation", "private", BuildInstaller(t)}, tinyArgs(t, m.root)...)
	r := RunBinary(t, "unshare", args...).Must(t)
	if !strings.Contains(r.Stderr, "also mounted on "+m.root+" in another mount namespace") {
		t.Errorf("the caller's own mount is not told of:\n%s", r.Stderr)
	}
	m.unmount()
	m.check()
}

// Existing files are deleted, or kept but for the boot loader's, as asked for.
func TestToFilesystemReplace(t *testing.T) {
	m := mountOwn(t, tinySize, "xfs", "ext4")
	for _, name := range []string{"etc/old", "home/me/file", "boot/loader/entries/old.conf"} {
		mustWrite(t, filepath.Join(m.root, name), "old")
	}
	plan := Run(t, tinyArgs(t, m.root, "--replace=alongside", "--dry-run")...).Must(t)
	if !strings.Contains(plan.Stdout, "WILL BE LOST  "+m.root+"/boot: loader\n") || strings.Contains(plan.Stdout, "home") {
		t.Errorf("the plan:\n%s", plan.Stdout)
	}
	Run(t, tinyArgs(t, m.root, "--replace=alongside")...).Must(t)
	OstreeChecks(t, m.root)
	exists(t, m.root, map[string]bool{"etc/old": true, "home/me/file": true, "boot/loader/entries/old.conf": false, "boot/loader/entries/ostree-1.conf": true})

	must(t, unix.Mount("", m.root, "", unix.MS_REMOUNT, ""))
	must(t, unix.Mount("", m.points[1], "", unix.MS_REMOUNT, ""))
	checkMessage(t, Run(t, tinyArgs(t, m.root, "--replace=alongside")...), 4, `it has .bootc-aleph.json, ostree, so a system of this kind`)
	before := DefaultDeployment(t, m.root) // its directory is immutable
	mustWrite(t, before+"/../../var/kept", "old")
	plan = Run(t, tinyArgs(t, m.root, "--replace=wipe", "--dry-run")...).Must(t)
	if !strings.Contains(plan.Stdout, "WILL BE LOST  "+m.root+": .bootc-aleph.json, etc, home, ostree\n") {
		t.Errorf("the plan:\n%s", plan.Stdout)
	}
	Run(t, tinyArgs(t, m.root, "--replace=wipe", "--stateroot", "new")...).Must(t)
	OstreeChecks(t, m.root)
	exists(t, m.root, map[string]bool{"etc": false, "home": false, "ostree/deploy/default": false, "ostree/deploy/new": true, "boot/loader/entries/ostree-1.conf": true})
	m.unmount()
	m.check()
}

func exists(t *testing.T, dir string, names map[string]bool) {
	t.Helper()
	for name, want := range names {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", name, err, want)
		}
	}
}

// Without the release the mounts stay writable and nothing is proven of others, but nothing of the
// installer's own stays. The mount specifications are taken as they are.
func TestToFilesystemSkipFinalize(t *testing.T) {
	m := mountOwn(t, tinySize, "ext4", "ext4")
	file := filepath.Join(t.TempDir(), "report.json")
	held, err := os.Open(m.root)
	must(t, err)
	defer held.Close()
	r := Run(t, tinyArgs(t, m.root, "--skip-finalize", "--root-mount-spec=", "--boot-mount-spec=LABEL=boot", "--report", file)...).Must(t)
	report := readReport(t, file)
	if strings.Contains(r.Stdout, "complete") || report.Outcome != "unproven" || report.Finalize == nil || len(report.Finalize.Stages) != 2 {
		t.Errorf("outcome %q, %+v:\n%s", report.Outcome, report.Finalize, r.Stdout)
	}
	if kargs := strings.Join(report.Deployment.Kargs, " "); !strings.HasPrefix(kargs, "rw boot=LABEL=boot ostree=") {
		t.Errorf("kernel arguments: %s", kargs)
	}
	mustWrite(t, filepath.Join(m.root, "writable"), "")
	must(t, held.Close())
	OstreeChecks(t, m.root)
	m.unmount()
	m.check()
}

// A target that cannot be installed on is refused, with the reason, and nothing is written.
func TestToFilesystemRefuses(t *testing.T) {
	plain := t.TempDir()
	m := mountOwn(t, tinySize, "ext4", "")
	sub := filepath.Join(m.root, "sub")
	refuse := func(name string, status int, args []string, wants ...string) {
		t.Run(name, func(t *testing.T) {
			checkMessage(t, Run(t, args...), status, wants...)
			if exists, err := filepath.Glob(filepath.Join(m.root, "ostree")); err != nil || len(exists) > 0 {
				t.Errorf("it was written to: %v, %v", exists, err)
			}
		})
	}
	grub := func(root string) []string {
		return []string{"to-filesystem", "--source-imgref", TinyImage(t), "--bootloader", "systemd", root}
	}
	refuse("no ROOT", 2, tinyArgs(t, "")[:5], `takes ROOT`)
	refuse("unknown replacement", 2, tinyArgs(t, m.root, "--replace=merge"), `--replace: .*wipe or alongside`)
	refuse("blank in a specification", 2, tinyArgs(t, m.root, "--root-mount-spec", "a b"), `--root-mount-spec: .*blank`)
	refuse("not there", 4, tinyArgs(t, m.root+"x"), `no such file`)
	refuse("no mount point", 4, tinyArgs(t, plain), `it is no mount point, but a directory of the file system on /`)
	refuse("a file", 4, tinyArgs(t, m.raw), `it is no directory: .*to-disk takes a disk`)
	refuse("the running root", 4, tinyArgs(t, "/"), `the root that this program itself runs from`)
	refuse("no place for a boot loader", 4, grub(m.root), `mount the EFI system partition on `+m.root+`/boot/efi; or leave the boot loader to yourself`)
	refuse("boot that is not mounted", 4, tinyArgs(t, m.root, "--boot-mount-spec", "LABEL=b"), `nothing is mounted on `+m.root+`/boot`)
	small := mountOwn(t, 400<<20, "ext4", "")
	refuse("too small", 4, []string{"to-filesystem", "--source-imgref", CacheImage(t), "--bootloader", "none", small.root}, `too small: \d+ bytes \(.*\) are needed, \d+ \(.*\) are free`)

	must(t, os.Mkdir(sub, 0o755))
	refuse("not empty", 4, tinyArgs(t, m.root), `it is not empty: it has sub; --replace=wipe deletes all of it, --replace=alongside keeps`)
	must(t, unix.Mount("tmpfs", sub, "tmpfs", 0, "size=1m"))
	refuse("another mount", 4, tinyArgs(t, m.root, "--replace=wipe"), `tmpfs is mounted on `+sub)
	refuse("tmpfs", 4, tinyArgs(t, sub), `must be xfs, ext4 or btrfs, and this is tmpfs`)
	must(t, unix.Unmount(sub, 0))
	must(t, unix.Mount(sub, plain, "", unix.MS_BIND, ""))
	refuse("a directory of a file system", 4, tinyArgs(t, plain), `shows the directory /sub of the ext4`)
	must(t, unix.Unmount(plain, 0))
	must(t, os.Remove(sub))

	must(t, unix.Mount("", m.root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	refuse("read-only", 4, tinyArgs(t, m.root), `mounted read-only: mount -o remount,rw `+m.root)
	must(t, unix.Mount("", m.root, "", unix.MS_REMOUNT, ""))
	locked, err := os.Open(m.root)
	must(t, err)
	must(t, unix.Flock(int(locked.Fd()), unix.LOCK_EX))
	refuse("held", 3, tinyArgs(t, m.root), `before anything was written: the target is held`, fmt.Sprintf(`fd by process %d `, os.Getpid()))
	refuse("locked", 4, tinyArgs(t, m.root, "--skip-finalize"), `locked by another program`)
	must(t, locked.Close())
	Run(t, tinyArgs(t, m.root)...).Must(t) // after all of that
}

// The root of the running system is not deleted in any case, and not installed beside by mistake.
func TestToFilesystemOnTheRunningRoot(t *testing.T) {
	m := mountOwn(t, tinySize, "ext4", "")
	layoutDir, tag := splitRef(TinyImage(t))
	mustCommand(t, "cp", "-a", layoutDir, filepath.Join(m.root, "image"))
	copyTo(t, BuildInstaller(t), filepath.Join(m.root, "installer"), 0o755)
	for _, dir := range []string{"target", "proc", "sys", "dev", "tmp", "var/tmp", "run"} {
		must(t, os.MkdirAll(filepath.Join(m.root, dir), 0o755))
	}
	inside := func(flags string) Result {
		return RunBinary(t, "unshare", "--mount", "--propagation", "private", "sh", "-ec",
			`cd "$1"; mount --bind . target; for d in proc sys dev; do mount --rbind /$d $d; done
			exec chroot . /installer to-filesystem --source-imgref oci:/image:`+tag+` --bootloader none `+flags+` /target`, "sh", m.root)
	}
	for flags, want := range map[string]string{
		"": `mount another one; or install beside that system`,
		"--replace=wipe --acknowledge-destructive": `deleting it would end that system`,
		"--replace=alongside":                      `--acknowledge-destructive says that this is meant`,
	} {
		checkMessage(t, inside(flags), 4, `the running system has its root on this file system: .*`+want)
	}
	exists(t, m.root, map[string]bool{"ostree": false, "installer": true})
	r := inside("--replace=alongside --acknowledge-destructive").Must(t)
	if strings.Contains(r.Stdout, "complete") || !strings.Contains(r.Stdout, "not released") {
		t.Errorf("standard output:\n%s", r.Stdout)
	}
	exists(t, m.root, map[string]bool{"ostree": true, "installer": true, "boot/loader/entries/ostree-1.conf": true})
	OstreeChecks(t, m.root)
}

// A signal ends the installation: everything of the installer's is given back, and the message
// names the rest.
func TestToFilesystemInterrupted(t *testing.T) {
	adoptOrphans(t)
	m := mountOwn(t, diskSize, "ext4", "")
	args := []string{"to-filesystem", "--source-imgref", CacheImage(t)}
	r := runWatched(t, args, m.root, func(p *os.Process, e runEvent) {
		if e.Event == "step" && e.Step == "import" {
			must(t, p.Signal(os.Interrupt))
		}
	})
	if r.Code != 1 || !strings.Contains(r.Stderr, "interrupted: received interrupt") ||
		!strings.Contains(r.Stderr, "left on "+m.root+": a part of the system, which does not start; --replace=wipe deletes it") {
		t.Errorf("exit status %d:\n%s", r.Code, r.Stderr)
	}
	exists(t, m.root, map[string]bool{"boot/loader": false})
	m.unmount()
	nothingLeft(t, filepath.Dir(m.raw))
	m.check()
}

// Somebody who takes hold of the target meanwhile is named, and the mounts stay as they were:
// writable.
func TestToFilesystemHeld(t *testing.T) {
	adoptOrphans(t)
	m := mountOwn(t, diskSize, "xfs", "")
	var held *os.File
	r := runWatched(t, []string{"to-filesystem", "--source-imgref", CacheImage(t)}, m.root, func(_ *os.Process, e runEvent) {
		if e.Event == "step" && e.Step == "deploy" {
			var err error
			held, err = os.Open(filepath.Join(m.root, "ostree"))
			must(t, err)
		}
	})
	if held == nil || r.Code != 3 || !strings.Contains(r.Stderr, fmt.Sprintf("process %d ", os.Getpid())) ||
		!strings.Contains(r.Stderr, "the system is installed and complete") {
		t.Errorf("exit status %d:\n%s", r.Code, r.Stderr)
	}
	if readOnly(t, m.root) {
		t.Error("the root is left read-only")
	}
	OstreeChecks(t, m.root)
	must(t, held.Close())
	began := time.Now()
	r = Run(t, "finalize", m.root).Must(t)
	m.points = nil
	m.unmount()
	t.Logf("finalized in %s:\n%s", time.Since(began).Round(time.Millisecond), r.Stdout)
	m.check()
}
