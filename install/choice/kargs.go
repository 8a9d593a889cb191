package choice

import (
	"fmt"
	"slices"
	"strings"

	"installer/rootfs/deploy"
)

// kargSources are the kernel arguments of an installation by where they come from. Each entry may
// hold several arguments, as a kernel command line does.
type kargSources struct {
	root    []string // of the root file system
	config  []string // install configuration
	image   []string // kargs.d of the image
	deletes []string // karg-deletes of the configuration, then --karg-delete
	flags   []string // --karg
}

// assemble returns the command line in the order that bootc documents: the arguments of the root,
// the configuration and the image; then the deletions take effect; the arguments of the command
// line come last, and nothing deletes them. An argument that is there already, with its value, is
// not added again.
func (s kargSources) assemble() []string {
	var line []string
	for _, group := range [][]string{s.root, s.config, s.image} {
		line = addKargs(line, group)
	}
	for _, name := range s.deletes {
		for _, arg := range splitKargs(name) {
			line = deleteKarg(line, arg)
		}
	}
	return addKargs(line, s.flags)
}

// addKargs appends the arguments that line does not have.
func addKargs(line, group []string) []string {
	for _, entry := range group {
	next:
		for _, arg := range splitKargs(entry) {
			for _, old := range line {
				if sameKarg(old, arg) {
					continue next
				}
			}
			line = append(line, arg)
		}
	}
	return line
}

// deleteKarg takes out arguments: with "key=value" those that are the same, with "key" all of that
// key.
func deleteKarg(line []string, arg string) []string {
	kept := line[:0:0]
	for _, old := range line {
		if strings.Contains(arg, "=") && !sameKarg(old, arg) || kargKey(old) != kargKey(arg) {
			kept = append(kept, old)
		}
	}
	return kept
}

// sameKarg compares two arguments; the kernel takes - and _ in keys for the same.
func sameKarg(a, b string) bool {
	_, valueA, hasA := strings.Cut(a, "=")
	_, valueB, hasB := strings.Cut(b, "=")
	return kargKey(a) == kargKey(b) && hasA == hasB && valueA == valueB
}

func kargKey(arg string) string {
	key, _, _ := strings.Cut(strings.TrimPrefix(arg, `"`), "=")
	return strings.ReplaceAll(key, "-", "_")
}

// splitKargs takes a command line apart at blanks outside of double quotes.
func splitKargs(line string) []string {
	var args []string
	start, quoted := -1, false
	for i, c := range line {
		quoted = quoted != (c == '"')
		switch blank := c == ' ' && !quoted; {
		case !blank && start < 0:
			start = i
		case blank && start >= 0:
			args = append(args, line[start:i])
			start = -1
		}
	}
	if start >= 0 {
		args = append(args, line[start:])
	}
	return args
}

// checkKargs refuses arguments that no boot entry can hold.
func checkKargs(entries []string) error {
	for _, entry := range entries {
		args := splitKargs(entry)
		if len(args) == 0 {
			args = []string{entry} // CheckKarg describes the fault
		}
		for _, arg := range args {
			if err := deploy.CheckKarg(arg); err != nil {
				return err
			}
		}
	}
	return nil
}

// reservedKargs are the kernel arguments that an installation adds itself, with the remedy of who
// wants to give them.
var reservedKargs = map[string]string{
	"ostree": "it names the deployment that starts, and is added at each installation and update",
	"root":   "the root file system is named by its UUID; to-filesystem takes another name by --root-mount-spec, and --karg-delete=root makes room for your own",
}

// checkReserved refuses arguments of the user that would contradict those of the installation.
func checkReserved(kargs, deletes []string) error {
	for _, entry := range kargs {
		for _, arg := range splitKargs(entry) {
			key := kargKey(arg)
			if why, ok := reservedKargs[key]; ok && !(key == "root" && slices.Contains(deletes, "root")) {
				return fmt.Errorf("kernel argument %q: %s", arg, why)
			}
		}
	}
	for _, entry := range deletes {
		for _, arg := range splitKargs(entry) {
			if kargKey(arg) == "ostree" {
				return fmt.Errorf("kernel argument %q cannot be left out: %s", arg, reservedKargs["ostree"])
			}
		}
	}
	return nil
}

// noteReserved describes arguments of the image that contradict those of the installation.
func noteReserved(kargs []string) (notes []string) {
	for _, entry := range kargs {
		for _, arg := range splitKargs(entry) {
			switch kargKey(arg) {
			case "ostree":
				notes = append(notes, fmt.Sprintf("the image's kernel argument %q is replaced by the one of the deployment", arg))
			case "root":
				notes = append(notes, fmt.Sprintf("the image's kernel argument %q overrides the root that is installed to: the system starts only if it leads there", arg))
			}
		}
	}
	return notes
}

// maxCommandLine is the longest command line that the kernel keeps, in bytes (COMMAND_LINE_SIZE of
// x86 and arm64, without the NUL at its end). The rest is cut off.
const maxCommandLine = 2047

// addedKargs bounds the arguments that a boot loader and the deployment add, in bytes: BOOT_IMAGE=
// of GRUB, and ostree=.
func addedKargs(stateroot string) int {
	const checksum, version = 64, 64
	return len("BOOT_IMAGE=(hd99,gpt999)/boot/ostree/-/vmlinuz- ostree=/ostree/boot.1///0 ") + 2*(len(stateroot)+checksum) + version
}

// checkLength refuses a command line that the kernel would cut off, where ostree= stands.
func checkLength(line []string, stateroot string) error {
	if n, most := len(strings.Join(line, " ")), maxCommandLine-addedKargs(stateroot); n > most {
		return fmt.Errorf("the kernel arguments have %d bytes, and the kernel keeps %d beside those that the boot loader and the deployment add: leave some out", n, most)
	}
	return nil
}
