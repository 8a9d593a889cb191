package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"installer/install/vm/cpio"
	"installer/install/vm/kmod"

	"golang.org/x/sys/unix"
)

// Guest is a virtual machine in which a shell script runs as root, in the tree of the bootable
// image (read-only, with tmpfs on /run, /tmp and /var), on that image's kernel. The script finds
// the installer in its PATH, the layout of the image to install in /run/image, and each disk as
// /dev/disk-NAME.
type Guest struct {
	Script  string
	Image   string            // "oci:DIR:TAG": its layout is on /run/image; "" is none
	Kernel  string            // directory of another kernel and its modules; "" is the tree's
	Disks   map[string]string // raw disk files by name, writable
	Files   map[string]string // further files of the host by their names in /run/files, executable
	Modules []string          // kernel modules beside those of disks and root file systems
	Policy  string            // binary SELinux policy that the guest loads before anything else; "" is no SELinux
	Enforce bool
	Systemd bool          // systemd is the first process, and the script one of its services, beside udevd and logind
	Timeout time.Duration // 0 is 4 minutes
}

// Prepare readies the machine. run boots it, and may be called by another goroutine than the
// test's; result returns the script's output and exit status afterwards. Failures of the machine
// itself fail the test.
func (g Guest) Prepare(t *testing.T) (run func(), result func() Result) {
	t.Helper()
	work := t.TempDir()
	console, output := filepath.Join(work, "console"), filepath.Join(work, "output")
	cmd := exec.CommandContext(t.Context(), "qemu-system-x86_64", g.machineArgs(t, filepath.Join(work, "initrd"), console, output)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if g.Timeout == 0 {
		g.Timeout = 4 * time.Minute
	}
	var err error
	run = func() {
		deadline := time.AfterFunc(g.Timeout, func() { _ = cmd.Cancel() })
		err = runChild(cmd)
		if !deadline.Stop() {
			err = fmt.Errorf("it took longer than %s: %w", g.Timeout, err)
		}
	}
	return run, func() Result {
		t.Helper()
		text := strings.ReplaceAll(readText(t, output), "\r", "")
		exit := regexp.MustCompile(`\nexit status (\d+)\n$`).FindStringSubmatchIndex(text)
		if err != nil || exit == nil {
			t.Fatalf("the guest did not end its script: %v %s\noutput:\n%s\nconsole:\n%s", err, &said, text, lastLines(readText(t, console), 40))
		}
		status, err := strconv.Atoi(text[exit[2]:exit[3]])
		must(t, err)
		if status == 125 { // guestinit's
			t.Fatalf("the guest did not run its script:\n%s", lastLines(readText(t, console), 10))
		}
		return Result{Stdout: text[:exit[0]], Code: status}
	}
}

// machineArgs makes the files that QEMU needs, and returns its command line.
func (g Guest) machineArgs(t *testing.T, initrd, console, output string) []string {
	t.Helper()
	tree := FlattenOracle(t, CacheImage(t))
	if g.Kernel == "" {
		g.Kernel = filepath.Join(tree, kernelModules(t))
	}
	g.initramfs(t, initrd)
	args := []string{
		"-machine", "q35", "-accel", "tcg,thread=multi", "-smp", "2", "-cpu", "max", "-m", "1536", "-nodefaults", "-display", "none",
		"-net", "none", "-no-reboot", "-kernel", filepath.Join(g.Kernel, "vmlinuz"), "-initrd", initrd, "-append", g.kernelArgs(),
		"-chardev", "file,id=c0,path=" + console, "-serial", "chardev:c0", "-chardev", "file,id=c1,path=" + output, "-serial", "chardev:c1",
	}
	args = append(args, diskArgs("tree", erofsOf(t, tree), true)...)
	if g.Image != "" {
		layout, _ := splitRef(g.Image)
		args = append(args, diskArgs("image", erofsOf(t, layout), true)...)
	}
	for name, file := range g.Disks {
		args = append(args, diskArgs(name, file, false)...)
	}
	return args
}

// kernelArgs are for a guest that lives for a minute.
func (g Guest) kernelArgs() string {
	args := "console=ttyS0 loglevel=4 panic=-1 rdinit=/init random.trust_cpu=on mitigations=off audit=0 no_timer_check rcupdate.rcu_expedited=1 systemd.unit=guest.service"
	if g.Policy == "" {
		return args + " selinux=0"
	}
	return args + " security=selinux selinux=1 enforcing=0"
}

// initramfs has the first process, the modules, and the files of the script.
func (g Guest) initramfs(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	w := cpio.NewWriter(f)
	for _, dir := range []string{"dev", "proc", "sys", "newroot", "modules", "files"} {
		w.Dir(dir)
	}
	w.Device("dev/console", unix.S_IFCHR|0o600, 5, 1)
	add := func(name, file string) {
		in, err := os.Open(file)
		must(t, err)
		defer in.Close()
		w.CopyFile(name, in)
	}
	add("init", BuildCommand(t, "guestinit"))
	files := []string{"installer"}
	add("files/installer", BuildInstaller(t))
	for name, file := range g.Files {
		files = append(files, name)
		add("files/"+name, file)
	}
	if g.Policy != "" {
		add("policy", g.Policy)
	}
	modules := g.addModules(t, w)
	text, err := json.Marshal(map[string]any{
		"Script": g.Script, "Policy": g.Policy != "", "Enforce": g.Enforce, "Systemd": g.Systemd, "Files": files, "Modules": modules,
	})
	must(t, err)
	w.File("spec.json", 0o600, text)
	must(t, w.Close())
}

func (g Guest) addModules(t *testing.T, w *cpio.Writer) (names []string) {
	t.Helper()
	open := func(name string) (io.Reader, error) { return os.Open(filepath.Join(g.Kernel, name)) }
	index, err := kmod.ReadIndex(open)
	must(t, err)
	files, err := index.Resolve(append([]string{"virtio_pci", "virtio_blk", "erofs", "loop", "xfs", "ext4", "btrfs", "vfat", "nls_ascii", "nls_cp437"}, g.Modules...), nil)
	must(t, err)
	for n, file := range files {
		r, err := open(file)
		must(t, err)
		data, err := kmod.Load(file, r)
		must(t, errors.Join(err, r.(io.Closer).Close()))
		name := fmt.Sprintf("%03d-%s", n, filepath.Base(file))
		w.File("modules/"+name, 0o600, data)
		names = append(names, name)
	}
	return names
}

// diskArgs are QEMU's arguments for a raw disk.
func diskArgs(name, file string, readOnly bool) []string {
	options := ",format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap"
	if readOnly {
		options = ",format=raw,readonly=on"
	}
	return []string{"-drive", "if=none,id=" + name + options + ",file=" + escapeComma(file), "-device", "virtio-blk-pci,drive=" + name + ",serial=" + name}
}

var erofsImages struct {
	sync.Mutex
	made map[string]string // by directory
}

// erofsOf makes an EROFS image of a directory, once a run.
func erofsOf(t *testing.T, dir string) string {
	t.Helper()
	erofsImages.Lock()
	defer erofsImages.Unlock()
	if file, ok := erofsImages.made[dir]; ok {
		return file
	}
	file := filepath.Join(runDir, fmt.Sprintf("guest-%d.erofs", len(erofsImages.made)))
	mustCommand(t, "mkfs.erofs", "--quiet", "-x-1", file, dir+"/.")
	if erofsImages.made == nil {
		erofsImages.made = map[string]string{}
	}
	erofsImages.made[dir] = file
	return file
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
