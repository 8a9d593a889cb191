package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
)

// withheld is a range whose content is kept in memory; the disk has zeros there.
type withheld struct {
	off  int64
	data []byte
}

// veils are the withheld ranges of a disk, in the order of revealing.
type veils []*withheld

// Withhold keeps later writes to a range in memory until [Disk.Reveal]: the code that starts a disk
// must reach it last. Until then the disk has zeros there, and ReadAt returns the data in memory.
func (d *Disk) Withhold(off, n int64) error {
	if err := d.within(off, n); err != nil {
		return fmt.Errorf("withholding: %w", err)
	}
	d.veils = append(d.veils, &withheld{off, make([]byte, n)})
	return nil
}

// Reveal flushes the disk, and then writes the withheld ranges in the order of the calls of
// Withhold. Each is flushed and read back before the next.
func (d *Disk) Reveal() error {
	if err := d.Sync(); err != nil {
		return err
	}
	veils := d.veils
	d.veils = nil
	for _, v := range veils {
		if err := v.reveal(d.file); err != nil {
			return fmt.Errorf("writing the %d bytes at %d of %s, which make it start: %w", len(v.data), v.off, d.Path(), err)
		}
	}
	return nil
}

// reveal writes the range, flushes it and reads it back.
func (v *withheld) reveal(disk *os.File) error {
	if _, err := disk.WriteAt(v.data, v.off); err != nil {
		return err
	}
	if err := flush(disk); err != nil {
		return err
	}
	if err := dropCache(disk, v.off, int64(len(v.data))); err != nil {
		return err
	}
	got := make([]byte, len(v.data))
	if _, err := disk.ReadAt(got, v.off); err != nil {
		return err
	}
	if !bytes.Equal(got, v.data) {
		return errors.New("the content that is read back differs from the content that was written")
	}
	return nil
}

// overlap returns the parts of p, which stands at off, and of the withheld data that overlap.
func (v *withheld) overlap(p []byte, off int64) (part, data []byte) {
	from, to := max(off, v.off), min(off+int64(len(p)), v.off+int64(len(v.data)))
	if from >= to {
		return nil, nil
	}
	return p[from-off : to-off], v.data[from-v.off : to-v.off]
}

// hide stores the withheld parts of p, and returns p with zeros in their place.
func (vs veils) hide(p []byte, off int64) []byte {
	masked := p
	for _, v := range vs {
		part, data := v.overlap(p, off)
		if part == nil {
			continue
		}
		copy(data, part)
		if &masked[0] == &p[0] {
			masked = slices.Clone(p)
		}
		hidden, _ := v.overlap(masked, off)
		clear(hidden)
	}
	return masked
}

// show copies withheld data into p, which was read at off.
func (vs veils) show(p []byte, off int64) {
	for _, v := range vs {
		part, data := v.overlap(p, off)
		copy(part, data)
	}
}
