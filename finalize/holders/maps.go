package holders

import (
	"bytes"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"installer/disk/mounts"
)

// maps looks at the mapped files. They are matched by the device that the kernel shows, which is
// mountinfo's also on btrfs; a mapping needs no open descriptor.
func (w *walker) maps(t task) {
	fd, err := unix.Openat(t.dir, "maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		w.record.note(t, "maps", err)
		return
	}
	defer unix.Close(fd)
	if mapped, asked := w.target.anyMapped(fd); asked && !mapped && !w.scan.hidden {
		return
	}
	w.file.grow()
	text, err := w.file.rest(fd, 0)
	if err != nil {
		w.record.note(t, "maps", err)
		return
	}
	var lines []mapping
	for i, pattern := range w.target.mapLine {
		lines = append(lines, matchingMaps(text, pattern, w.scan.target.Devices[i])...)
	}
	if w.scan.hidden {
		lines = append(lines, w.target.hiddenMaps(t, text)...)
	}
	for _, m := range mergeMaps(lines) { // copied: reading comm reuses the buffer
		w.record.hit(t, Holder{Class: Map, Path: m.path, Remedy: "unmap the file (munmap), or end the process",
			Evidence: fmt.Sprintf("%s/maps: %s", t.path(), m.line)})
	}
}

// The ioctl PROCMAP_QUERY of linux/fs.h, Linux 6.11: the next mapping, without the text of its
// path, which is most of the work of reading maps.
const (
	procmapQuery      = 0xC0686611
	procmapNext       = 0x10 // PROCMAP_QUERY_COVERING_OR_NEXT_VMA
	procmapFileBacked = 0x20 // PROCMAP_QUERY_FILE_BACKED_VMA
)

// procmap is struct procmap_query.
type procmap struct {
	size, flags, address       uint64
	start, end                 uint64
	vmaFlags, pageSize, offset uint64
	inode                      uint64
	major, minor               uint32
	nameSize, buildIDSize      uint32
	name, buildID              uint64
}

// anyMapped reports whether a file of the target is mapped; asked is false where the kernel cannot
// be asked so. The device is that of the maps file.
func (c *comparison) anyMapped(fd int) (mapped, asked bool) {
	q := procmap{size: uint64(unsafe.Sizeof(procmap{})), flags: procmapNext | procmapFileBacked}
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), procmapQuery, uintptr(unsafe.Pointer(&q)))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return false, errno == unix.ENOENT || errno == unix.ESRCH // the end, or of the process
		}
		if c.scan.target.onDevice(mounts.DevNum{Major: q.major, Minor: q.minor}) {
			return true, true
		}
		q.address = q.end
	}
}

// hiddenMaps returns the lines of a btrfs of the target that is mounted nowhere, so that the number
// of its superblock is not known. The mapped file is asked through map_files, see
// proc_pid_map_files(5).
func (c *comparison) hiddenMaps(t task, text []byte) []mapping {
	var found []mapping
	for line := range bytes.Lines(text) {
		m, err := parseMapping(strings.TrimSuffix(string(line), "\n"))
		if err != nil || m.dev.Major != 0 || m.inode == "0" || c.scan.superblocks[m.dev] {
			continue
		}
		address, _, _ := strings.Cut(m.line, " ")
		if c.ofBtrfs(m.dev, func() string { return fmt.Sprintf("/proc/%d/map_files/%s", t.tid, address) }) {
			found = append(found, m)
		}
	}
	return found
}

// mapPattern is how a line of maps shows a device.
func mapPattern(d mounts.DevNum) []byte { return fmt.Appendf(nil, " %02x:%02x ", d.Major, d.Minor) }

// mapping is a line of maps.
type mapping struct {
	line  string
	dev   mounts.DevNum
	inode string
	path  string // with " (deleted)" and escapes as the kernel writes them
}

// matchingMaps returns the lines that are of a device. It searches for the device's text first,
// which skips most processes at the speed of a memory search.
func matchingMaps(text, pattern []byte, dev mounts.DevNum) []mapping {
	var found []mapping
	for {
		at := bytes.Index(text, pattern)
		if at < 0 {
			return found
		}
		start := bytes.LastIndexByte(text[:at], '\n') + 1
		end := len(text)
		if n := bytes.IndexByte(text[at:], '\n'); n >= 0 {
			end = at + n
		}
		if m, err := parseMapping(string(text[start:end])); err == nil && m.dev == dev {
			found = append(found, m)
		}
		text = text[end:]
	}
}

// parseMapping reads one line of maps: address, permissions, offset, device in hexadecimal, inode,
// path. The path is the rest of the line, blanks included.
func parseMapping(line string) (mapping, error) {
	rest := line
	var fields [5]string
	for i := range fields {
		rest = strings.TrimLeft(rest, " ")
		fields[i], rest, _ = strings.Cut(rest, " ")
		if fields[i] == "" {
			return mapping{}, fmt.Errorf("reading maps: too few fields in %q", line)
		}
	}
	var d mounts.DevNum
	if n, err := fmt.Sscanf(fields[3], "%x:%x", &d.Major, &d.Minor); n != 2 || err != nil {
		return mapping{}, fmt.Errorf("reading maps: device %q in %q", fields[3], line)
	}
	return mapping{line: line, dev: d, inode: fields[4], path: strings.TrimLeft(rest, " ")}, nil
}

// mergeMaps keeps the first mapping of each file: a program has several.
func mergeMaps(list []mapping) []mapping {
	type file struct{ inode, path string }
	seen := map[file]bool{}
	var merged []mapping
	for _, m := range list {
		if f := (file{m.inode, m.path}); !seen[f] {
			seen[f] = true
			merged = append(merged, m)
		}
	}
	return merged
}
