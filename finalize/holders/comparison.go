package holders

import "installer/disk/mounts"

// comparison compares the things of a process with the target, for one worker.
type comparison struct {
	scan *scan
	file *procFile
	// subvolumes are the numbers that stat(2) returns for files on unknown mounts, as far as they
	// were asked about: whether each is of a btrfs of the target.
	subvolumes map[mounts.DevNum]bool
	mapLine    [][]byte // the text by which a line of maps is of the target, " 07:00 "
}

func newComparison(s *scan, file *procFile) comparison {
	c := comparison{scan: s, file: file, subvolumes: map[mounts.DevNum]bool{}}
	for _, d := range s.target.Devices {
		c.mapLine = append(c.mapLine, mapPattern(d))
	}
	return c
}

// location is the mount and device that a link of /proc leads to.
type location struct {
	mount int
	dev   mounts.DevNum
}

// has reports whether the object at a location is on the target. link returns a link of /proc that
// leads to the object.
func (c *comparison) has(where location, link func() string) bool {
	return c.scan.held[where.mount] || c.detached(where, link)
}

// detached reports whether the object is on a mount of the target that is in no namespace.
func (c *comparison) detached(where location, link func() string) bool {
	return c.unknown(where.mount) && (c.scan.target.isStat(where.dev) || c.ofBtrfs(where.dev, link))
}

func (c *comparison) unknown(mount int) bool {
	_, known := c.scan.known[mount]
	return !known
}

// remoteLink reports whether a link shows a path on a network file system, which is no target and
// must not be followed. It costs nothing where there is none.
func (c *comparison) remoteLink(t task, name string) bool {
	if len(c.scan.remote) == 0 {
		return false
	}
	link, err := readLink(t.dir, name)
	if err != nil {
		return false // following it will say why
	}
	for _, points := range c.scan.remote {
		for _, point := range points {
			if mounts.Inside(link, point) {
				return true
			}
		}
	}
	return false
}
