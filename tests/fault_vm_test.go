package tests

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// failingQEMU stands before QEMU in PATH and gives the machine's target disk a fault: writes to
// some sectors fail, or the disk sits in a port from which it can be pulled.
const failingQEMU = `#!/bin/bash
args=()
for a; do
	case $a in
	driver=file,node-name=target-file,*)
		if [ -n "$FAULT_SECTORS" ]; then
			file=${a#*filename=}
			a="driver=blkdebug,node-name=target-file,discard=unmap,image.driver=file,image.discard=unmap,image.filename=${file%%,*}"
			i=0
			for s in $FAULT_SECTORS; do
				a+=",inject-error.$i.event=none,inject-error.$i.iotype=write,inject-error.$i.errno=5,inject-error.$i.once=off,inject-error.$i.sector=$s"
				i=$((i + 1))
			done
		fi
		;;
	virtio-blk-pci,drive=target,*)
		[ -z "$FAULT_MONITOR" ] || a+=",id=victim,bus=slot7"
		;;
	esac
	args+=("$a")
done
if [ -n "$FAULT_MONITOR" ]; then
	args=(-qmp "unix:$FAULT_MONITOR,server=on,wait=off" -device pcie-root-port,id=slot7,chassis=7,slot=7 "${args[@]}")
fi
exec /usr/bin/qemu-system-x86_64 "${args[@]}"
`

// In the virtual machine, on a disk that fails: the run fails, names the device, and where the
// guest's kernel reported it the step, says nothing of success, and leaves no output.
func TestBuildOnFailingDisk(t *testing.T) {
	var sectors []string
	for at := 40 << 20; at < 160<<20; at += 8 << 20 { // of the qcow2 file, which grows as the guest writes
		sectors = append(sectors, fmt.Sprint(at/512))
	}
	monitor := filepath.Join(t.TempDir(), "monitor")
	var pull sync.Once
	for _, c := range []struct {
		name  string
		env   string
		see   func(runEvent)
		names string // in the message
	}{
		{"writes fail", "FAULT_SECTORS=" + strings.Join(sectors, " "), func(runEvent) {}, `a write on the disk "target" failed: Input/output error`},
		{"unplugged", "FAULT_MONITOR=" + monitor, func(e runEvent) {
			if e.Event == "step" && e.Step == "import" {
				pull.Do(func() { unplug(t, monitor) })
			}
		}, `(Writing the image's content|Deploying|Releasing the disk): .*(/dev/|disk\.qcow2)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			r := buildOnFailing(t, dir, c.env, c.see)
			t.Logf("exit status %d: %s", r.Code, r.Stderr)
			if r.Code != 1 {
				t.Errorf("exit status %d, want 1", r.Code)
			}
			if strings.Contains(r.Stdout+r.Stderr, "Installation complete") || strings.Contains(r.Stdout, `"outcome":"complete"`) {
				t.Error("success is claimed")
			}
			if !regexp.MustCompile(c.names).MatchString(r.Stderr) {
				t.Errorf("the message does not match %q", c.names)
			}
			emptyBut(t, dir, "bin")
		})
	}
}

func buildOnFailing(t *testing.T, dir, env string, see func(runEvent)) Result {
	t.Helper()
	bin := filepath.Join(dir, "bin")
	must(t, os.Mkdir(bin, 0o755))
	must(t, os.WriteFile(filepath.Join(bin, "qemu-system-x86_64"), []byte(failingQEMU), 0o755))
	cmd := exec.CommandContext(t.Context(), BuildInstaller(t), "build", "--accel", "tcg", "--progress", "json", "--disk-size", "3G",
		CacheImage(t), filepath.Join(dir, "disk.qcow2"))
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), env)
	var stdout strings.Builder
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		stdout.WriteString(lines.Text() + "\n")
		var e runEvent
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			see(e)
		}
	}
	must(t, lines.Err())
	_ = cmd.Wait() // the exit status says it
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// unplug pulls the disk, by QEMU's monitor.
func unplug(t *testing.T, monitor string) {
	t.Helper()
	c, err := net.DialTimeout("unix", monitor, 10*time.Second)
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	in := bufio.NewScanner(c)
	for _, command := range []string{`{"execute":"qmp_capabilities"}`, `{"execute":"device_del","arguments":{"id":"victim"}}`} {
		_, err := fmt.Fprintln(c, command)
		must(t, err)
		for in.Scan() && !strings.Contains(in.Text(), `"return"`) {
			if strings.Contains(in.Text(), `"error"`) {
				t.Fatalf("the monitor says %s", in.Text())
			}
		}
	}
	must(t, in.Err())
}
