package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"installer/disk/fsinfo"
)

// Types of partitions that somebody else makes for an installation (Discoverable Partitions
// Specification, UAPI.2): the extended boot loader partition, which is /boot, and Linux file system
// data, which may be anything.
const (
	typeBoot  = "bc13c2ff-59e6-4262-a352-b275fd6f7172"
	typeLinux = "0fc63daf-8483-4772-8e79-3d69d8477de4"
)

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

// checkLayout finds the root and /boot, by their content, among the partitions whose types leave
// that open.
func (i *inspection) checkLayout(ctx context.Context) error {
	if len(i.others) == 0 {
		i.notApplicable("the types in the partition table say it all")
		return nil
	}
	// A partition of the type of /boot goes before others.
	slices.SortStableFunc(i.others, func(a, b Partition) int { return strings.Compare(b.Type, a.Type) })
	i.maybe = i.withFilesystem()
	reason := i.opts.NoRoot
	if i.opts.Root != nil {
		var err error
		if reason, err = i.lookIntoAll(ctx); err != nil {
			return err
		}
	}
	if len(i.maybe) > 0 {
		i.guess(reason)
	}
	if i.rootfs == nil && len(i.maybe) == 0 {
		i.fault("partition table", "there is no root partition of a known architecture, and none that holds an ostree repository")
	}
	i.sayLayout()
	return nil
}

// withFilesystem lists those of the other partitions that may be a part of the system.
func (i *inspection) withFilesystem() []filesystem {
	var known []filesystem
	for _, p := range i.others {
		super, err := fsinfo.ReadRoot(io.NewSectionReader(i.disk, p.Start, p.Size))
		switch {
		case err == nil:
			known = append(known, filesystem{p, super})
		case p.Type == typeBoot:
			i.fault(p.String(), "its type is that of /boot, and its super block: %v", err)
		default:
			i.note(p.String(), "it cannot be a part of the system, and was not checked: %v", err)
		}
	}
	return known
}

// lookIntoAll classifies each of i.maybe. One that this machine cannot mount stays there, and the
// reason is returned.
func (i *inspection) lookIntoAll(ctx context.Context) (reason string, err error) {
	var left []filesystem
	for _, f := range i.maybe {
		found, err := i.lookInto(ctx, f)
		unavailable := (*UnavailableError)(nil)
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case errors.As(err, &unavailable):
			left, reason = append(left, f), err.Error()
		case err != nil:
			i.blind(f, err)
		default:
			i.take(f, found)
		}
	}
	i.maybe = left
	return reason, nil
}

// blind reports a file system that cannot be mounted, with the faults of its superblock.
func (i *inspection) blind(f filesystem, err error) {
	where := f.part.String()
	i.faultWith("the kernel's log says more: dmesg", where, "its content cannot be read: %v", err)
	r := io.NewSectionReader(i.disk, f.part.Start, f.part.Size)
	for _, problem := range fsinfo.Damage(f.super.Type, r, f.part.Size) {
		i.fault(where, "%s", problem)
	}
}

// lookInto mounts a file system and classifies it.
func (i *inspection) lookInto(ctx context.Context, f filesystem) (found content, err error) {
	mounted, err := i.opts.Root.OpenRoot(ctx, i.volume(f.part, f.super.Type))
	if err != nil {
		return otherContent, err
	}
	defer func() { err = errors.Join(err, mounted.Close()) }()
	t := tree{root: mounted.Dir, ledger: i.ledger}
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
func (i *inspection) take(f filesystem, found content) {
	where := f.part.String()
	switch {
	case found == rootContent && i.rootfs == nil:
		i.rootfs = &f.part
	case found == rootContent && i.arch != "":
		i.note(where, "it holds an ostree repository, too, and was not checked: the root is %s", *i.rootfs)
	case found == rootContent:
		i.faultWith("give the partition of the root the type that the Discoverable Partitions Specification has for it",
			where, "it holds an ostree repository, as %s does: which of them is the root is not known", *i.rootfs)
	case found == bootContent && i.boot == nil:
		i.boot, i.bootSuper = &f.part, f.super
	case found == bootContent:
		i.fault(where, "it holds boot entries or kernels, as %s does: which of them is /boot is not known", *i.boot)
	case f.part.Type == typeBoot:
		i.note(where, "its type is that of /boot, and it holds neither loader nor ostree: it was not checked")
	default:
		i.note(where, "it holds no part of the system, and was not checked")
	}
}

// guess goes by types and numbers where file systems could not be looked into. The unknown ones
// stay in i.maybe.
func (i *inspection) guess(reason string) {
	if f := i.maybe[0]; f.part.Type == typeBoot && i.boot == nil {
		i.boot, i.bootSuper, i.maybe = &f.part, f.super, i.maybe[1:]
	}
	if len(i.maybe) == 1 && i.rootfs == nil {
		i.rootfs, i.maybe = &i.maybe[0].part, nil
	}
	if len(i.maybe) > 0 && i.now.Status != Failed {
		i.now.Status = NotChecked
		i.say("the content of %s is not known without mounting it: %s", describe(i.maybe), reason)
	}
}

func describe(list []filesystem) string {
	names := make([]string, len(list))
	for n, f := range list {
		names[n] = f.part.String()
	}
	return strings.Join(names, ", ")
}

func (i *inspection) sayLayout() {
	if i.now.Status != Passed || i.rootfs == nil {
		return
	}
	text := "the root is " + i.rootfs.String()
	if i.boot != nil {
		text += ", /boot is " + i.boot.String()
	}
	i.say("%s", text)
}

// volume is a partition's file system as it is mounted.
func (i *inspection) volume(p Partition, fs fsinfo.Type) Volume {
	return Volume{Disk: i.source.file, Start: p.Start, Size: p.Size, SectorSize: i.source.sector, Filesystem: fs}
}

// entriesOn lists the identifiers of the file systems that may have the boot entries: one, where
// the layout is known.
func (i *inspection) entriesOn() []string {
	if i.boot != nil {
		return []string{i.bootSuper.UUID}
	}
	var ids []string
	if root, ok := i.rootUUID(); ok {
		ids = append(ids, root)
	}
	for _, f := range i.maybe {
		ids = append(ids, f.super.UUID)
	}
	return ids
}

// biosOnly reports whether only a BIOS starts the disk.
func (i *inspection) biosOnly() bool { return i.esp == nil && i.bootCode && i.bios != nil }

// architecture is that of the root's type; where that has none, that of the machines that start the
// disk.
func (i *inspection) architecture() string {
	if i.arch != "" {
		return i.arch
	}
	arm, _ := efiLoader("arm64")
	if i.fat != nil {
		if _, ok := i.fat.find(arm); ok && !i.bootCode {
			return "arm64"
		}
	}
	return "amd64"
}

// noBoot returns the reason for which the place of /boot is not known, or "".
func (i *inspection) noBoot() string {
	if reason := i.noRootPartition(); reason != "" {
		return reason
	}
	if i.boot == nil && len(i.maybe) > 0 {
		return fmt.Sprintf("whether /boot is on %s is not known", describe(i.maybe))
	}
	return ""
}
