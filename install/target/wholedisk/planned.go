package wholedisk

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"installer/disk"
	"installer/finalize"
	"installer/install/choice"
	"installer/install/size"
	"installer/install/target"
)

// Planned is a disk that does not exist yet, as the one of a virtual machine that will be started.
// It can be looked at and planned; there is nothing to write to.
type Planned struct {
	Path       string // of the file that it will be
	Model      string
	Size       int64 // bytes
	SectorSize int   // bytes
	RootSize   int64 // of the root partition, in bytes; 0 = all that is left
}

var _ target.Target = (*Planned)(nil)

// Words implements target.Target.
func (p *Planned) Words() target.Words { return words() }

// Look implements target.Target.
func (p *Planned) Look(context.Context) (*target.Look, error) {
	return &target.Look{
		Message: p.Model + ", " + size.Format(p.Size), Path: p.Path, Size: p.Size, SectorSize: p.SectorSize,
		Place: choice.Place{Path: p.Path, RootUUID: uuid.NewString()},
	}, nil
}

// Plan lays the disk out as that of an existing disk would be.
func (p *Planned) Plan(_ context.Context, c *choice.Choice, need target.Need) (*target.Plan, error) {
	layout, err := layOut(p.Size, p.SectorSize, p.RootSize, c, need)
	if err != nil {
		return nil, err
	}
	return &target.Plan{Device: p.Path, Model: p.Model, Partitions: layout.Partitions, RootNeed: need.Root(c.Filesystem)}, nil
}

// Prepare implements target.Target.
func (p *Planned) Prepare() []target.Step { return nil }

// Root implements target.Target.
func (p *Planned) Root() *target.Root { return nil }

// Release implements target.Target.
func (p *Planned) Release(context.Context, []finalize.Handle, func(finalize.StageResult)) (*finalize.Report, error) {
	return nil, errors.New("releasing a disk that was only planned")
}

// HandOver implements target.Target.
func (p *Planned) HandOver() []target.Step { return nil }

// Proven implements target.Target.
func (p *Planned) Proven() bool { return false }

// Where implements target.Target.
func (p *Planned) Where() string { return "" }

// Left implements target.Target.
func (p *Planned) Left(bool) string { return "" }

// layOut plans the partitions of a disk.
func layOut(bytes int64, sector int, rootSize int64, c *choice.Choice, need target.Need) (disk.Layout, error) {
	layout, err := disk.Plan(bytes, sector, disk.PlanOptions{
		Arch:     c.Arch,
		BIOSBoot: c.Arch == "amd64",
		ESPSize:  espSize(c.Bootloader, need.Boot),
		RootSize: rootSize,
		MinRoot:  need.Root(c.Filesystem),
	})
	if tooSmall := (*disk.TooSmallError)(nil); errors.As(err, &tooSmall) {
		return layout, &target.NoRoomError{Err: err}
	}
	return layout, err
}
