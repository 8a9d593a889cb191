package target

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"installer/disk"
	"installer/finalize/mounts"
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
func TestCheckUnlabelled(t *testing.T) {
	for options, refused := range map[string]bool{
		"rw,seclabel,attr2,inode64,logbufs=8,noquota":     true,
		"rw,attr2,inode64,noquota":                        false,
		"rw,context=system_u:object_r:tmpfs_t:s0,attr2":   false,
		`rw,context="system_u:object_r:tmpfs_t:s0:c1,c2"`: false,
		"rw,seclabel": true,
		"rw,rootcontext=system_u:object_r:x_t:s0,seclabel":  true,
		"rw,fscontext=system_u:object_r:fs_t:s0,noseclabel": false,
	} {
		err := CheckUnlabelled(mounts.Mount{Point: t.TempDir(), SuperOptions: options})
		if errors.As(err, new(*disk.RefusedError)) != refused {
			t.Errorf("%s: %v", options, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "SELinux") || !strings.Contains(err.Error(), "-o context=")) {
			t.Errorf("%s: the advice is missing: %v", options, err)
		}
	}
}
