package image

import (
	"fmt"
	"strconv"
	"strings"
)

// SourceError says that the source image itself is at fault: it is missing, damaged, different from
// its manifest, or asks for something refused.
type SourceError struct {
	Ref   string // the image, as given
	Layer string // digest (or name) of the layer or blob at fault; empty if it is none
	Entry string // path of the entry in the layer; empty if it is none
	Err   error
}

// Error names the image, the layer and the entry, then the cause.
func (e *SourceError) Error() string {
	var b strings.Builder
	b.WriteString("source image")
	if e.Ref != "" {
		b.WriteString(" " + e.Ref)
	}
	if e.Layer != "" {
		b.WriteString(": layer " + e.Layer)
	}
	if e.Entry != "" {
		b.WriteString(": entry " + quoteShort(e.Entry))
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	return b.String()
}

// Unwrap returns the cause.
func (e *SourceError) Unwrap() error { return e.Err }

// quoteShort quotes a name that the source chose, and shortens a very long one.
func quoteShort(s string) string {
	const most = 256
	if len(s) > most {
		return strconv.Quote(s[:most]) + fmt.Sprintf("… (%d bytes)", len(s))
	}
	return strconv.Quote(s)
}

// UnknownTransportError says that a reference does not begin with a transport known here.
type UnknownTransportError struct {
	Ref string
}

// Error lists the transports that are known.
func (e *UnknownTransportError) Error() string {
	return fmt.Sprintf("image reference %s: unknown transport; known are %s", quoteShort(e.Ref), strings.Join(Transports(), ", "))
}

// missingBlob says that a part of the image is not there. It hides the error of the file system:
// advice about a path that the user gave would be wrong.
func missingBlob(digest string) error {
	return fmt.Errorf("the source is incomplete: blob %s is missing", digest)
}

// TempError says that there was no room for a temporary file: this machine is to blame, not the
// source.
type TempError struct {
	Dir string
	Err error
}

func (e *TempError) Error() string {
	return fmt.Sprintf("unpacking the source into a temporary file in %s: %v; make room there, or unpack it elsewhere beforehand", e.Dir, e.Err)
}

// Unwrap gives the cause.
func (e *TempError) Unwrap() error { return e.Err }
