// Command bench measures how an image of Debian packages comes to a disk: by the installer, and by
// others. The script tests/bench runs it; README.md explains the numbers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"installer/tests/layout"
)

// bench is one run of the program.
type bench struct {
	ctx       context.Context
	installer string // the program
	base      string // OCI layout of the bootable image
	cache     string // directory of the images, which are made once
	work      string // directory of the disks
	flat      string // tar of the merged tree
	count     int
	diskSize  int64
}

// choice holds the choices of the command line.
type choice struct {
	filesystems, layers, ways []string
	grow                      []int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	b, c, err := parse(ctx)
	if err == nil {
		err = b.all(c)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(ctx context.Context) (*bench, choice, error) {
	b := &bench{ctx: ctx}
	var c choice
	flag.StringVar(&b.installer, "installer", "", "the installer's `program`")
	flag.StringVar(&b.base, "base", "", "OCI layout `directory` of the bootable image")
	flag.StringVar(&b.cache, "cache", "", "`directory` of the images, which are made once")
	flag.StringVar(&b.work, "work", os.TempDir(), "`directory` where the disks are made")
	flag.IntVar(&b.count, "count", 5, "runs of which the median counts")
	size := flag.Int64("disk", 12<<10, "size of a disk in MiB")
	list := func(name, all, usage string) *string { return flag.String(name, all, usage) }
	filesystems := list("fs", "xfs,ext4", "file systems")
	layers := list("layers", "plain,gzip", "forms of the layers")
	names := list("ways", "installer,libostree,umoci,gunzip,floor", "ways to measure")
	grow := list("grow", "10000,30000,100000,300000", "numbers of files to show growth by; may be empty")
	flag.Parse()
	b.diskSize = *size << 20
	c.filesystems, c.layers, c.ways = split(*filesystems), split(*layers), split(*names)
	for _, n := range split(*grow) {
		files, err := strconv.Atoi(n)
		if err != nil || files < grownLayers {
			return nil, c, fmt.Errorf("-grow: %q is no number of files", n)
		}
		c.grow = append(c.grow, files)
	}
	if b.installer == "" || b.base == "" || b.cache == "" || flag.NArg() > 0 || b.count < 1 {
		return nil, c, errors.New("use tests/bench")
	}
	return b, c, os.MkdirAll(b.cache, 0o755)
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

func (b *bench) all(c choice) error {
	sources, err := b.prepare(c.layers)
	if err != nil {
		return err
	}
	for _, fs := range c.filesystems {
		for _, s := range sources {
			if err := b.compare(c.ways, s, fs); err != nil {
				return err
			}
		}
	}
	for _, fs := range c.filesystems {
		if len(c.grow) > 0 {
			if err := b.growth(fs, c.grow); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepare makes the image in each form, and the tar of the merged tree.
func (b *bench) prepare(forms []string) (sources []source, err error) {
	packed, plain := filepath.Join(b.cache, "gzip"), filepath.Join(b.cache, "plain")
	err = once(packed, func(part string) error {
		return makeImage(b.ctx, b.base, part, filepath.Join(b.cache, "debs"))
	})
	if err == nil {
		err = once(plain, func(part string) error { return layout.Decompress(packed, part) })
	}
	if err == nil {
		b.flat = filepath.Join(b.cache, "flat.tar")
		err = once(b.flat, func(part string) error { return b.flatten(plain, part) })
	}
	if err != nil {
		return nil, err
	}
	for _, form := range forms {
		s, err := newSource(form, filepath.Join(b.cache, form))
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	return sources, nil
}

func newSource(form, dir string) (source, error) {
	_, manifest, _, err := layout.Read(dir)
	if err != nil {
		return source{}, err
	}
	s := source{name: form, dir: dir}
	for _, l := range manifest.Layers {
		s.layers = append(s.layers, filepath.Join(dir, "blobs/sha256", l.Digest.Encoded()))
	}
	return s, nil
}

// flatten makes the tar of the merged tree, by another program than the one that is measured.
func (b *bench) flatten(dir, to string) error {
	bundle := to + ".bundle"
	defer os.RemoveAll(bundle)
	if _, err := output(b.ctx, "umoci", "unpack", "--image", dir+":latest", bundle); err != nil {
		return err
	}
	_, err := output(b.ctx, "tar", "-C", filepath.Join(bundle, "rootfs"), "--xattrs", "--xattrs-include=*", "--numeric-owner", "-cf", to, ".")
	return err
}

// compare measures the ways, one after the other in each round, so that other work of the machine
// falls on all of them, and says how they relate.
func (b *bench) compare(names []string, s source, fs string) error {
	samples := map[string][]sample{}
	chosen := slices.DeleteFunc(slices.Clone(ways), func(w way) bool {
		return !slices.Contains(names, w.name) || w.only != "" && w.only != s.name
	})
	for range b.count {
		for _, w := range chosen {
			one, err := b.measure(w, s, fs)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			samples[w.name] = append(samples[w.name], one)
		}
	}
	fmt.Printf("\n%s, %s layers (%d), %d CPUs, medians of %d\n", fs, s.name, len(s.layers), runtime.NumCPU(), b.count)
	fmt.Printf("%-10s %8s %8s %12s %12s\n", "", "seconds", "CPU s", "memory MiB", "written MiB")
	for _, w := range chosen {
		m := median(samples[w.name])
		fmt.Printf("%-10s %8.1f %8.1f %12d %12d   %s\n", w.name, m.wall.Seconds(), m.cpu.Seconds(), m.maxRSS>>20, m.written>>20, w.what)
	}
	ours := samples[ways[0].name]
	for _, w := range chosen {
		if w.name == ways[0].name || ours == nil {
			continue
		}
		fmt.Printf("%[1]s / installer: %.2[2]f, installer / %[1]s: %.2[3]f (medians of the rounds' ratios)\n",
			w.name, ratio(samples[w.name], ours), ratio(ours, samples[w.name]))
	}
	return nil
}

// measure measures a way once. Its input is in memory, as far as that fits.
func (b *bench) measure(w way, s source, fs string) (sample, error) {
	files := s.layers
	if w.name == "floor" {
		files = []string{b.flat}
	}
	for _, file := range files {
		if err := warm(file); err != nil {
			return sample{}, err
		}
	}
	return b.once(w, s, fs)
}
