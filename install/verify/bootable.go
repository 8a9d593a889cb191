package verify

import (
	"context"
	"errors"
	"path"

	"installer/install/size"
	"installer/rootfs/bootable"
)

// checkBootable judges each deployment that an entry starts as an installation judges an image.
func checkBootable(ctx context.Context, f *findings, t tree, deployments []*deployment, o bootable.Options) error {
	judged := 0
	for _, d := range deployments {
		if d.entry == nil {
			continue // the boot links' check has reported it
		}
		if err := t.inDeployment(d, func(at deploymentFS) error { return judgeBootable(ctx, f, d, at, o) }); err != nil {
			f.fault("/"+d.path, "%v", err)
		}
		judged++
	}
	f.say("%s with all files of a first boot and a first update", size.Count(judged, "deployment"))
	return ctx.Err()
}

func judgeBootable(ctx context.Context, f *findings, d *deployment, at deploymentFS, o bootable.Options) error {
	o.Facts = func(name string) *bootable.Facts {
		file, err := at.Open(name)
		if err != nil {
			return nil
		}
		defer file.Close()
		facts, err := bootable.Look(name, contextReader{ctx, file})
		if err != nil {
			f.fault("/"+path.Join(d.path, name), "it cannot be read: %v", err)
			return nil
		}
		return facts
	}
	notes, err := bootable.Check(at, o)
	for _, note := range notes {
		f.note("/"+path.Join(d.path, note.Path), "it %s", note.What)
	}
	refused := (*bootable.Error)(nil)
	if !errors.As(err, &refused) {
		return err
	}
	for _, fault := range refused.Faults {
		f.fault("/"+path.Join(d.path, fault.Path), "it %s", fault.What)
	}
	return nil
}
