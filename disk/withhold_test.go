package disk

import (
	"bytes"
	"os"
	"testing"
)

// A withheld range reads as written and is not on the disk before it is revealed; what stands
// beside it is.
func TestWithhold(t *testing.T) {
	path := rawFile(t, 64*mib)
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, r := range [][2]int64{{4096, 512}, {0, 440}} {
		if err := d.Withhold(r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Withhold(64*mib-1, 2); err == nil {
		t.Error("a range beyond the disk is withheld")
	}
	want := bytes.Repeat([]byte{0xa5}, 8192)
	if _, err := d.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what is read is not what was written (%v)", err)
	}
	onDisk := func() []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b[:len(want)]
	}
	hidden := bytes.Clone(want)
	clear(hidden[:440])
	clear(hidden[4096 : 4096+512])
	if !bytes.Equal(onDisk(), hidden) {
		t.Error("the disk does not have just what is not withheld")
	}
	if err := d.Reveal(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(onDisk(), want) {
		t.Error("the disk does not have what was revealed")
	}
	if _, err := d.WriteAt([]byte{1}, 0); err != nil || onDisk()[0] != 1 {
		t.Errorf("after the end something is still withheld (%v)", err)
	}
}
