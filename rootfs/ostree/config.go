package ostree

import (
	"bytes"
	"fmt"
	"strings"

	"installer/rootfs/keyfile"
)

// Config holds the settings of a repository's configuration file that matter to a bare repository
// on a bootable system.
type Config struct {
	Bootloader string // sysroot.bootloader: "none" leaves boot entries to the boot loader; empty omits the key
	BootPrefix bool   // sysroot.bootprefix: paths in boot entries start with /boot
	ReadOnly   bool   // sysroot.readonly: mount /sysroot read-only at boot
	Verity     bool   // ex-integrity.fsverity: every object has fs-verity
}

// maxConfigSize bounds the size of a configuration file, in bytes.
const maxConfigSize = 1 << 20

// encode renders the key file.
func (c Config) encode() ([]byte, error) {
	if strings.ContainsAny(c.Bootloader, "\n\r\\ \t") {
		return nil, fmt.Errorf("writing the repository configuration: bootloader %q is not a single word", c.Bootloader)
	}
	var b bytes.Buffer
	b.WriteString("[core]\nrepo_version=1\nmode=bare\n\n[sysroot]\n")
	if c.Bootloader != "" {
		fmt.Fprintf(&b, "bootloader=%s\n", c.Bootloader)
	}
	fmt.Fprintf(&b, "bootprefix=%t\nreadonly=%t\n", c.BootPrefix, c.ReadOnly)
	if c.Verity {
		b.WriteString("\n[ex-integrity]\nfsverity=true\n")
	}
	return b.Bytes(), nil
}

// parseConfig reads a key file and refuses repositories that this package would write wrongly.
func parseConfig(data []byte) (Config, error) {
	keys, err := keyfile.Parse(string(data))
	if err != nil {
		return Config{}, err
	}
	if v := keys["core.repo_version"]; v != "1" {
		return Config{}, fmt.Errorf("repository version %q is not supported, only 1", v)
	}
	if v, ok := keys["core.mode"]; ok && v != "bare" {
		return Config{}, fmt.Errorf("repository mode %q is not supported, only bare", v)
	}
	const noXattrs = "core.disable-xattrs"
	if on, err := parseBool(keys[noXattrs]); on || err != nil {
		return Config{}, fmt.Errorf("repository setting %s=%s is not supported", noXattrs, keys[noXattrs])
	}
	if v := keys["core.parent"]; v != "" {
		return Config{}, fmt.Errorf("repository has the parent repository %q, which is not supported", v)
	}
	c := Config{Bootloader: keys["sysroot.bootloader"]}
	for key, to := range map[string]*bool{
		"sysroot.bootprefix": &c.BootPrefix, "sysroot.readonly": &c.ReadOnly, "ex-integrity.fsverity": &c.Verity,
	} {
		if *to, err = parseBool(keys[key]); err != nil {
			return Config{}, fmt.Errorf("reading %s: %w", key, err)
		}
	}
	return c, nil
}

// parseBool reads a key file's boolean; "maybe" asks for nothing.
func parseBool(v string) (bool, error) {
	switch v {
	case "true", "1", "yes":
		return true, nil
	case "false", "0", "no", "maybe", "":
		return false, nil
	}
	return false, fmt.Errorf("value %q is not a boolean", v)
}
