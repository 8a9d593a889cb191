package verify

import (
	"context"
	"errors"
	"path"

	"installer/install/size"
	"installer/rootfs/bootable"
	"installer/rootfs/bootloader"
)

// checkBootable judges each deployment that an entry starts as an installation judges an image.
func (i *inspection) checkBootable(ctx context.Context) error {
	judged := 0
	for _, d := range i.deployments {
		if d.entry == nil {
			continue // the boot links' check has reported it
		}
		if err := i.inDeployment(d, func(f deploymentFS) error { return i.judgeBootable(ctx, d, f) }); err != nil {
			i.fault("/"+d.path, "%v", err)
		}
		judged++
	}
	i.say("%s with all files of a first boot and a first update", size.Count(judged, "deployment"))
	return ctx.Err()
}

func (i *inspection) judgeBootable(ctx context.Context, d *deployment, f deploymentFS) error {
	facts := func(name string) *bootable.Facts {
		file, err := f.Open(name)
		if err != nil {
			return nil
		}
		defer file.Close()
		facts, err := bootable.Look(name, contextReader{ctx, file})
		if err != nil {
			i.fault("/"+path.Join(d.path, name), "it cannot be read: %v", err)
			return nil
		}
		return facts
	}
	systemd := i.bootLoaderKind() == bootloader.SystemdBoot
	notes, err := bootable.Check(f, bootable.Options{Arch: i.architecture(), EFIStub: systemd, Facts: facts})
	for _, note := range notes {
		i.note("/"+path.Join(d.path, note.Path), "it %s", note.What)
	}
	refused := (*bootable.Error)(nil)
	if !errors.As(err, &refused) {
		return err
	}
	for _, fault := range refused.Faults {
		i.fault("/"+path.Join(d.path, fault.Path), "it %s", fault.What)
	}
	return nil
}
