package bootloader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	mib      = 1 << 20
	rootUUID = "8d3b6f3e-2f5c-4b1c-9d4e-0a2b3c4d5e6f"
)

// tellTaleKernel is a program in the form of a Linux kernel (Linux x86 boot protocol 2.10) that
// prints the address of its initramfs as a flag, and its command line, to the serial port, and then
// ends the virtual machine. It shows exactly what a boot loader hands over.
func tellTaleKernel() []byte {
	image := make([]byte, 4*512)
	put16 := func(at int, v uint16) { binary.LittleEndian.PutUint16(image[at:], v) }
	put32 := func(at int, v uint32) { binary.LittleEndian.PutUint32(image[at:], v) }
	image[0x1f1] = 1 // sectors of set-up code after the first
	put32(0x1f4, 2*512/16)
	put16(0x1fe, 0xaa55)
	put16(0x200, 0x66eb)
	copy(image[0x202:], "HdrS")
	put16(0x206, 0x020a)
	image[0x211] = 1            // loaded high
	put32(0x214, 0x100000)      // entry
	put32(0x22c, 0x37ffffff)    // highest address of the initramfs
	put32(0x230, 0x200000)      // alignment
	image[0x234] = 1            // relocatable
	image[0x235] = 21           // least alignment, as a power of two
	put32(0x238, 2047)          // longest command line
	put32(0x258, 0x1000000)     // preferred address
	put32(0x260, 0x10000)       // memory needed
	copy(image[2*512:], []byte{ // 32-bit code; esi points to the boot parameters
		0x66, 0xba, 0xf8, 0x03, // mov dx, 3f8h
		0xb0, '<', 0xee, // out '<'
		0x8b, 0x86, 0x1c, 0x02, 0x00, 0x00, // mov eax, [esi+21ch]: size of the initramfs
		0x04, '0', 0xee, // out '0'+size
		0xb0, '|', 0xee, // out '|'
		0x8b, 0x9e, 0x28, 0x02, 0x00, 0x00, // mov ebx, [esi+228h]: command line
		0x8a, 0x03, // next: mov al, [ebx]
		0x84, 0xc0, // test al, al
		0x74, 0x04, // jz done
		0xee,       // out
		0x43,       // inc ebx
		0xeb, 0xf6, // jmp next
		0xb0, '>', 0xee, // done: out '>'
		0x66, 0xba, 0x01, 0x05, // mov dx, 501h: the virtual machine's way out
		0xee,       // out
		0xf4,       // hlt
		0xeb, 0xfd, // jmp hlt
	})
	return image
}

// kernelSum is a boot checksum, by which the kernel's files are named.
const kernelSum = "00"

// writeTree lays out the boot directory of a deployed system with the entries given by name, and
// the boot links of two deployments with the same kernel.
func writeTree(t *testing.T, entries map[string]string) string {
	t.Helper()
	root := t.TempDir()
	boot := filepath.Join(root, "boot")
	for _, dir := range []string{"loader.1/entries", "ostree/default-00"} {
		if err := os.MkdirAll(filepath.Join(boot, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	links := filepath.Join(root, "ostree/boot.1.1/default", kernelSum)
	if err := os.MkdirAll(links, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, link := range [][2]string{{"boot.1.1", "ostree/boot.1"}, {"../../../deploy/a", "ostree/boot.1.1/default/00/0"}, {"../../../deploy/b", "ostree/boot.1.1/default/00/1"}} {
		if err := os.Symlink(link[0], filepath.Join(root, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"boot": ".", "loader": "loader.1"} {
		if err := os.Symlink(target, filepath.Join(boot, link)); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{
		"ostree/default-00/vmlinuz-6":       string(tellTaleKernel()),
		"ostree/default-00/initramfs-6.img": "abcd",
		"ostree/default-00/init-b":          "efgh",
	}
	for name, text := range entries {
		files["loader.1/entries/"+name] = text
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(boot, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// makeDisk makes a disk whose root file system (of kind fsKind) holds tree, and installs GRUB for
// BIOS on it.
func makeDisk(t *testing.T, tree, fsKind string) string {
	t.Helper()
	return makeDiskWith(t, tree, fsKind, installOn)
}

// makeDiskWith makes a disk whose root file system (of kind fsKind) holds tree, and a loader on it.
func makeDiskWith(t *testing.T, tree, fsKind string, install func(*testing.T, string)) string {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk")
	rootImage := disk + ".root"
	makeRoot(t, fsKind, rootImage, tree)
	rootSize := fileSize(t, rootImage)
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 40*mib+rootSize); err != nil {
		t.Fatal(err)
	}
	table := fmt.Sprintf("label: gpt\nstart=2048,size=2048,type=21686148-6449-6E6F-744E-656564454649\n"+
		"start=4096,size=65536,type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\nstart=69632,size=%d,type=L\n", rootSize/512)
	sfdisk := exec.Command("sfdisk", "-q", disk)
	sfdisk.Stdin = strings.NewReader(table)
	if out, err := sfdisk.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	before := readAt(t, disk, 0x1b8, 0x200-0x1b8)
	install(t, disk)
	if after := readAt(t, disk, 0x1b8, 0x200-0x1b8); !bytes.Equal(before, after) {
		t.Errorf("the partition table in the first sector changed:\n%x\n%x", before, after)
	}
	must(t, "dd", "if="+rootImage, "of="+disk, "bs=1M", "seek=34", "conv=notrunc,sparse", "status=none")
	return disk
}

func installOn(t *testing.T, disk string) {
	t.Helper()
	file, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	esp := newDirESP(t)
	target := Target{
		Arch: "amd64", Firmware: Firmware{UEFI: true, BIOS: true}, Vendor: "debian",
		Tree: os.DirFS("/"), Run: runOnHost(t),
		Entry:    Entry{Name: "ostree-1.conf", Text: "title x\nlinux /a\n"},
		BootUUID: rootUUID, BootPartition: 3, ESP: esp, ESPPartition: 2,
		Disk: file, BIOSBoot: &Range{Start: mib, Size: mib}, SectorSize: 512,
	}
	if err := Install(t.Context(), GRUB, target); err != nil {
		t.Fatal(err)
	}
	writeFAT(t, disk, esp.dir)
}

// writeFAT makes the EFI system partition of a disk, with the directory EFI of another.
func writeFAT(t *testing.T, disk, dir string) {
	t.Helper()
	fat := fmt.Sprintf("%s@@%d", disk, 2*mib)
	must(t, "mformat", "-i", fat, "-T", "65536", "-h", "64", "-s", "32", "::")
	must(t, "mcopy", "-s", "-i", fat, filepath.Join(dir, "EFI"), "::")
}

// makeRoot makes a file system of the kind with the content of tree, without mounting anything.
func makeRoot(t *testing.T, kind, image, tree string) {
	t.Helper()
	size := map[string]int64{"ext4": 16 * mib, "btrfs": 128 * mib, "xfs": 320 * mib}[kind]
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	switch kind {
	case "ext4":
		must(t, "mkfs.ext4", "-q", "-O", "verity", "-U", rootUUID, "-d", tree, image)
	case "btrfs":
		must(t, "mkfs.btrfs", "-q", "-U", rootUUID, "--rootdir", tree, image)
	case "xfs":
		proto := filepath.Join(t.TempDir(), "proto")
		if err := os.WriteFile(proto, []byte("/dev/null\n0 0\n"+xfsProto(t, tree, "d--755 0 0")), 0o600); err != nil {
			t.Fatal(err)
		}
		must(t, "mkfs.xfs", "-q", "-m", "uuid="+rootUUID, "-p", proto, image)
	}
}

// xfsProto describes a directory in the language of mkfs.xfs's prototype files.
func xfsProto(t *testing.T, dir, head string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	text := head + "\n"
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir():
			text += e.Name() + " " + xfsProto(t, name, "d--755 0 0")
		case e.Type()&os.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				t.Fatal(err)
			}
			text += fmt.Sprintf("%s l--777 0 0 %s\n", e.Name(), target)
		default:
			text += fmt.Sprintf("%s ---644 0 0 %s\n", e.Name(), name)
		}
	}
	return text + "$\n"
}

func readAt(t *testing.T, name string, at, n int64) []byte {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	data := make([]byte, n)
	if _, err := file.ReadAt(data, at); err != nil {
		t.Fatal(err)
	}
	return data
}

func fileSize(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// bootBIOS starts the disk in a virtual machine with BIOS firmware and returns the output of the
// serial port.
func bootBIOS(t *testing.T, disk string) string {
	t.Helper()
	return boot(t, disk)
}

// boot starts the disk in a virtual machine with more arguments, BIOS firmware without, and returns the
// output of the serial port.
func boot(t *testing.T, disk string, more ...string) string {
	t.Helper()
	var console bytes.Buffer
	args := []string{"-machine", "q35", "-accel", "tcg", "-m", "256",
		"-nodefaults", "-display", "none", "-net", "none", "-no-reboot", "-serial", "stdio",
		"-drive", "if=none,id=d0,format=raw,snapshot=on,file=" + disk, "-device", "virtio-blk-pci,drive=d0,bootindex=0",
		"-device", "isa-debug-exit,iobase=0x501,iosize=1"}
	vm := exec.CommandContext(t.Context(), "qemu-system-x86_64", append(args, more...)...)
	vm.Stdout, vm.Stderr = &console, &console
	vm.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := vm.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.AfterFunc(3*time.Minute, func() { _ = vm.Process.Kill() })
	defer deadline.Stop()
	_ = vm.Wait() // the way out of the virtual machine gives an odd status by design
	return console.String()
}

// handedOver returns what the tell-tale kernel printed.
func handedOver(t *testing.T, console string) string {
	t.Helper()
	start := strings.LastIndexByte(console, '<')
	end := strings.LastIndexByte(console, '>')
	if start < 0 || end < start {
		t.Fatalf("the kernel was not started; the console said:\n%s", console)
	}
	return console[start+1 : end]
}

// ofFirst leads to the first deployment.
const ofFirst = " ostree=/ostree/boot.1/default/" + kernelSum + "/0"

// entry is a boot entry of the first deployment with the paths of its files below prefix.
func entry(options, prefix string) string {
	options += ofFirst
	return fmt.Sprintf("title Lab OS (stable) 1: a/b [x] (ostree:0)\nversion 1\noptions %s\nlinux %s/ostree/default-00/vmlinuz-6\n"+
		"initrd %s/ostree/default-00/initramfs-6.img\n", options, prefix, prefix)
}

// titled is a boot entry as ostree writes it at an update, of a deployment by its number.
func titled(title, options string, deployment int) string {
	return fmt.Sprintf("title %s\nversion 1\noptions %s ostree=/ostree/boot.1/default/%s/%d\nlinux /boot/ostree/default-00/vmlinuz-6\n"+
		"initrd /boot/ostree/default-00/initramfs-6.img\n", title, options, kernelSum, deployment)
}

// TestBootHandsOver starts disks and compares what their kernels were handed: the size of all
// initramfs files and the command line.
func TestBootHandsOver(t *testing.T) {
	const args = `root=UUID=1-2 rw a=* b=? c="x y;z" d=(1,2) e=[f]~!%@^`
	if err := CheckArguments([]string{args}); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, fs string
		entries  map[string]string
		want     string
		broken   bool // an entry is, on purpose
	}{
		{"numbers and characters", "ext4", map[string]string{
			"ostree-2.conf":           entry("two", ""),
			"ostree-9-default.conf":   entry("nine", ""),
			"ostree-10-default.conf":  entry(args, "/boot") + "initrd /boot/ostree/default-00/init-b\n",
			"ostree-1+3-default.conf": entry("one", ""),
		}, `8|BOOT_IMAGE=/boot/ostree/default-00/vmlinuz-6 root=UUID=1-2 rw a=* b=? "c=x y;z" d=(1,2) e=[f]~!%@^` + ofFirst, false},
		{"xfs with the boot prefix", "xfs", map[string]string{"ostree-1.conf": entry("xfs", "/boot")},
			"4|BOOT_IMAGE=/boot/ostree/default-00/vmlinuz-6 xfs" + ofFirst, false},
		{"btrfs without the prefix", "btrfs", map[string]string{"ostree-1+3-0.conf": entry("btrfs", "")},
			"4|BOOT_IMAGE=/boot/ostree/default-00/vmlinuz-6 btrfs" + ofFirst, false},
		{"a kernel that is gone falls back to the entry before", "ext4", map[string]string{
			"ostree-2.conf": "title gone\noptions two ostree=/ostree/boot.1/default/00/1\nlinux /ostree/default-99/vmlinuz-6\n",
			"ostree-1.conf": entry("one", ""),
		}, "4|BOOT_IMAGE=/boot/ostree/default-00/vmlinuz-6 one" + ofFirst, true},
		{"a title that is no script", "ext4", map[string]string{
			"ostree-2.conf": titled("R&D; reboot {Linux} $x #1", "root=UUID=1 two", 1),
			"ostree-1.conf": titled("Lab OS", "root=UUID=1 one", 0),
		}, "4|BOOT_IMAGE=/boot/ostree/default-00/vmlinuz-6 root=UUID=1 two ostree=/ostree/boot.1/default/00/1", false},
		{"keys of other programs and keys that are commands", "ext4", map[string]string{
			"ostree-1.conf": titled("Lab OS", "one", 0) + "x-options-source-tuned isolcpus=1 nohz=\"a b\"\n" +
				"reboot\nhalt\necho COMMAND RAN\nset root=nowhere\nsort-key x;halt\nsleep 1000\nexit\ncat /boot/loader/entries/ostree-1.conf\n\tx y\n{\n",
		}, "4|BOOT_IMAGE=/boot/ostree/default-00/vmlinuz-6 one" + ofFirst, false},
		{"a title that hides the rest starts the deployment that no other entry does", "xfs", map[string]string{
			"ostree-2.conf": titled("Tom's OS", "root=UUID=1 two", 1),
			"ostree-1.conf": titled("Lab OS", "root=UUID=1 rw console=x", 0),
		}, "4|BOOT_IMAGE=/boot/ostree/default-00/vmlinuz-6 root=UUID=1 rw console=x ostree=/ostree/boot.1/default/00/1", false},
		{"an argument that would end its quotes", "ext4", map[string]string{
			"ostree-2.conf": titled("Lab OS", `root=UUID=1 a="b'; reboot; '"`, 1),
			"ostree-1.conf": titled("Lab OS", "root=UUID=1 rw", 0),
		}, "4|BOOT_IMAGE=/boot/ostree/default-00/vmlinuz-6 root=UUID=1 rw ostree=/ostree/boot.1/default/00/1", false},
		{"no entry that can be read", "btrfs", map[string]string{"ostree-1.conf": "title \"Lab OS\nversion 1\n"},
			"4|BOOT_IMAGE=/boot/ostree/default-00/vmlinuz-6 root=UUID=" + rootUUID + " rw" + ofFirst, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			console := bootBIOS(t, makeDisk(t, writeTree(t, c.entries), c.fs))
			got := handedOver(t, console)
			if strings.Contains(console, "COMMAND RAN") {
				t.Errorf("a key of the entry was run as a command:\n%s", console)
			}
			if !c.broken && strings.Contains(console, "error:") {
				t.Errorf("GRUB reported an error, for which it waits ten seconds:\n%s", console)
			}
			if got != c.want {
				t.Errorf("the kernel was handed\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
