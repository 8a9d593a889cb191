package main

import (
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func TestReadVersion(t *testing.T) {
	setting := func(key, value string) debug.BuildSetting { return debug.BuildSetting{Key: key, Value: value} }
	full := &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{
		setting("vcs.revision", "0123456789abcdef0123"), setting("vcs.time", "2026-11-21T12:00:00Z"), setting("vcs.modified", "true")}}
	for want, info := range map[string]*debug.BuildInfo{
		"installer v1.2.3 (commit 0123456789ab of 2026-11-21T12:00:00Z, changed since), go": full,
		"installer unknown, go": {Main: debug.Module{Version: "(devel)"}},
	} {
		if got := readVersion(info).String(); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := readVersion(nil); got.Version != "unknown" || got.Go == "" || got.Arch == "" {
		t.Errorf("%+v", got)
	}
}

func TestManDate(t *testing.T) {
	now := time.Date(2026, 11, 21, 23, 0, 0, 0, time.UTC)
	for epoch, want := range map[string]string{"": "2026-11-21", "0": "1970-01-01", "x": ""} {
		if got, err := manDate(epoch, now); got != want || (want == "") != (err != nil) {
			t.Errorf("%q: %q, %v", epoch, got, err)
		}
	}
}
