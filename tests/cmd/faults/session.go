package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// event holds the fields of a line of --progress json that the harness reads.
type event struct {
	Time    time.Time
	Event   string
	Step    string
	Title   string
	Message string
	Stage   *struct{ Name, Status string }
	Report  *struct {
		Outcome string
		Plan    *struct {
			RootNeed int64 `json:"root_need"`
		}
	}
}

// landmark returns the name of an event that every run of a setup has.
func (e event) landmark() bool { return e.Event == "step" || e.Event == "done" || e.Event == "stage" }

func (e event) String() string {
	text := e.Event + " " + e.Step
	if e.Stage != nil {
		text += " " + e.Stage.Name
	}
	return text
}

// session is one run of the installer.
type session struct {
	cmd       *exec.Cmd
	began     time.Time
	container bool
	raw       string

	// Valid after wait.
	stdout, stderr string
	events         []event
	code           int // -1: ended by a signal
	took           time.Duration

	errors bytes.Buffer
	done   chan struct{}
}

// start runs the installer and calls see, from another goroutine, at each event.
func (t *trial) start(raw string, args []string, see func(*session, event)) *session {
	s := &session{container: t.container, raw: raw, done: make(chan struct{}), began: time.Now()}
	args = append(args, "--progress", "json", raw)
	if t.container {
		s.cmd = t.lab.podman.command(t, args)
	} else {
		// With a /var/tmp of its own, which is looked at afterwards.
		const script = `mount --bind "$TMPDIR" /var/tmp && exec "$0" "$@"`
		s.cmd = exec.Command("unshare", append([]string{"--mount", "--propagation", "slave", "sh", "-c", script, t.lab.opts.installer}, args...)...)
		s.cmd.Env = append(os.Environ(), "TMPDIR="+t.tmp)
	}
	s.cmd.Stderr = &s.errors
	// A signal meant for the harness is not for its children.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		t.breach("the installer could not be started: %v", err)
		close(s.done)
		return s
	}
	go func() {
		defer close(s.done)
		var text strings.Builder
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			text.WriteString(line)
			var e event
			if err == nil && json.Unmarshal([]byte(line), &e) == nil {
				s.events = append(s.events, e)
				if see != nil {
					see(s, e)
				}
			}
			if err != nil {
				break
			}
		}
		_ = s.cmd.Wait() // the exit status says it
		s.took = time.Since(s.began)
		s.stdout, s.stderr, s.code = text.String(), s.errors.String(), s.cmd.ProcessState.ExitCode()
		if s.container && s.code == 128+int(syscall.SIGKILL) {
			s.code = -1 // podman's way to say it
		}
	}()
	return s
}

// wait waits for the end; a run that hangs is ended, which is a breach.
func (t *trial) wait(s *session) *session {
	limit := 60*time.Second + 20*t.expected
	select {
	case <-s.done:
	case <-time.After(limit):
		t.breach("the installer was still running after %s, last at %q", limit.Round(time.Second), hangs(s))
		s.signal(syscall.SIGKILL)
		<-s.done
	}
	return s
}

// hangs returns the kernel functions in which the threads of a process wait.
func hangs(s *session) string {
	pid := s.pid()
	tasks, _ := os.ReadDir("/proc/" + pid + "/task")
	var places []string
	for _, task := range tasks {
		stack, err := os.ReadFile("/proc/" + pid + "/task/" + task.Name() + "/stack")
		if lines := strings.SplitN(string(stack), "\n", 6); err == nil && !strings.Contains(string(stack), "futex_") {
			places = append(places, strings.Join(lines[:min(5, len(lines))], " < "))
		}
	}
	return strings.Join(places, "; ")
}

// install is start and wait.
func (t *trial) install(raw string, args []string, see func(*session, event)) *session {
	return t.wait(t.start(raw, args, see))
}

// claims reports whether a run said that the installation is complete.
func (s *session) claims() bool {
	for _, e := range s.events {
		if e.Report != nil && e.Report.Outcome == "complete" {
			return true
		}
	}
	return strings.Contains(s.stdout+s.stderr, "Installation complete")
}

// stage is the title of the step that failed, "" if none did.
func (s *session) failedStep() event {
	for _, e := range s.events {
		if e.Event == "failed" {
			return e
		}
	}
	return event{}
}

// namesStage reports whether the run names a stage that failed.
func (s *session) namesStage() bool {
	for _, e := range s.events {
		if e.Stage != nil && e.Stage.Status == "failed" && strings.Contains(s.stderr, e.Stage.Name) {
			return true
		}
	}
	return false
}

// undone returns the messages of the undo.
func (s *session) undone() (all []string) {
	for _, e := range s.events {
		if e.Event == "undo" {
			all = append(all, e.Message)
		}
	}
	return all
}

// pid is that of the installer, "" if there is none; in a container it is found by the disk in its
// command line.
func (s *session) pid() string {
	if s.cmd.Process == nil {
		return ""
	}
	if !s.container {
		return itoa(s.cmd.Process.Pid)
	}
	all, err := processes()
	if err != nil {
		return "" // the trial's look for leftovers reports it
	}
	for _, p := range all {
		if strings.Contains(p.line, " to-disk ") && strings.HasSuffix(p.line, " "+s.raw) && !strings.Contains(p.line, "podman") {
			return p.pid
		}
	}
	return ""
}

// signal sends a signal to the installer. One that has ended is left alone.
func (s *session) signal(sig syscall.Signal) {
	if pid := s.pid(); pid != "" {
		_ = syscall.Kill(atoi(pid), sig)
	}
}
