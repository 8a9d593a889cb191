// Package sample makes the smallest files that a bootable image must have, for tests: they have the
// form of a kernel, an initramfs and programs, and cannot run.
package sample

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path"
)

// Init is the path of the first program, which must be executable.
const Init = "usr/lib/systemd/systemd"

// Files returns a kernel of a version, its initramfs and the first program for an architecture
// ("amd64" or "arm64"), by their paths. More goes into the initramfs, which is not compressed.
func Files(arch, version string, more []byte) map[string][]byte {
	dir := path.Join("usr/lib/modules", version)
	return map[string][]byte{
		path.Join(dir, "vmlinuz"):       Kernel(arch, version),
		path.Join(dir, "initramfs.img"): Initramfs(more),
		path.Join(dir, "modules.dep"):   []byte("\n"),
		Init:                            Program(arch),
		"usr/bin/bootc":                 Program(arch),
		"usr/bin/sh":                    Program(arch),
	}
}

// Executable reports whether Files has name as a program.
func Executable(name string) bool {
	return name == Init || path.Dir(name) == "usr/bin"
}

// Kernel returns a kernel without code, which firmware could start too.
func Kernel(arch, version string) []byte {
	image := make([]byte, 4<<10)
	copy(image, "MZ")
	binary.LittleEndian.PutUint32(image[0x3c:], 0x40)
	if arch == "arm64" {
		copy(image[56:], "ARM\x64")
		copy(image[0x40:], "PE\x00\x00\x64\xaa")
		return image
	}
	copy(image[0x40:], "PE\x00\x00\x64\x86")
	copy(image[0x1fe:], "\x55\xaa")
	copy(image[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(image[0x20e:], 0x200)
	copy(image[0x400:], version+" (nobody@nowhere) #1 SMP\x00")
	return image
}

// Initramfs returns an archive with the program of ostree that makes a deployment the root, and a
// file with more.
func Initramfs(more []byte) []byte {
	var b bytes.Buffer
	add := func(name string, data []byte) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			0, 0o100755, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		pad(&b)
		b.Write(data)
		pad(&b)
	}
	add("usr/lib/ostree/ostree-prepare-root", Program("amd64"))
	if len(more) > 0 {
		add("more", more)
	}
	add("TRAILER!!!", nil)
	return b.Bytes()
}

func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}

// Program returns the header of a static ELF program.
func Program(arch string) []byte {
	machine := map[string]uint16{"amd64": 62, "arm64": 183}[arch]
	header := make([]byte, 64)
	copy(header, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(header[16:], 2) // ET_EXEC
	le.PutUint16(header[18:], machine)
	le.PutUint32(header[20:], 1)    // version
	le.PutUint16(header[52:], 64)   // of this header
	le.PutUint16(header[54:], 0x38) // of a program header, of which there is none
	return header
}
