package payload

import (
	"fmt"
	"path"
	"strings"
)

// Distributions, as messages name them.
const (
	debian = "Debian"
	fedora = "Fedora, CentOS"
)

// shim is the name of the first link of a chain.
const shim = "shim"

// machine holds the values that differ between processor architectures.
type machine struct {
	suffix     string // in names of programs
	pe         uint16 // machine type of an image, Microsoft PE format
	arch       string // in names of Debian's packages
	targetGRUB string // GRUB's name of the platform
}

func machineOf(arch string) (machine, error) {
	switch arch {
	case "amd64":
		return machine{"x64", 0x8664, "amd64", "x86_64-efi"}, nil
	case "arm64":
		return machine{"aa64", 0xaa64, "arm64", "arm64-efi"}, nil
	}
	return machine{}, fmt.Errorf("no signed boot loader is known for architecture %q", arch)
}

func (m machine) removable() string { return "BOOT" + strings.ToUpper(m.suffix) + ".EFI" }
func (m machine) csv() string       { return "BOOT" + strings.ToUpper(m.suffix) + ".CSV" }
func (m machine) shim() string      { return "shim" + m.suffix + ".efi" }
func (m machine) grub() string      { return "grub" + m.suffix + ".efi" }
func (m machine) manager() string   { return "mm" + m.suffix + ".efi" }
func (m machine) fallback() string  { return "fb" + m.suffix + ".efi" }

// role returns the link of a chain that a file of the partition is.
func (m machine) role(name string, loader Loader) (string, bool) {
	for _, link := range []struct{ file, name string }{
		{m.removable(), shim}, {m.shim(), shim}, {m.grub(), string(loader)}, {m.manager(), "MokManager"}, {m.fallback(), "fallback"},
	} {
		if strings.EqualFold(name, link.file) {
			return link.name, true
		}
	}
	return "", false
}

// bring returns the packages with a file of a boot loader, by distribution.
func (m machine) bring(file string, loader Loader) map[string][]string {
	switch {
	case strings.EqualFold(path.Base(file), m.csv()):
		return map[string][]string{debian: {"shim-unsigned"}, fedora: {"shim-" + m.suffix}}
	case loader == SystemdBoot && strings.EqualFold(file, m.grub()):
		return map[string][]string{debian: {"systemd-boot-efi-" + m.arch + "-signed"}}
	case strings.EqualFold(file, m.grub()):
		return map[string][]string{debian: {"grub-efi-" + m.arch + "-signed"}, fedora: {"grub2-efi-" + m.suffix}}
	case strings.EqualFold(file, m.manager()), strings.EqualFold(file, m.fallback()):
		return map[string][]string{debian: {"shim-helpers-" + m.arch + "-signed"}, fedora: {"shim-" + m.suffix}}
	}
	return map[string][]string{debian: {"shim-signed"}, fedora: {"shim-" + m.suffix}}
}

// wanted returns all packages of a signed loader, by distribution.
func (m machine) wanted(loader Loader) map[string][]string {
	all := map[string][]string{}
	for _, file := range []string{m.shim(), m.manager(), m.grub()} {
		for distribution, names := range m.bring(file, loader) {
			if names[0] != "" && (len(all[distribution]) == 0 || all[distribution][0] != names[0]) {
				all[distribution] = append(all[distribution], names...)
			}
		}
	}
	if loader == SystemdBoot {
		delete(all, fedora) // which signs none
	}
	return all
}
