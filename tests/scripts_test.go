package tests

import (
	"os"
	"os/exec"
	"testing"
)

// The scripts start their programs with the standard files alone, however many their caller left open.
func TestScriptsCloseInheritedFiles(t *testing.T) {
	cmd := exec.Command("bash", "-euc", `exec 11</dev/null; . ./lib.sh; ls /proc/self/fd`)
	for range 6 { // 3 to 8
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// 3 is the directory that ls reads.
	if got, want := string(out), "0\n1\n2\n3\n"; got != want {
		t.Errorf("open files of a program that a script starts: %q, want %q", got, want)
	}
}
