package cpio

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel unpacks the fields of each header, at the offsets that they state.
func TestArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("123"), 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	var b strings.Builder
	w := NewWriter(&b)
	w.Dir("dir")
	w.File("dir/file", 0o644, []byte("12345"))
	w.CopyFile("init", program)
	w.Device("console", unix.S_IFCHR|0o600, 5, 1)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := `dir 40755 "" 0:0, dir/file 100644 "12345" 0:0, init 100755 "123" 0:0, console 20600 "" 5:1, TRAILER!!! 0 "" 0:0, `
	if got := list(t, b.String()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// list reads an archive by the field table of the kernel's documentation.
func list(t *testing.T, data string) (list string) {
	t.Helper()
	for at := 0; at < len(data); {
		if data[at:at+6] != "070701" {
			t.Fatalf("no header at byte %d", at)
		}
		var fields [13]int
		for n := range fields {
			value, err := strconv.ParseUint(data[at+6+8*n:at+14+8*n], 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			fields[n] = int(value)
		}
		name := data[at+110 : at+110+fields[11]-1]
		body := (at + 110 + fields[11] + 3) &^ 3
		list += fmt.Sprintf("%s %o %q %d:%d, ", name, fields[1], data[body:body+fields[6]], fields[9], fields[10])
		at = (body + fields[6] + 3) &^ 3
	}
	return list
}
