package main

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"installer/tests/layout"
)

// The images for the growth by size: as many layers for each, and files like those of an OS.
const (
	grownLayers  = 8
	filesInOne   = 40   // of a directory
	smallestFile = 64   // bytes
	largestFile  = 8192 // bytes
)

// makeGrown makes the OCI layout dir: the bootable image base with so many more files.
func makeGrown(base, dir string, files int) error {
	packed := dir + ".packed"
	defer os.RemoveAll(packed)
	s, err := layout.Begin(base, packed)
	if err != nil {
		return err
	}
	s.Keep(baseLayers)
	for layer := range grownLayers {
		if err := s.Add(func(w *tar.Writer) error { return writeMany(w, layer, files/grownLayers) }); err != nil {
			return err
		}
	}
	if err := s.Finish(nil); err != nil {
		return err
	}
	return layout.Decompress(packed, dir)
}

// writeMany writes files that all differ, the same ones every time.
func writeMany(w *tar.Writer, layer, files int) error {
	random := rand.New(rand.NewPCG(uint64(layer), uint64(files)))
	content := make([]byte, largestFile)
	for i := range files {
		binary.LittleEndian.PutUint64(content, random.Uint64())
		name := fmt.Sprintf("usr/share/grown/%d/%d/%d", layer, i/filesInOne, i)
		size := smallestFile + random.IntN(largestFile-smallestFile)
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size)}); err != nil {
			return err
		}
		if _, err := w.Write(content[:size]); err != nil {
			return err
		}
	}
	return nil
}

// growth installs images of ever more files. Beside it stands the time that the files alone take: a
// file system has its own growth.
func (b *bench) growth(fs string, counts []int) error {
	untar := way{name: "tar", run: (*bench).extractLayers}
	fmt.Printf("\n%s, growth: an image of small files in %d uncompressed layers over the system; tar -x of the layers, synced\n", fs, grownLayers)
	fmt.Printf("%10s %10s %20s %12s %10s %16s\n", "files", "seconds", "ms per 1000 files", "memory MiB", "tar", "installer / tar")
	for _, n := range counts {
		dir := filepath.Join(b.cache, fmt.Sprintf("grown-%d", n))
		if err := once(dir, func(part string) error { return makeGrown(b.base, part, n) }); err != nil {
			return err
		}
		s, err := newSource("plain", dir)
		if err != nil {
			return err
		}
		var ours, theirs []sample
		for range b.count {
			one, err := b.measure(ways[0], s, fs)
			if err != nil {
				return err
			}
			other, err := b.measure(untar, s, fs)
			if err != nil {
				return err
			}
			ours, theirs = append(ours, one), append(theirs, other)
		}
		m, t := median(ours), median(theirs)
		fmt.Printf("%10d %10.1f %20.1f %12d %10.1f %16.2f\n", n, m.wall.Seconds(), m.wall.Seconds()*1e6/float64(n), m.maxRSS>>20,
			t.wall.Seconds(), ratio(ours, theirs))
	}
	return nil
}
