package image

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"testing"

	cstorage "go.podman.io/storage"
)

func TestAdvice(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		ref  string
		err  error
		want string
	}{
		{"oci:" + dir, io.ErrUnexpectedEOF, ""},
		{"oci:" + dir + "/none", &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, "check the path"},
		{"oci:" + dir + ":tag", &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, "incomplete"},
		{"docker://x/y", fmt.Errorf("dialling: %w", &net.DNSError{}), "registry's name"},
		{"containers-storage:x", fmt.Errorf("looking: %w", cstorage.ErrImageUnknown), "podman images"},
	} {
		got := (&SourceError{Ref: c.ref, Err: c.err}).Advice()
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %v: %q, want %q", c.ref, c.err, got, c.want)
		}
	}
}
