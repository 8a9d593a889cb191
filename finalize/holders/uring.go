package holders

import (
	"fmt"
	"strings"

	"installer/disk/block"
)

// ring looks at the files that are registered in an io_uring: they need no file descriptor, and
// only their paths are shown.
func (w *walker) ring(t task, fd int, info fdInfo) {
	for _, path := range ringFiles(info.extra) {
		if w.scan.pathOnTarget(path) {
			w.record.hit(t, Holder{Class: IOUring, Path: path,
				Evidence: fmt.Sprintf("%s/fdinfo/%d: UserFiles: %s", t.path(), fd, path),
				Remedy:   "unregister the files of this ring first (IORING_UNREGISTER_FILES): when the process merely ends, the kernel lets go some time later"})
		}
	}
}

// ringFiles returns the paths between "UserFiles:" and the next heading; lines of files read " 0:
// /path".
func ringFiles(text string) []string {
	_, list, ok := strings.Cut(text, "UserFiles:")
	if !ok {
		return nil
	}
	_, list, _ = strings.Cut(list, "\n")
	var paths []string
	for line := range strings.Lines(list) {
		index, path, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if _, number := decimal([]byte(strings.TrimSpace(index))); !ok || !number {
			break
		}
		paths = append(paths, block.Unescape(path))
	}
	return paths
}
