package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

// way is one way to bring an image to a disk.
type way struct {
	name string
	what string
	run  func(*bench, *meter, *drive, source, string) error // the last is the file system
	raw  bool                                               // it takes the disk itself, not a file system
	only string                                             // form of the layers that it is for; all if empty
}

// source is the image in one form.
type source struct {
	name   string   // of the form
	dir    string   // an OCI layout
	layers []string // its blobs, lowest first
}

func (s source) ref() string { return "oci:" + s.dir + ":latest" }

var ways = []way{
	{name: "installer", what: "to-disk, from partitioning to the released disk", run: (*bench).install, raw: true},
	{name: "libostree", what: "ostree: commit of each layer, checkout --union --whiteouts, final commit, admin deploy; synced", run: (*bench).libostree},
	{name: "umoci", what: "skopeo copy, umoci unpack; synced", run: (*bench).unpack},
	{name: "gunzip", what: "gzip -dc of the layers, one for each CPU at a time; nothing is written", run: (*bench).gunzip, raw: true, only: "gzip"},
	{name: "floor", what: "tar -x of the flattened tree; synced", run: (*bench).extract},
}

func (b *bench) install(m *meter, d *drive, s source, fs string) error {
	return m.run(b.installer, "to-disk", "--quiet", "--yes", "--generic-image", "--filesystem", fs,
		"--source-imgref", s.ref(), "--via-loopback", d.file)
}

func (b *bench) libostree(m *meter, d *drive, s source, _ string) error {
	repo := filepath.Join(d.root, "ostree/repo")
	merged := filepath.Join(repo, "tmp/merged")
	ostree := func(args ...string) []string { return append([]string{"ostree", "--repo=" + repo}, args...) }
	admin := func(args ...string) []string {
		return append([]string{"ostree", "admin", "--sysroot=" + d.root}, args...)
	}
	commands := [][]string{
		{"ostree", "admin", "init-fs", d.root}, admin("os-init", "default"), ostree("config", "set", "sysroot.bootloader", "none"),
	}
	var checkouts [][]string
	for i, blob := range s.layers {
		ref := "layer/" + strconv.Itoa(i)
		commands = append(commands, ostree("commit", "--branch="+ref, "--tree=tar="+blob, "--tar-autocreate-parents"))
		checkouts = append(checkouts, ostree("checkout", "--union", "--whiteouts", ref, merged))
	}
	if err := m.all(append(commands, checkouts...)...); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(merged, "etc"), filepath.Join(merged, "usr/etc")); err != nil {
		return err
	}
	err := m.all(ostree("commit", "--branch=merged", "--tree=dir="+merged, "--consume", "--link-checkout-speedup"),
		admin("deploy", "--os=default", "--karg=root=LABEL=root", "merged"))
	if err != nil {
		return err
	}
	return syncfs(d.root)
}

func (b *bench) unpack(m *meter, d *drive, s source, _ string) error {
	layout := filepath.Join(d.root, "layout")
	err := m.all([]string{"skopeo", "--insecure-policy", "copy", "--quiet", s.ref(), "oci:" + layout + ":latest"},
		[]string{"umoci", "unpack", "--image", layout + ":latest", filepath.Join(d.root, "bundle")})
	if err != nil {
		return err
	}
	return syncfs(d.root)
}

func (b *bench) gunzip(m *meter, _ *drive, s source, _ string) error {
	const script = `n=$1; shift; printf '%s\0' "$@" | xargs -0 -P "$n" -n 1 gzip -dc >/dev/null`
	return m.run("sh", append([]string{"-c", script, "sh", strconv.Itoa(runtime.NumCPU())}, s.layers...)...)
}

func (b *bench) extract(m *meter, d *drive, _ source, _ string) error {
	return b.untar(m, d, b.flat)
}

func (b *bench) extractLayers(m *meter, d *drive, s source, _ string) error {
	return b.untar(m, d, s.layers...)
}

func (b *bench) untar(m *meter, d *drive, tars ...string) error {
	for _, tar := range tars {
		if err := m.run("tar", "-C", d.root, "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", tar); err != nil {
			return err
		}
	}
	return syncfs(d.root)
}

// once brings the image to a new disk and returns its cost.
func (b *bench) once(w way, s source, fs string) (_ sample, err error) {
	d, err := newDrive(b.ctx, b.work, b.diskSize)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, d.remove()) }()
	if !w.raw {
		if err := d.mount(fs); err != nil {
			return sample{}, err
		}
	}
	m := &meter{ctx: b.ctx}
	count := d.watch()
	begin := time.Now()
	err = w.run(b, m, d, s, fs)
	m.total.wall = time.Since(begin)
	m.total.written = count()
	return m.total, err
}
