package mounts

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"installer/disk/block"

	"github.com/moby/sys/mountinfo"
)

// DevNum is a device number as mountinfo shows it.
type DevNum = block.Number

// Mount is one mount of one namespace, with the fields of mountinfo; see proc_pid_mountinfo(5).
type Mount struct {
	ID            int    `json:"id"`                  // as in mountinfo and fdinfo; reused after an unmount
	Unique        uint64 `json:"unique_id,omitempty"` // never reused; 0 where the kernel has none
	Parent        int    `json:"parent"`
	Dev           DevNum `json:"device"`
	Root          string `json:"root"`
	Point         string `json:"mount_point"`
	Options       string `json:"options"`          // of this mount
	Shared        uint64 `json:"shared,omitempty"` // peer group, 0 when private
	Master        uint64 `json:"master,omitempty"` // peer group that events come from, 0 when none
	PropagateFrom uint64 `json:"propagate_from,omitempty"`
	Unbindable    bool   `json:"unbindable,omitempty"`
	FSType        string `json:"fs_type"`
	Source        string `json:"source"`
	SuperOptions  string `json:"super_options"` // of the superblock
}

// Line writes the mount as a line of mountinfo, to serve as evidence.
func (m Mount) Line() string {
	return fmt.Sprintf("%d %d %s %s %s %s%s - %s %s %s", m.ID, m.Parent, m.Dev,
		escape(m.Root), escape(m.Point), m.Options, m.optional(), m.FSType, escape(m.Source), m.SuperOptions)
}

func (m Mount) optional() string {
	var s string
	for _, f := range []struct {
		tag   string
		group uint64
	}{{"shared", m.Shared}, {"master", m.Master}, {"propagate_from", m.PropagateFrom}} {
		if f.group != 0 {
			s += fmt.Sprintf(" %s:%d", f.tag, f.group)
		}
	}
	if m.Unbindable {
		s += " unbindable"
	}
	return s
}

// ReadOnlySuper reports whether the superblock, not just this mount of it, is read-only.
func (m Mount) ReadOnlySuper() bool { return hasOption(m.SuperOptions, "ro") }

func hasOption(options, name string) bool {
	return slices.Contains(strings.Split(options, ","), name)
}

func escape(s string) string {
	return strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(s)
}

// Parse reads a mountinfo text.
func Parse(r io.Reader) ([]Mount, error) {
	infos, err := mountinfo.GetMountsFromReader(r, nil)
	if err != nil {
		return nil, fmt.Errorf("reading mountinfo: %w", err)
	}
	list := make([]Mount, 0, len(infos))
	for _, i := range infos {
		m, err := convert(i)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

func convert(i *mountinfo.Info) (Mount, error) {
	if i.ID <= 0 || i.Parent < 0 || !fitsUint32(i.Major) || !fitsUint32(i.Minor) {
		return Mount{}, fmt.Errorf("reading mountinfo: impossible numbers in the line of %q", i.Mountpoint)
	}
	m := Mount{
		ID: i.ID, Parent: i.Parent, Dev: DevNum{Major: uint32(i.Major), Minor: uint32(i.Minor)},
		Root: i.Root, Point: i.Mountpoint, Options: i.Options,
		FSType: i.FSType, Source: i.Source, SuperOptions: i.VFSOptions,
	}
	return m, m.setOptional(i.Optional)
}

func fitsUint32(n int) bool { return n >= 0 && int64(n) <= 1<<32-1 }

func (m *Mount) setOptional(fields string) error {
	groups := map[string]*uint64{"shared": &m.Shared, "master": &m.Master, "propagate_from": &m.PropagateFrom}
	for _, field := range strings.Fields(fields) {
		tag, value, _ := strings.Cut(field, ":")
		if tag == "unbindable" {
			m.Unbindable = true
		}
		group, known := groups[tag]
		if !known {
			continue // the kernel may add tags; proc_pid_mountinfo(5) says to ignore them
		}
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return fmt.Errorf("reading mountinfo: peer group %q: %w", field, err)
		}
		*group = n
	}
	return nil
}
