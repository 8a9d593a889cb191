package target

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/disk/mounts"
)

// The label of a directory decides: the kernel returns one only while it labels files.
func TestContextOption(t *testing.T) {
	for name, c := range map[string]struct {
		label string
		err   error
		want  []string
		fails bool
	}{
		"no SELinux, or no policy":      {err: unix.ENODATA},
		"no extended attributes at all": {err: unix.EOPNOTSUPP},
		"a policy is loaded":            {label: "system_u:object_r:tmpfs_t:s0\x00", want: []string{"context=system_u:object_r:tmpfs_t:s0"}},
		"categories":                    {label: "u:r:t:s0:c1,c2", want: []string{"context=u:r:t:s0:c1,c2"}},
		"refused":                       {err: unix.EACCES, fails: true},
		"empty":                         {label: "\x00", fails: true},
	} {
		got, err := contextOption(c.label, c.err)
		if (err != nil) != c.fails || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}

// The lines are of a kernel with SELinux, without it, and of a mount with context=.
func TestCheckMount(t *testing.T) {
	const unmount, noContext = "-o context=", "without that option"
	for options, c := range map[string]struct{ unlabelled, labelled string }{
		"rw,seclabel,attr2,inode64,logbufs=8,noquota":     {unmount, ""},
		"rw,attr2,inode64,noquota":                        {"", ""},
		"rw,context=system_u:object_r:tmpfs_t:s0,attr2":   {"", noContext},
		`rw,context="system_u:object_r:tmpfs_t:s0:c1,c2"`: {"", noContext},
		"rw,seclabel": {unmount, ""},
		"rw,rootcontext=system_u:object_r:x_t:s0,seclabel":  {unmount, ""},
		"rw,fscontext=system_u:object_r:fs_t:s0,noseclabel": {"", ""},
	} {
		for labelled, advice := range map[bool]string{false: c.unlabelled, true: c.labelled} {
			err := CheckMount(mounts.Mount{Point: t.TempDir(), SuperOptions: options}, labelled)
			if errors.As(err, new(*disk.RefusedError)) != (advice != "") {
				t.Errorf("%s, labelled: %v: %v", options, labelled, err)
			}
			if err != nil && (!strings.Contains(err.Error(), "SELinux") || !strings.Contains(err.Error(), advice)) {
				t.Errorf("%s, labelled: %v: the advice is missing: %v", options, labelled, err)
			}
		}
	}
}

// A kernel without SELinux stores any label; one that is too long is refused, with the advice.
func TestCheckLabels(t *testing.T) {
	if err := CheckLabels([]string{"a:b:c:s0", "unknown_u:object_r:unknown_t:s0"}); err != nil {
		t.Error(err)
	}
	var refused *LabelError
	if err := CheckLabels([]string{strings.Repeat("x", 1<<17)}); !errors.As(err, &refused) || !strings.Contains(refused.Advice(), "install_t") {
		t.Errorf("an impossible label: %v", err)
	}
	if _, err := LabelsFiles(); err != nil {
		t.Error(err)
	}
}
