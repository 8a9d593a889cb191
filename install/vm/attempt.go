package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"installer/install"
	"installer/install/vm/kmod"
	"installer/rootfs/image"
)

// install runs the machine in which to-disk installs the image.
func (b *build) install(ctx context.Context) (string, error) {
	if err := b.makeDisk(ctx); err != nil {
		return "", err
	}
	j := b.job()
	w, err := j.run(ctx)
	b.report.Machine.Attempts = j.attempts
	if w != nil {
		b.report.Machine.Phases = w.times
	}
	if b.guest != nil {
		b.adopt(b.guest)
	}
	if err != nil {
		return "", b.explain(err)
	}
	return "", b.judge(w)
}

// job describes the installation in the guest.
func (b *build) job() *job {
	return &job{
		programs: b.programs, accel: b.opts.Accel, kvm: b.kvm, limits: b.limits, hardware: b.hardware,
		names: deviceNames{target: b.opts.Output, source: b.opts.Install.Source.String()},
		note:  b.note, line: b.guestSays,
		begin: func(accel Accel) { b.report.Machine.Accel, b.guest = accel, nil },
		started: func(accel Accel) {
			b.done(fmt.Sprintf("%s, %d processors, %s of memory", accel, cpus(), install.FormatBytes(b.opts.Memory)), nil)
		},
	}
}

// guestSays takes a line of the installer's own output: an event or its report.
func (b *build) guestSays(line []byte) error {
	var last struct {
		Kind   string          `json:"event"`
		Report *install.Report `json:"report"`
	}
	// Every line that is no report goes to parseEvent, which judges its form.
	if err := json.Unmarshal(line, &last); err == nil && last.Kind == "report" {
		if b.guest != nil || last.Report == nil {
			return errors.New("the guest sent a second report, or an empty one")
		}
		b.guest = last.Report
		return nil
	}
	e, err := parseEvent(line)
	if err != nil {
		return err
	}
	if e.Kind != install.EventNote || !b.noted[e.Message] {
		b.emit(e) // with the host's time: the guest's clock is its own
	}
	return nil
}

// makeDisk makes the output an empty disk.
func (b *build) makeDisk(ctx context.Context) error {
	if b.opts.Format == Raw {
		if err := b.output.File.Truncate(b.opts.DiskSize); err != nil {
			return fmt.Errorf("making a disk of %s: %w", install.FormatBytes(b.opts.DiskSize), err)
		}
		return nil
	}
	h := &handles{}
	err := b.programs.image(ctx, h, "create", "-q", "-f", string(QCOW2), h.path(b.output.File), fmt.Sprint(b.opts.DiskSize))
	return b.explainOutput(err)
}

// hardware lists the parts of a machine. done closes those that belong to one machine only.
func (b *build) hardware(accel Accel) (hw hardware, inherited []*os.File, done func(), err error) {
	hw = hardware{
		accel: accel, memory: b.opts.Memory, kernel: b.kernel, initramfs: b.initrd,
		tree: b.tree.file, target: b.output.File, format: b.opts.Format,
	}
	if b.source == nil {
		return hw, nil, func() {}, nil
	}
	if hw.source, err = memory("source.vmdk"); err != nil {
		return hw, nil, nil, err
	}
	h := &handles{}
	if _, err := hw.source.Write(b.source.descriptor(h.path)); err != nil {
		hw.source.Close()
		return hw, nil, nil, fmt.Errorf("describing the source to QEMU: %w", err)
	}
	return hw, h.files, func() { hw.source.Close() }, nil
}

// judge decides how the installation in the guest ended. The statements of the guest count only
// where the host cannot know better.
func (b *build) judge(w *watcher) error {
	switch exit := w.exit; {
	case exit.Status == 0:
		if err := checkSuccess(b.guest, b.image.ManifestDigest, b.report.Plan.Stateroot); err != nil {
			return w.failed(err)
		}
		return nil
	case exit.Status < 0:
		return w.failed(errors.New(exit.Error))
	}
	message := w.exit.Error
	if b.guest != nil && b.guest.Error != "" {
		message = b.guest.Error
	}
	return w.guestError(message)
}

// plainError returns the message of the installer, without its other error output.
func plainError(text string) string {
	if at := strings.LastIndex(text, "installer: error: "); at >= 0 {
		text = text[at+len("installer: error: "):]
	}
	return strings.TrimSpace(text)
}

// explain adds the knowledge of the host to an error of the machine.
func (b *build) explain(err error) error {
	if full := (*DirFullError)(nil); errors.As(err, &full) {
		full.Dir = b.dir()
	}
	if errors.Is(err, errKernel) {
		return b.blame(err)
	}
	return err
}

// blame returns an error of the source, if the image is the cause of err.
func (b *build) blame(err error) error {
	missing := (*kmod.MissingError)(nil)
	if errors.As(err, &missing) || errors.Is(err, errKernel) || errors.Is(err, fs.ErrNotExist) {
		return &image.SourceError{Ref: b.opts.Install.Source.String(), Err: err}
	}
	return err
}
