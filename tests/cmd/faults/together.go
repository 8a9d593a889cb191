package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// secondInstaller starts another one on the same disk while the first works.
func secondInstaller(t *trial) {
	if err := t.newRaw(); err != nil {
		t.breach("%v", err)
		return
	}
	m := t.momentAmong("inspect", "plan", "partition", "format", "mount", "import", "deploy", "boot-loader")
	var second *session
	over := false // the first had ended, or given the disk back
	s := t.install(t.raw, t.args(), func(first *session, e event) {
		if m.come(e) {
			// It does not wait for whoever reads its output.
			first.signal(syscall.SIGSTOP)
			defer first.signal(syscall.SIGCONT)
			over = !hasOpen(first.pid(), t.raw)
			second = t.install(t.raw, t.args(), nil)
			if second.code == 4 && !strings.Contains(second.stderr, "process "+first.pid()) {
				t.breach("the second installer does not name the first, process %s: %s", first.pid(), tail(second.stderr))
			}
		}
	})
	t.judge(s, 0)
	if second == nil {
		t.breach("the event %q never came", m.name)
		return
	}
	t.tell("a second installer at %q: exit statuses %d and %d", m.name, s.code, second.code)
	switch {
	case s.code != 0:
		t.breach("the first installer fails: %s", tail(s.stderr))
	case second.code == 0 && !over:
		t.breach("the second installer was not refused")
	case second.code != 4 && second.code != 0:
		t.breach("the second installer ends with %d, want 4: %s", second.code, tail(second.stderr))
	}
	t.injected = second.code == 4
	t.nothingLeft()
	t.verified(t.raw)
}

// hasOpen reports whether a process has a file open; one that is not there has none.
func hasOpen(pid, file string) bool {
	links, err := filepath.Glob(filepath.Join("/proc", pid, "fd", "*"))
	if pid == "" || err != nil {
		return false
	}
	return slices.ContainsFunc(links, func(link string) bool {
		target, err := os.Readlink(link)
		return err == nil && target == file
	})
}

// twoDisks installs on two disks at once.
func twoDisks(t *trial) {
	if err := t.newRaw(); err != nil {
		t.breach("%v", err)
		return
	}
	other := filepath.Join(t.dir, "disk", "other.raw")
	if err := makeRaw(other, diskSizeOf(t.image)); err != nil {
		t.breach("%v", err)
		return
	}
	one, two := t.start(t.raw, t.args(), nil), t.start(other, t.args(), nil)
	for _, s := range []*session{t.wait(one), t.wait(two)} {
		t.judge(s, 0)
		if s.code != 0 {
			t.breach("one of two installers fails: %s", tail(s.stderr))
		}
	}
	t.injected = true
	t.tell("two disks at once")
	t.nothingLeft()
	t.verified(t.raw)
	t.verified(other)
}

// meanwhile does something over and over while an installation runs, which must not mind.
func meanwhile(t *trial, what string, again func()) {
	if err := t.newRaw(); err != nil {
		t.breach("%v", err)
		return
	}
	s := t.start(t.raw, t.args(), nil)
	times := 0
	var busy sync.WaitGroup
	busy.Go(func() {
		for {
			select {
			case <-s.done:
				return
			default:
				again()
				times++
			}
		}
	})
	t.wait(s)
	busy.Wait()
	t.tell("%s %d times: exit status %d", what, times, s.code)
	t.injected = times > 0
	t.judge(s, 0)
	if s.code != 0 {
		t.breach("the installation minds: %s", tail(s.stderr))
	}
	t.nothingLeft()
	t.verified(t.raw)
}

func holdersMeanwhile(t *trial) {
	targets := []string{filepath.Dir(t.dir), "/run"}
	i := 0
	meanwhile(t, "holders", func() {
		_ = exec.Command(t.lab.opts.installer, "holders", targets[i%2]).Run() // whether free or held
		i++
		for _, node := range t.loopNodes() {
			_ = exec.Command(t.lab.opts.installer, "holders", node).Run()
		}
	})
}

// probing opens and reads the disk and its loop device as udev's rules do at an event.
func probing(t *trial) {
	meanwhile(t, "probed", func() {
		for _, node := range append(t.loopNodes(), t.raw) {
			_ = exec.Command("blkid", "--probe", node).Run()
			if fd, err := unix.Open(node, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err == nil {
				unix.Close(fd)
			}
		}
	})
}

// loopNodes are the nodes of the loop devices on the disk.
func (t *trial) loopNodes() (nodes []string) {
	loops, err := loopsOn(t.dir)
	if err != nil {
		t.breach("%v", err)
	}
	for _, l := range loops {
		fields := strings.Fields(l)
		if fields[0] != "loop" {
			continue
		}
		node := "/dev/" + fields[2]
		if _, err := os.Stat(node); err == nil {
			nodes = append(nodes, node)
		}
	}
	return nodes
}
