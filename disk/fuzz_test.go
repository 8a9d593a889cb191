package disk

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"testing"
)

// FuzzReadGPT: no table makes the reader panic or take more memory than a table may have. The
// checksums of the header and of the entries are made right, or nothing would get past them.
func FuzzReadGPT(f *testing.F) {
	path := f.TempDir() + "/disk.raw"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		f.Fatal(err)
	}
	if err := os.Truncate(path, 1<<30); err != nil {
		f.Fatal(err)
	}
	d, err := Open(path)
	if err != nil {
		f.Fatal(err)
	}
	layout, err := Plan(d.Size(), d.SectorSize(), PlanOptions{Arch: "amd64", BIOSBoot: true})
	if err == nil {
		err = d.WriteTable(layout)
	}
	if err != nil {
		f.Fatal(err)
	}
	begin := make([]byte, 34*512)
	if _, err := d.ReadAt(begin, 0); err != nil {
		f.Fatal(err)
	}
	if err := d.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(begin[512:1024], begin[1024:1024+512])
	f.Add(begin[512:604], []byte{})
	f.Fuzz(func(t *testing.T, header, entries []byte) {
		disk := make([]byte, 64<<10)
		copy(disk[512:1024], header)
		copy(disk[1024:], entries)
		mendChecksums(disk)
		table, err := ReadGPT(bytes.NewReader(disk), 512, 1)
		if err != nil {
			return
		}
		if len(table.Entries) > len(disk) {
			t.Errorf("%d bytes of entries on a disk of %d", len(table.Entries), len(disk))
		}
		_ = table.Conforms() // whichever: it must come back
		_ = table.matches(Layout{})
	})
}

func mendChecksums(disk []byte) {
	h, le := disk[512:1024], binary.LittleEndian
	at, size := le.Uint64(h[72:])*512, uint64(le.Uint32(h[80:]))*uint64(le.Uint32(h[84:]))
	if at < uint64(len(disk)) && size <= uint64(len(disk))-at {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(disk[at:at+size]))
	}
	if n := le.Uint32(h[12:]); n <= 512 {
		le.PutUint32(h[16:], 0)
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:n]))
	}
}
