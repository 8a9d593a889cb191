package holders

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// descriptors looks at the open files of a file table, through fdinfo alone:
// the files themselves are not touched.
func (w *walker) descriptors(t task) {
	err := eachNumber(t.dir, "fdinfo", w.fds, func(fd int) { w.descriptor(t, fd) })
	if err != nil {
		w.note(t, "fdinfo", err)
	}
}

func (w *walker) descriptor(t task, fd int) {
	text, err := w.file.read(t.dir, "fdinfo/"+strconv.Itoa(fd))
	if err != nil {
		w.note(t, "fdinfo", err)
		return
	}
	info, err := parseFDInfo(text)
	if err != nil {
		w.note(t, "fdinfo", err)
		return
	}
	switch {
	case w.held[info.mount]:
		w.openFile(t, fd, info, FD)
	case info.mount == w.nsfs:
		w.namespaceFile(t, fd)
	case w.unknown(info.mount) && w.isDetached(t, fd, info.mount):
		w.openFile(t, fd, info, DetachedMount)
	}
}

// isDetached says whether a mount that is in no namespace is of the target. Most
// are the kernel's own, of pipes and sockets; each is asked about once.
func (w *walker) isDetached(t task, fd, mount int) bool {
	ours, asked := w.detached[mount]
	if asked {
		return ours
	}
	where, err := whereIs(t.dir, "fd/"+strconv.Itoa(fd))
	if err != nil {
		w.note(t, "fd", err)
		return false
	}
	if where.mount == mount {
		w.detached[mount] = w.target.isStat(where.dev)
	}
	return w.detached[mount]
}

func (w *walker) openFile(t task, fd int, info fdInfo, class Class) {
	link, err := readLink(t.dir, "fd/"+strconv.Itoa(fd))
	if err != nil {
		w.note(t, "fd", err)
		return
	}
	h := Holder{Class: class, Path: link, Remedy: "close this file descriptor, or end the process",
		Evidence: fmt.Sprintf("%s/fd/%d -> %s (mnt_id %d, flags %s)", t.path, fd, link, info.mount, info.flags)}
	if class == DetachedMount {
		h.Remedy = "close this file descriptor: it keeps a mount that is attached nowhere"
	}
	w.hit(t, h)
}

// fdInfo is what every fdinfo file says; see proc_pid_fdinfo(5).
type fdInfo struct {
	mount int
	flags string // octal, as in open(2)
}

// parseFDInfo reads the text of an fdinfo file.
func parseFDInfo(text []byte) (fdInfo, error) {
	var info fdInfo
	found := false
	for line := range bytes.Lines(text) {
		key, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimSpace(value)
		switch string(key) {
		case "flags":
			info.flags = string(value)
		case "mnt_id":
			info.mount, found = decimal(value)
		}
		if found {
			break // it comes last of the common fields
		}
	}
	if !found {
		return fdInfo{}, fmt.Errorf("reading fdinfo: no mnt_id in %q (Linux 3.15 needed)", strings.TrimSpace(string(text)))
	}
	return info, nil
}
