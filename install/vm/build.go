package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"installer/install"
	"installer/install/hostprog"
	"installer/install/outfile"
	"installer/install/vm/internal/wire"
	"installer/rootfs/image"

	"golang.org/x/sys/unix"
)

// build is a running build.
type build struct {
	opts     Options
	programs programs
	report   *Report
	started  time.Time

	mu       sync.Mutex // orders events
	observer install.Observer

	kvm    string                              // device node
	limits func(Accel) map[Phase]time.Duration // of each phase

	files []func() error // close the open files, to be called in reverse
	began time.Time      // begin of the step under way
	step  install.Event  // the step under way; its kind changes when its end is reported

	image  *image.Image
	survey *install.Survey // of the image, which the guest is given
	noted  map[string]bool // notes of the host, which the guest would repeat
	tree   *tree
	source *source
	output *outfile.File
	kernel *os.File
	initrd *os.File
	guest  *install.Report // of the installer in the guest
}

// Build makes the output, or with DryRun plans it. The report is complete as far as the build came,
// also with an error; a failed build leaves nothing behind. Errors to look for with errors.As:
// [*MissingProgramError], [*OutputRefusedError], [*DirFullError], [*GuestError], [*MachineError],
// [*OutputError], [*image.SourceError] and [*disk.TooSmallError].
func Build(ctx context.Context, o Options, observe install.Observer) (*Report, error) {
	b := newBuild(o, observe)
	err := b.run(ctx)
	for n := len(b.files) - 1; n >= 0; n-- {
		err = errors.Join(err, b.files[n]())
	}
	b.complete(err)
	return b.report, err
}

func newBuild(o Options, observe install.Observer) *build {
	return &build{
		opts: o, observer: observe, report: newReport(o), started: time.Now(),
		kvm: kvmDevice, limits: limits, noted: map[string]bool{},
	}
}

func newReport(o Options) *Report {
	r := &Report{Machine: MachineReport{Memory: o.Memory, CPUs: cpus(), Output: o.Output, Format: o.Format}}
	r.Version = install.ReportVersion
	return r
}

// adopt copies those parts of the guest's report that the host cannot know.
func (b *build) adopt(g *install.Report) {
	r := &b.report.Report
	r.Deployment, r.Steps, r.Finalize, r.UndoErrors = g.Deployment, g.Steps, g.Finalize, g.UndoErrors
	r.Deployment.Kernel = b.tree.version
	r.Deployment.Files, _, _, r.Deployment.Bytes = b.tree.tree.Stats()
	r.Source.Bytes = max(g.Source.Bytes, 0)
	if size := b.image.SourceSize(); size >= 0 {
		r.Source.Bytes = min(r.Source.Bytes, size)
	}
	for _, note := range g.Notes {
		if !b.noted[note] {
			r.Notes = append(r.Notes, note)
		}
	}
}

// complete ends the report.
func (b *build) complete(err error) {
	r := b.report
	r.Version = install.ReportVersion
	r.Source.Reference, r.Disk.Path = b.opts.Install.Source.String(), b.opts.Output
	r.Started, r.Ended, r.Outcome, r.Error = b.started, time.Now(), install.Complete, ""
	switch {
	case err != nil:
		r.Outcome, r.Error = install.Failed, err.Error()
	case b.opts.Install.DryRun:
		r.Outcome = install.Planned
		r.Machine.Planned = b.commands()
	}
}

// run does the steps on the host. The steps in the guest come after "machine".
func (b *build) run(ctx context.Context) error {
	steps := []struct {
		name, title string
		do          func(context.Context) (string, error)
	}{
		{"open-image", "Opening the source image", b.open},
		{"inspect", "Looking through the image", b.plan},
		{"read-image", "Reading the image for the virtual machine", b.read},
		{"machine", "Starting the virtual machine", b.install}, // done when the installer in it starts
		{"check", "Checking the disk on the host", b.check},
		{"output", "Completing " + b.opts.Output, b.finish},
	}
	if b.opts.Install.DryRun {
		steps = steps[:3]
	}
	for n, s := range steps {
		b.step = install.Event{Kind: install.EventStep, Step: s.name, Title: s.title, Index: n + 1, Count: len(steps)}
		b.began = time.Now()
		b.emit(b.step)
		message, err := s.do(ctx)
		nested := s.name == "inspect" || b.step.Kind != install.EventStep // it has steps of its own, or the machine has
		b.done(message, err)
		if ctx.Err() != nil {
			return fmt.Errorf("%s: interrupted: %w", s.title, context.Cause(ctx))
		}
		if err != nil && nested {
			return err
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
	}
	return nil
}

// done reports the end of the step under way, once.
func (b *build) done(message string, err error) {
	if b.step.Kind != install.EventStep {
		return
	}
	e := &b.step
	e.Kind, e.Seconds, e.Message, e.Time = install.EventDone, time.Since(b.began).Seconds(), message, time.Now()
	if err != nil {
		e.Kind, e.Message = install.EventFailed, err.Error()
	}
	b.report.Machine.HostSteps = append(b.report.Machine.HostSteps, *e)
	b.emit(*e)
}

func (b *build) emit(e install.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.Time = time.Now()
	b.observer(e)
}

func (b *build) note(format string, args ...any) {
	b.emit(install.Event{Kind: install.EventNote, Message: fmt.Sprintf(format, args...)})
}

// onEnd registers a function that the end of the build calls.
func (b *build) onEnd(do func() error) { b.files = append(b.files, do) }

func (b *build) dir() string { return filepath.Dir(b.opts.Output) }

// open checks everything that can be refused without reading the image.
func (b *build) open(ctx context.Context) (string, error) {
	var err error
	if b.programs, err = findPrograms(hostprog.Find); err != nil {
		return "", err
	}
	if b.output, err = openOutput(b.opts.Output); err != nil {
		return "", err
	}
	b.onEnd(b.output.Close)
	if err := b.openSource(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %d layers", b.image.Ref, len(b.image.Layers)), nil
}

// openSource opens the source. If its layers are streams, it opens a copy.
func (b *build) openSource(ctx context.Context) error {
	img, err := b.openRef(ctx, b.opts.Install.Source)
	if err != nil || !streamed(img.Ref) {
		return err
	}
	file, err := outfile.Scratch(b.dir())
	if err != nil {
		return err
	}
	b.note("the layers of %s are copied first: they do not lie in files", img.Ref)
	if err := copySource(ctx, img, file, b.counter("open-image", img.SourceSize())); err != nil {
		return errors.Join(full(err, b.dir()), file.Close())
	}
	if b.image, err = img.Reopen(file); err != nil {
		return err
	}
	b.onEnd(b.image.Close)
	return nil
}

func streamed(ref image.Ref) bool {
	switch ref.Transport {
	case image.TransportOCI, image.TransportOCIArchive, image.TransportRootfs:
		return false
	}
	return true
}

func (b *build) openRef(ctx context.Context, ref image.Ref) (*image.Image, error) {
	img, err := openNative(ctx, ref, b.opts.Install.SourceOpen)
	if err != nil {
		return nil, err
	}
	b.onEnd(img.Close)
	b.image = img
	return img, nil
}

// openNative opens an image, and refuses one for another architecture than this machine's.
func openNative(ctx context.Context, ref image.Ref, o image.OpenOptions) (*image.Image, error) {
	img, err := image.Open(ctx, ref, o)
	if err != nil || img.Config == nil || img.Architecture == runtime.GOARCH {
		return img, err
	}
	err = &image.SourceError{Ref: ref.String(), Err: fmt.Errorf(
		"it is made for architecture %q, this machine is %q: give an image for this one", img.Architecture, runtime.GOARCH)}
	return nil, errors.Join(err, img.Close())
}

// counter returns a function that adds bytes and reports the progress.
func (b *build) counter(step string, total int64) func(int64) {
	var done atomic.Int64
	return func(n int64) {
		b.emit(install.Event{Kind: install.EventProgress, Step: step, Done: done.Add(n), Total: max(total, 0)})
	}
}

// plan runs the steps of to-disk that come before the first write, on the host.
func (b *build) plan(ctx context.Context) (string, error) {
	o := b.opts.Install
	o.GenericImage, o.ConfigRoot, o.Confirm = true, "", nil
	d := install.PlannedDisk{
		Path: b.opts.Output, Model: string(b.opts.Format), Size: b.opts.DiskSize, SectorSize: sector, RootSize: o.RootSize,
	}
	var message string
	r, survey, err := install.PlanDisk(ctx, o, b.image, d, wire.SourceDir, func(e install.Event) {
		switch e.Kind {
		case install.EventNote:
			b.noted[e.Message] = true
			b.emit(e)
		case install.EventProgress:
			b.emit(e)
		case install.EventDone:
			message = cmp.Or(e.Message, message)
		}
	})
	b.report.Report, b.survey = *r, survey
	return message, err
}

// read makes the files of the image that the guest is started from.
func (b *build) read(ctx context.Context) (string, error) {
	t, err := readTree(ctx, b.image, b.dir(), b.counter("read-image", b.image.SourceSize()))
	if err != nil {
		return "", err
	}
	b.tree = t
	b.onEnd(t.close)
	b.report.Machine.Kernel = t.version
	if b.kernel, err = t.kernel().image(); err != nil {
		return "", err
	}
	b.onEnd(b.kernel.Close)
	todo, err := b.instructions()
	if err != nil {
		return "", err
	}
	if b.initrd, err = makeInitramfs(t.kernel(), todo, modulesFor(b.report.Disk.Filesystem), nil); err != nil {
		return "", b.blame(err)
	}
	b.onEnd(b.initrd.Close)
	if !b.opts.fromDirectory() {
		if b.source, err = compose(ctx, b.image); err != nil {
			return "", err
		}
		b.onEnd(b.source.close)
	}
	return fmt.Sprintf("kernel %s, a tree of %s", t.version, install.FormatBytes(t.size)), nil
}

// check compresses the output if that was asked for, and checks it. It frees the room of the
// image's tree first.
func (b *build) check(ctx context.Context) (string, error) {
	if err := b.tree.close(); err != nil {
		return "", err
	}
	if b.opts.Compress {
		if err := b.compress(ctx); err != nil {
			return "", err
		}
	}
	return b.checkOutput(ctx)
}

// finish makes the output durable and gives it its name.
func (b *build) finish(context.Context) (string, error) {
	if err := b.output.Commit(); err != nil {
		return "", err
	}
	m := &b.report.Machine
	info, err := b.output.File.Stat()
	if err != nil {
		return "", fmt.Errorf("looking at the output: %w", err)
	}
	m.FileSize = info.Size()
	if m.Allocated, err = allocated(b.output.File); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %s on disk", b.opts.Format, install.FormatBytes(m.Allocated)), nil
}

// compress replaces the output with a compressed copy.
func (b *build) compress(ctx context.Context) error {
	plain := b.output
	smaller, err := openOutput(b.opts.Output)
	if err != nil {
		return err
	}
	b.onEnd(smaller.Close)
	b.output = smaller
	h := &handles{}
	err = b.programs.image(ctx, h, "convert", "-c", "-f", string(QCOW2), "-O", string(QCOW2), h.path(plain.File), h.path(smaller.File))
	return b.explainOutput(err)
}

// explainOutput returns a [*DirFullError] if err is due to a full file system. The message of
// qemu-img does not say so reliably, so the free space decides.
func (b *build) explainOutput(err error) error {
	var st unix.Statfs_t
	const little = 64 << 10
	if err != nil && unix.Fstatfs(int(b.output.File.Fd()), &st) == nil && int64(st.Bavail)*st.Bsize < little {
		return &DirFullError{Dir: b.dir(), Err: err}
	}
	return full(err, b.dir())
}
