package source

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"installer/rootfs/deploy"
	"installer/rootfs/image"
)

// With a survey an installation knows what a scan of its own would have found.
func TestSurveyStandsForAScan(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int64{"etc/hosts": 10, "usr/bin/sh": 5000, "usr/bin/large": 1 << 20, "var/lib/x": 1} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644), os.Truncate(path, size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Link(filepath.Join(dir, "usr/bin/sh"), filepath.Join(dir, "usr/bin/dash")), os.Symlink("sh", filepath.Join(dir, "usr/bin/ksh"))); err != nil {
		t.Fatal(err)
	}
	img, err := image.Open(t.Context(), image.Ref{Transport: image.TransportRootfs, Name: dir}, image.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	plain := &Source{Image: img, log: noLog{}}
	want, err := plain.Scan(t.Context(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	known := &Source{Image: img, log: noLog{}, o: Options{Survey: plain.Survey(dir, want, plain.Measure(want, &Bound{}, deploy.RootSettings{}))}}
	got, err := known.Scan(t.Context(), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	wantNeed, gotNeed := plain.Measure(want, &Bound{}, deploy.RootSettings{}), known.Measure(got, &Bound{}, deploy.RootSettings{})
	if gotNeed.Exact {
		t.Error("a survey counts equal contents twice, and passes for exact")
	}
	wantNeed.Exact = false
	if got.Stored != want.Stored || got.Objects != want.Objects || gotNeed != wantNeed {
		t.Errorf("by the survey %d bytes, %d objects, %+v; by a scan %d, %d, %+v", got.Stored, got.Objects, gotNeed, want.Stored, want.Objects, wantNeed)
	}
	if got.Tree.Lookup("usr/etc/hosts") == nil {
		t.Error("the tree lacks a file")
	}
	known.o.Survey.Digest = "sha256:other"
	if _, err := known.Scan(t.Context(), nil, false); !errors.As(err, new(*image.SourceError)) {
		t.Errorf("a survey of another image was taken: %v", err)
	}
}

// noLog takes notes and progress of nobody.
type noLog struct{}

func (noLog) Note(string, ...any)   {}
func (noLog) Progress(int64, int64) {}
