package finalize

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"installer/disk/block"
	"installer/disk/mounts"
	"installer/finalize/holders"
)

// sysfs is the kernel's view of its block devices; a directory of a test's in tests.
type sysfs struct{ holders.Sysfs }

// Beneath returns a sentence on the devices that a device stands on and keeps claimed, "" if it
// stands on none.
func Beneath(n mounts.DevNum) (string, error) { return sys.beneath(n) }

// beneath returns why a device is not all of its stack, in a sentence: it stands on other devices,
// which it keeps claimed. "" means that it stands on none.
func (s sysfs) beneath(n mounts.DevNum) (string, error) {
	name, err := s.Name(n)
	if err != nil {
		return "", err
	}
	top, lower, err := s.slaves(name)
	if err != nil || len(lower) == 0 {
		return "", err
	}
	layer, err := s.Layer(top)
	if err != nil {
		return "", err
	}
	var below chain
	if err := s.descend(name, &below); err != nil {
		return "", err
	}
	return fmt.Sprintf("/dev/%s (%s) stays, and has /dev/%s claimed; to take it apart: %s",
		top, layer.Noun, strings.Join(below.bottom, ", /dev/"), strings.Join(below.remedies, ", then ")), nil
}

// chain is a device with all that it stands on.
type chain struct {
	bottom   []string // the devices that stand on none
	remedies []string // of each layer, from the top down
}

// descend walks down from a device. A remedy of a layer that is reached on several ways stands where
// the longest of them has it.
func (s sysfs) descend(from string, c *chain) error {
	for level := []string{from}; len(level) > 0; {
		var next []string
		for _, name := range level {
			top, lower, err := s.slaves(name)
			if err != nil {
				return err
			}
			if err := s.leaveCacheSet(name, c); err != nil {
				return err
			}
			if len(lower) == 0 {
				c.bottom = move(c.bottom, name)
				continue
			}
			layer, err := s.Layer(top)
			if err != nil {
				return err
			}
			c.remedies = move(c.remedies, layer.Remedy)
			next = append(next, lower...)
		}
		slices.Sort(next)
		level = slices.Compact(next)
	}
	return nil
}

// leaveCacheSet adds the remedy of the bcache set that a device belongs to, if it does.
func (s sysfs) leaveCacheSet(name string, c *chain) error {
	n, err := block.ParseNumber(s.Read(name, "dev"))
	if err != nil {
		return fmt.Errorf("reading the number of %s: %w", name, err)
	}
	if set, ok := s.CacheSet(n); ok {
		c.remedies = move(c.remedies, set.Remedy)
	}
	return nil
}

// move puts a text at the end of a list.
func move(list []string, text string) []string {
	return append(slices.DeleteFunc(list, func(t string) bool { return t == text }), text)
}

// slaves returns the devices that a device stands on, and the device that does: a partition stands
// on those of its disk.
func (s sysfs) slaves(name string) (top string, lower []string, err error) {
	top = name
	if disk, ok := s.DiskOf(name); ok {
		top = disk
	}
	lower, err = holders.Stacked(filepath.Join(s.Dir(top), "slaves"))
	return top, lower, err
}

// attachment returns the file that a loop device stays attached to when its last user has gone, ""
// if it is no loop device or detaches by itself.
func (s sysfs) attachment(n mounts.DevNum) string {
	name, err := s.Name(n)
	if err != nil || s.Read(name, "loop/autoclear") != "0" {
		return ""
	}
	return s.Read(name, "loop/backing_file")
}
