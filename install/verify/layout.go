package verify

import (
	"context"
	"errors"
	"slices"
	"strings"

	"installer/disk/fat"
	"installer/disk/fsinfo"
	"installer/finalize"
)

// Types of partitions that somebody else makes for an installation (Discoverable Partitions
// Specification, UAPI.2): the extended boot loader partition, which is /boot, and Linux file system
// data, which may be anything.
const (
	typeBoot  = "bc13c2ff-59e6-4262-a352-b275fd6f7172"
	typeLinux = "0fc63daf-8483-4772-8e79-3d69d8477de4"
)

// layout says where everything is on the disk: its partitions, and the file systems on them. The
// first checks fill it in.
type layout struct {
	parts  []Partition
	bios   *Partition
	esp    *Partition
	rootfs *Partition
	boot   *Partition  // with a file system of its own for /boot; nil: there is none
	others []Partition // of types that do not say whether they are a part of the system
	arch   string      // of the root partition's type, as Go names it; "" where another type has the root

	bootCode  bool              // the boot sector holds a program
	grub      bool              // that of GRUB
	fat       *fat.Volume       // of esp
	super     fsinfo.Superblock // of rootfs
	superErr  error             // for which the root's could not be read
	bootSuper fsinfo.Superblock // of boot
	maybe     []filesystem      // those whose content is not known
}

// filesystem is a partition with a file system that a root or /boot may be.
type filesystem struct {
	part  Partition
	super fsinfo.Superblock
}

// content classifies a file system by the files in it.
type content int

const (
	otherContent content = iota
	rootContent          // an ostree repository
	bootContent          // boot entries, or the kernels that they name
)

// layoutCheck completes the layout.
type layoutCheck struct {
	*findings
	*layout
	source *source
	disk   device
	ledger *finalize.Ledger
	root   RootOpener // nil: file systems cannot be looked into, for the reason noRoot
	noRoot string
}

// check finds the root and /boot, by their content, among the partitions whose types leave that
// open.
func (c *layoutCheck) check(ctx context.Context) error {
	if len(c.others) == 0 {
		c.notApplicable("the types in the partition table say it all")
		return nil
	}
	// A partition of the type of /boot goes before others.
	slices.SortStableFunc(c.others, func(a, b Partition) int { return strings.Compare(b.Type, a.Type) })
	c.maybe = c.withFilesystem()
	reason := c.noRoot
	if c.root != nil {
		var err error
		if reason, err = c.lookIntoAll(ctx); err != nil {
			return err
		}
	}
	if len(c.maybe) > 0 {
		c.guess(reason)
	}
	if c.rootfs == nil && len(c.maybe) == 0 {
		c.fault("partition table", "there is no root partition of a known architecture, and none that holds an ostree repository")
	}
	c.sayLayout()
	return nil
}

// withFilesystem lists those of the other partitions that may be a part of the system.
func (c *layoutCheck) withFilesystem() []filesystem {
	var known []filesystem
	for _, p := range c.others {
		super, err := fsinfo.ReadRoot(c.disk.part(p))
		switch {
		case err == nil:
			known = append(known, filesystem{p, super})
		case p.Type == typeBoot:
			c.fault(p.String(), "its type is that of /boot, and its superblock: %v", err)
		default:
			c.note(p.String(), "it cannot be a part of the system, and was not checked: %v", err)
		}
	}
	return known
}

// lookIntoAll classifies each of c.maybe. One that this machine cannot mount stays there, and the
// reason is returned.
func (c *layoutCheck) lookIntoAll(ctx context.Context) (reason string, err error) {
	var left []filesystem
	for _, f := range c.maybe {
		found, err := c.lookInto(ctx, f)
		unavailable := (*UnavailableError)(nil)
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case errors.As(err, &unavailable):
			left, reason = append(left, f), err.Error()
		case err != nil:
			c.blind(f, err)
		default:
			c.take(f, found)
		}
	}
	c.maybe = left
	return reason, nil
}

// blind reports a file system that cannot be mounted, with the faults of its superblock.
func (c *layoutCheck) blind(f filesystem, err error) {
	where := f.part.String()
	c.faultWith("the kernel's log says more: dmesg", where, "its content cannot be read: %v", err)
	r := c.disk.part(f.part)
	for _, problem := range fsinfo.Damage(f.super.Type, r, f.part.Size) {
		c.fault(where, "%s", problem)
	}
}

// lookInto mounts a file system and classifies it.
func (c *layoutCheck) lookInto(ctx context.Context, f filesystem) (found content, err error) {
	mounted, err := c.root.OpenRoot(ctx, c.source.volume(f.part, f.super.Type))
	if err != nil {
		return otherContent, err
	}
	defer func() { err = errors.Join(err, mounted.Close()) }()
	t := tree{root: mounted.Dir, ledger: c.ledger}
	_, loaderErr := t.stat("loader")
	switch {
	case t.isDir("ostree/repo"):
		return rootContent, nil
	case loaderErr == nil || t.isDir("ostree"):
		return bootContent, nil
	}
	return otherContent, nil
}

// take remembers a file system by its class.
func (c *layoutCheck) take(f filesystem, found content) {
	where := f.part.String()
	switch {
	case found == rootContent && c.rootfs == nil:
		c.rootfs = &f.part
	case found == rootContent && c.arch != "":
		c.note(where, "it holds an ostree repository, too, and was not checked: the root is %s", *c.rootfs)
	case found == rootContent:
		c.faultWith("give the partition of the root the type that the Discoverable Partitions Specification has for it",
			where, "it holds an ostree repository, as %s does: which of them is the root is not known", *c.rootfs)
	case found == bootContent && c.boot == nil:
		c.boot, c.bootSuper = &f.part, f.super
	case found == bootContent:
		c.fault(where, "it holds boot entries or kernels, as %s does: which of them is /boot is not known", *c.boot)
	case f.part.Type == typeBoot:
		c.note(where, "its type is that of /boot, and it holds neither loader nor ostree: it was not checked")
	default:
		c.note(where, "it holds no part of the system, and was not checked")
	}
}

// guess goes by types and numbers where file systems could not be looked into. The unknown ones
// stay in c.maybe.
func (c *layoutCheck) guess(reason string) {
	if f := c.maybe[0]; f.part.Type == typeBoot && c.boot == nil {
		c.boot, c.bootSuper, c.maybe = &f.part, f.super, c.maybe[1:]
	}
	if len(c.maybe) == 1 && c.rootfs == nil {
		c.rootfs, c.maybe = &c.maybe[0].part, nil
	}
	if len(c.maybe) > 0 && c.result.Status != Failed {
		c.result.Status = NotChecked
		c.say("the content of %s is not known without mounting it: %s", describe(c.maybe), reason)
	}
}

func describe(list []filesystem) string {
	names := make([]string, len(list))
	for n, f := range list {
		names[n] = f.part.String()
	}
	return strings.Join(names, ", ")
}

func (c *layoutCheck) sayLayout() {
	if c.result.Status != Passed || c.rootfs == nil {
		return
	}
	text := "the root is " + c.rootfs.String()
	if c.boot != nil {
		text += ", /boot is " + c.boot.String()
	}
	c.say("%s", text)
}

// volume is a partition's file system as it is mounted.
func (s *source) volume(p Partition, fs fsinfo.Type) Volume {
	return Volume{Disk: s.file, Start: p.Start, Size: p.Size, SectorSize: s.sector, Filesystem: fs}
}

// entriesOn lists the identifiers of the file systems that may have the boot entries: one, where
// the layout is known.
func (l *layout) entriesOn() []string {
	if l.boot != nil {
		return []string{l.bootSuper.UUID}
	}
	var ids []string
	if l.super.UUID != "" {
		ids = append(ids, l.super.UUID)
	}
	for _, f := range l.maybe {
		ids = append(ids, f.super.UUID)
	}
	return ids
}

// biosOnly reports whether only a BIOS starts the disk.
func (l *layout) biosOnly() bool { return l.esp == nil && l.bootCode && l.bios != nil }

// architecture is that of the root's type; where that has none, that of the machines that start the
// disk.
func (l *layout) architecture() string {
	if l.arch != "" {
		return l.arch
	}
	arm, _ := efiLoader("arm64")
	if l.fat != nil {
		if _, ok := l.fat.Find(arm); ok && !l.bootCode {
			return "arm64"
		}
	}
	return "amd64"
}
