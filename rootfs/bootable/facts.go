package bootable

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// Facts are the result of Look for one file.
type Facts struct {
	role    role
	Problem string // why the file is no kernel or initramfs; "" where it is one

	Kernel  string // architecture of a kernel, as Go calls it; "" is no kernel
	Version string // that the kernel calls itself, "" is not known
	EFI     bool   // firmware can start the kernel

	Initramfs   string // how it is compressed, "cpio" where it is not; "" is no initramfs
	Searched    bool   // all of it was
	PrepareRoot bool   // it holds ostree-prepare-root

	Program     string // architecture of an ELF program, or scriptProgram; "" is neither
	Interpreter string // of a program, "" is none
}

const scriptProgram = "script"

// headSize is how much of a kernel or program is read, in bytes.
const headSize = 64 << 10

// role is the purpose of a file, by its name.
type role int

const (
	programRole role = iota
	kernelRole
	initramfsRole
)

// roleOf returns the role of the file name, which may be that in a layer. A layer may have a kernel
// as a hard link to a file in /boot.
func roleOf(name string) role {
	dir, base := path.Split(path.Clean("/" + name))
	dir = path.Clean(dir)
	if dir != "/boot" && !strings.HasSuffix(path.Dir(dir), "/lib/modules") {
		return programRole
	}
	switch {
	case strings.HasPrefix(base, "vmlinuz"):
		return kernelRole
	case strings.HasPrefix(base, "initramfs"), strings.HasPrefix(base, "initrd"):
		return initramfsRole
	}
	return programRole
}

// IsKernel reports whether the file name, which may be that in a layer, is a kernel by its place.
func IsKernel(name string) bool { return roleOf(name) == kernelRole }

// Looker returns a function that looks at the regular file name of a mode, or nil where Check does
// not ask for the file.
func Looker(name string, mode uint32) func(content io.Reader) (*Facts, error) {
	if roleOf(name) == programRole && mode&0o111 == 0 {
		return nil
	}
	return func(content io.Reader) (*Facts, error) { return Look(name, content) }
}

// Look reads as much of a file's content as its name asks for. The error is that of the reader.
func Look(name string, content io.Reader) (*Facts, error) {
	r := &sourceReader{r: content}
	f := &Facts{role: roleOf(name)}
	switch f.role {
	case kernelRole:
		f.lookAtKernel(head(r, headSize))
	case initramfsRole:
		f.lookAtInitramfs(r)
	default:
		f.lookAtProgram(head(r, 4<<10))
	}
	return f, r.err
}

// sourceReader remembers an error of the source, which must not be taken for a fault of the
// content.
type sourceReader struct {
	r   io.Reader
	err error
}

func (c *sourceReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// head returns the first n bytes, or all where there are less.
func head(r io.Reader, n int) []byte {
	data := make([]byte, n)
	got, _ := io.ReadFull(r, data) // an error of the source is kept by sourceReader
	return data[:got]
}

// lookAtProgram reads the header of an ELF file (elf(5)) or the first line of a script (execve(2)).
func (f *Facts) lookAtProgram(data []byte) {
	if line, ok := bytes.CutPrefix(data, []byte("#!")); ok {
		line, _, _ = bytes.Cut(line, []byte("\n"))
		if words := strings.Fields(string(line)); len(words) > 0 {
			f.Program, f.Interpreter = scriptProgram, words[0]
		}
		return
	}
	le := binary.LittleEndian
	if len(data) < 64 || string(data[:6]) != "\x7fELF\x02\x01" {
		return
	}
	if kind := elf.Type(le.Uint16(data[16:])); kind != elf.ET_EXEC && kind != elf.ET_DYN {
		return
	}
	f.Program = machineName(elf.Machine(le.Uint16(data[18:])))
	at, size, count := le.Uint64(data[32:]), int(le.Uint16(data[54:])), int(le.Uint16(data[56:]))
	for range count {
		if size < 56 || at > uint64(len(data)) || at+uint64(size) > uint64(len(data)) {
			return
		}
		segment := data[at:]
		if elf.ProgType(le.Uint32(segment)) == elf.PT_INTERP {
			from, length := le.Uint64(segment[8:]), le.Uint64(segment[32:])
			if length > 0 && from < uint64(len(data)) && length <= uint64(len(data))-from {
				f.Interpreter = strings.TrimRight(string(data[from:from+length]), "\x00")
			}
			return
		}
		at += uint64(size)
	}
}

func machineName(m elf.Machine) string {
	switch m {
	case elf.EM_X86_64:
		return "amd64"
	case elf.EM_AARCH64:
		return "arm64"
	}
	return strings.ToLower(strings.TrimPrefix(m.String(), "EM_"))
}

// Machine types of EFI programs (Microsoft PE format), by architecture.
var peMachines = map[uint16]string{0x8664: "amd64", 0xaa64: "arm64", 0x14c: "386", 0x1c2: "arm", 0x5064: "riscv64"}

// lookAtKernel recognises a bzImage (Documentation/arch/x86/boot.rst), an arm64 image
// (Documentation/arch/arm64/booting.rst), plain or compressed by gzip, and a kernel that unpacks
// itself as an EFI program.
func (f *Facts) lookAtKernel(data []byte) {
	const arm64Magic, zbootMagic = "ARM\x64", "zimg"
	at := func(offset int, text string) bool {
		return len(data) >= offset+len(text) && string(data[offset:offset+len(text)]) == text
	}
	if at(0, "\x1f\x8b") {
		if z, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
			data = head(z, 4<<10)
			f.EFI = false
			if at(56, arm64Magic) {
				f.Kernel = "arm64"
				return
			}
		}
	}
	machine := peMachine(data)
	switch {
	case at(0x202, "HdrS") && at(0x1fe, "\x55\xaa"):
		f.Kernel, f.EFI = "amd64", machine == "amd64"
		f.Version = bzImageVersion(data)
	case at(56, arm64Magic):
		f.Kernel, f.EFI = "arm64", machine == "arm64"
	case at(0, "MZ") && at(4, zbootMagic) && machine != "":
		f.Kernel, f.EFI = machine, true
	default:
		f.Problem = fmt.Sprintf("it begins with %x", data[:min(len(data), 4)])
	}
}

// peMachine returns the architecture of an EFI program, or "".
func peMachine(data []byte) string {
	if len(data) < 0x40 || string(data[:2]) != "MZ" {
		return ""
	}
	at := int64(binary.LittleEndian.Uint32(data[0x3c:]))
	if at+6 > int64(len(data)) || string(data[at:at+4]) != "PE\x00\x00" {
		return ""
	}
	return peMachines[binary.LittleEndian.Uint16(data[at+4:])]
}

// bzImageVersion returns the first word of the version text, whose place the header names.
func bzImageVersion(data []byte) string {
	const longest = 256
	at := int(binary.LittleEndian.Uint16(data[0x20e:]))
	if at == 0 || at+0x200 >= len(data) {
		return ""
	}
	text := data[at+0x200 : min(at+0x200+longest, len(data))]
	text, _, _ = bytes.Cut(text, []byte{0})
	version, _, _ := strings.Cut(string(text), " ")
	if !versionPattern.MatchString(version) {
		return ""
	}
	return version
}

var errTooLarge = errors.New("it unpacks to more than is sensible")
