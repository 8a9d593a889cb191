package disk

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"installer/tests/kit"
)

// qemuOpens reports whether QEMU's programs open a raw file, and wants them to agree.
func qemuOpens(t *testing.T, path string, readOnly bool) bool {
	t.Helper()
	opens := map[string]bool{}
	commands := [][]string{{"qemu-io", "-f", "raw", "-c", "read 0 512", path}, {"qemu-img", "convert", "-f", "raw", "-O", "raw", path, filepath.Join(t.TempDir(), "copy")}}
	if readOnly {
		commands[0] = append(commands[0], "-r")
	}
	for _, argv := range commands {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err != nil && !bytes.Contains(out, []byte("lock")) {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
		opens[argv[0]] = err == nil
	}
	if readOnly && opens["qemu-io"] != opens["qemu-img"] {
		t.Fatalf("QEMU's programs disagree: %v", opens)
	}
	return opens["qemu-io"]
}

// machine starts a virtual machine, stopped, with a disk; it ends with the test, or when the
// returned function is called.
func machine(t *testing.T, path, drive string) (end func()) {
	t.Helper()
	cmd := exec.Command("qemu-system-x86_64", "-S", "-accel", "tcg", "-nodefaults", "-display", "none", "-m", "16",
		"-qmp", "stdio", "-drive", "if=virtio,format=raw,file="+path+","+drive)
	vm := kit.Start(t, cmd)
	// The greeting comes before the machine is made; the answer to a command comes after.
	if _, err := io.WriteString(vm.Stdin, `{"execute":"qmp_capabilities"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewScanner(vm.Stdout)
	for answers.Scan() && !strings.Contains(answers.Text(), "return") {
	}
	if !strings.Contains(answers.Text(), "return") {
		t.Fatal("the virtual machine did not answer")
	}
	return vm.Stop
}

func TestImageLocksKeepQEMUAway(t *testing.T) {
	path := rawFile(t, 16*mib)
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if qemuOpens(t, path, false) || qemuOpens(t, path, true) {
		t.Error("QEMU opens a disk that is claimed")
	}
	out, err := exec.Command("qemu-system-x86_64", "-S", "-accel", "tcg", "-nodefaults", "-display", "none",
		"-drive", "if=virtio,format=raw,file="+path).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("lock")) {
		t.Errorf("a virtual machine: %v\n%s", err, out)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if !qemuOpens(t, path, false) {
		t.Error("QEMU does not open a disk that was given back")
	}
}

// A reader goes with other readers, and with no writer.
func TestImageLocksOfReaders(t *testing.T) {
	path := rawFile(t, 16*mib)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := LockImage(f, ImageReader); err != nil {
		t.Fatal(err)
	}
	if !qemuOpens(t, path, true) {
		t.Error("QEMU cannot read beside a reader")
	}
	if qemuOpens(t, path, false) {
		t.Error("QEMU can write beside a reader")
	}
	refused(t, path, path, "locked by")
}

func TestRefusesImageOfVirtualMachine(t *testing.T) {
	for _, c := range []struct {
		drive string
		reads bool // a reader goes with it
	}{{"", false}, {"readonly=on", true}} {
		path := rawFile(t, 16*mib)
		end := machine(t, path, c.drive)
		refused(t, path, path, "locked by another program", "virtual machine")
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var inUse *InUseError
		if err := LockImage(f, ImageReader); (err == nil) != c.reads || err != nil && !errors.As(err, &inUse) {
			t.Errorf("%q: reading beside it: %v", c.drive, err)
		}
		f.Close()
		end()
		opened(t, path)
	}
}
