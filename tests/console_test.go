package tests

import (
	"maps"
	"strings"
	"testing"
	"time"
)

// goodReport is a short console of a boot that went well, with the escapes and the doubled carriage
// returns of a real one.
const goodReport = "\x1b[2J\x1b[01;01HBdsDxe: starting Boot0001\r\n" +
	"[    0.000000] Linux version 6.1.0\r\n" +
	"[    3.1] Run /init as init process\r\n" +
	"         Starting \x1b[0;1;39minitrd-switch-root.service\x1b[0m - Switch Root...\r\r\n" +
	"SELFTEST state|running\r\r\nSELFTEST state= 0 1\r\r\nSELFTEST failed= 0 0\r\r\n" +
	"SELFTEST cmdline|root=UUID=x rw\r\r\nSELFTEST cmdline= 0 1\r\r\n" +
	"SELFTEST release|ID=debian\r\r\nSELFTEST release= 0 1\r\r\n" +
	"SELFTEST uptime|1 1\r\r\nSELFTEST uptime= 0 1\r\r\n" +
	"SELFTEST kernel|[ 8.0] XFS (vda3): Ending clean mount\r\r\nSELFTEST kernel= 0 1\r\r\n" +
	"SELFTEST prepare-root|Resolved OSTree target to: /sysroot/ostree/deploy/debian/deploy/x.0\r\r\nSELFTEST prepare-root= 0 1\r\r\n" +
	"SELFTEST mounts|/ on /\r\r\nSELFTEST mounts= 0 1\r\r\n" +
	"SELFTEST writable|/ ro\r\nSELFTEST writable|/usr ro\r\nSELFTEST writable|/sysroot ro\r\n" +
	"SELFTEST writable|/etc rw\r\nSELFTEST writable|/var rw\r\nSELFTEST writable|/tmp rw\r\nSELFTEST writable= 0 6\r\n" +
	"SELFTEST errors= 0 0\r\n" +
	"SELFTEST status|* debian 4f7e8cf1f316c906da1f1fa89acc61d37af58ef87f8fc5bf6cb88d093f342288.0\r\nSELFTEST status= 0 1\r\n" +
	"SELFTEST fsck|object fsck of 1 commits completed successfully - no errors found.\r\nSELFTEST fsck= 0 1\r\n" +
	"SELFTEST DONE\r\n"

func readConsole(text string, piece int) *consoleReader {
	begin := time.Unix(0, 0)
	c := newConsoleReader(begin)
	for i := 0; i < len(text); i += piece {
		c.feed([]byte(text[i:min(len(text), i+piece)]), begin.Add(time.Duration(i)*time.Second))
	}
	return c
}

func TestConsoleWhole(t *testing.T) {
	for _, piece := range []int{1, 7, 1 << 20} {
		c := readConsole(goodReport, piece)
		if c.phase != PhaseOff || c.fatal != "" {
			t.Fatalf("in pieces of %d: phase %v, fatal %q", piece, c.phase, c.fatal)
		}
		e, err := c.evidence()
		if err != nil {
			t.Fatalf("in pieces of %d: %v", piece, err)
		}
		if bad := e.Problems(); len(bad) > 0 {
			t.Errorf("in pieces of %d: problems in a good report: %q", piece, bad)
		}
	}
	c := readConsole(goodReport, 1)
	if !(c.reached[PhaseFirmware] < c.reached[PhaseKernel] && c.reached[PhaseTarget] < c.reached[PhaseReport]) {
		t.Errorf("times of the phases are not in order: %v", c.reached)
	}
}

// Each change to a good report must be a problem, or an unreadable report.
func TestConsoleFindsProblems(t *testing.T) {
	for name, change := range map[string][2]string{
		"degraded":         {"state|running", "state|degraded"},
		"failed unit":      {"SELFTEST failed= 0 0", "SELFTEST failed|x.service failed\r\nSELFTEST failed= 0 1"},
		"recovery":         {"Ending clean mount", "Ending clean mount; Starting recovery"},
		"ext4 recovery":    {"XFS (vda3): Ending clean mount", "EXT4-fs (vda3): recovery complete"},
		"I/O error":        {"Ending clean mount", "Ending clean mount I/O error, dev vda"},
		"not mounted":      {"Ending clean mount", "nothing"},
		"no deployment":    {"Resolved OSTree target", "Found nothing"},
		"not booted":       {"status|* debian", "status|  debian"},
		"fsck":             {"no errors found", "1 error found"},
		"fsck left out":    {"object fsck of 1 commits completed successfully - no errors found.", "left out"},
		"fsck not asked":   {"root=UUID=x rw", "root=UUID=x rw installer.selftest=brief"},
		"fsck status":      {"fsck= 0 1", "fsck= 1 1"},
		"/usr writable":    {"/usr ro", "/usr rw"},
		"/var not":         {"/var rw", "/var ro"},
		"no /tmp":          {"SELFTEST writable|/tmp rw\r\nSELFTEST writable= 0 6", "SELFTEST writable= 0 5"},
		"lost line":        {"SELFTEST status|*", "SELFT"},
		"lost section":     {"SELFTEST errors= 0 0\r\n", ""},
		"line in a line":   {"SELFTEST errors= 0 0", "SELFTEST err[  9.9] loop: module loaded"},
		"two in one count": {"SELFTEST status= 0 1", "SELFTEST status= 0 2"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(goodReport, change[0], change[1], 1)
			if text == goodReport {
				t.Fatalf("%q is not in the report", change[0])
			}
			e, err := readConsole(text, 1<<20).evidence()
			if err == nil && len(e.Problems()) == 0 {
				t.Error("no problem found")
			}
		})
	}
}

// A report that was to be brief has no ostree fsck.
func TestConsoleBrief(t *testing.T) {
	text := strings.NewReplacer("root=UUID=x rw", "root=UUID=x rw installer.selftest=brief",
		"object fsck of 1 commits completed successfully - no errors found.", "left out").Replace(goodReport)
	e, err := readConsole(text, 1<<20).evidence()
	must(t, err)
	if bad := e.Problems(); len(bad) > 0 {
		t.Errorf("problems: %q", bad)
	}
}

// The log lines of a clean mount are no problem, of any file system's driver.
func TestCleanMounts(t *testing.T) {
	const xfs = "SELFTEST kernel|[ 8.0] XFS (vda3): Ending clean mount\r\r\nSELFTEST kernel= 0 1"
	for name, report := range map[string]string{
		"ext4": "SELFTEST kernel|[ 36.3] EXT4-fs (vda3): mounted filesystem with ordered data mode. Quota mode: none.\r\n" +
			"SELFTEST kernel= 0 1",
		"btrfs": "SELFTEST kernel|[ 21.8] raid6: using avx2x2 recovery algorithm\r\n" +
			"SELFTEST kernel|[ 24.4] BTRFS info (device vda3): using free space tree\r\nSELFTEST kernel= 0 2",
	} {
		e, err := readConsole(strings.Replace(goodReport, xfs, report, 1), 1<<20).evidence()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if bad := e.Problems(); len(bad) > 0 || e.Kernel[0] == "[ 8.0] XFS (vda3): Ending clean mount" {
			t.Errorf("%s: problems %q in %q", name, bad, e.Kernel)
		}
	}
}

func TestConsoleFatal(t *testing.T) {
	for _, line := range []string{
		"[   1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n",
		"grub rescue> ", // a prompt has no end of line
		"\x1b[1mYou are in emergency mode.\x1b[0m\r\n",
	} {
		if c := readConsole("BdsDxe\r\n"+line, 1<<20); c.fatal == "" {
			t.Errorf("%q is not fatal", line)
		}
	}
	if c := readConsole("SELFTEST errors|an old Kernel panic\r\n", 3); c.fatal != "" {
		t.Errorf("a line of the report ended the boot: %q", c.fatal)
	}
}

// A boot whose later marker came must not wait for an earlier one.
func TestConsoleSkippedPhase(t *testing.T) {
	c := readConsole("Linux version 6\nSELFTEST state|running\n", 5)
	want := map[Phase]bool{PhaseFirmware: true, PhaseKernel: true, PhaseInit: true, PhaseTarget: true}
	for p := range maps.Keys(want) {
		if _, ok := c.reached[p]; !ok {
			t.Errorf("phase %v has no end", p)
		}
	}
	if c.phase != PhaseReport {
		t.Errorf("phase is %v, want %v", c.phase, PhaseReport)
	}
}
