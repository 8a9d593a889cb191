package bootloader

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"

	"installer/rootfs/bootloader/efi"
)

// signedConfigText is the configuration of a signed GRUB that cannot read boot entries by itself.
//
//go:embed grubsigned.cfg.in
var signedConfigText string

// blsConfigText is the configuration of a signed GRUB with a command that reads boot entries.
//
//go:embed grubbls.cfg.in
var blsConfigText string

// EntryReader is the way in which a signed GRUB reads boot entries.
type EntryReader string

// The ways, the best first.
const (
	ReadsByBLSCFG EntryReader = "blscfg"                    // Fedora's command
	ReadsByBLSUKI EntryReader = "blscfg --path \"$blsdir\"" // GRUB's own command, since 2.14
	ReadsByScript EntryReader = "script"
)

// EntryReaderOf returns the way of a signed GRUB.
func EntryReaderOf(grub *efi.GRUB) EntryReader {
	switch {
	case grub.Has("blscfg"):
		return ReadsByBLSCFG
	case grub.Has("blsuki"):
		return ReadsByBLSUKI
	}
	return ReadsByScript
}

// CheckSignedGRUB checks that a signed GRUB has the modules that its configuration needs, since it
// can load no others; the error is a [*ModuleError].
func CheckSignedGRUB(grub *efi.GRUB, arch, filesystem string) error {
	p, err := platformOf(arch)
	if err != nil {
		return err
	}
	want := []string{"normal", "configfile", "linux", "test", "true", "echo", "sleep", "search", "search_fs_uuid", "regexp", "part_gpt", "fat"}
	if EntryReaderOf(grub) == ReadsByScript {
		want = append(want, "gettext")
	}
	switch filesystem {
	case "ext4":
		want = append(want, "ext2")
	case "xfs", "btrfs":
		want = append(want, filesystem)
	}
	for _, m := range want {
		if !grub.Has(m) {
			return &ModuleError{Target: p.grubEFI, Module: m}
		}
	}
	return nil
}

// SignedConfig returns the configuration of a signed GRUB for the file system with the directory
// boot: files by their names in the directory that GRUB has built in as its prefix. partition is
// the number of the file system's partition in the table, 0 if it is not known.
func SignedConfig(grub *efi.GRUB, bootUUID string, partition int) (map[string][]byte, error) {
	text, files := blsConfigText, map[string][]byte{}
	reader := EntryReaderOf(grub)
	if reader == ReadsByScript {
		text, files["quiet.mo"] = signedConfigText, quietCatalogue()
	}
	config, err := fillConfig(text, bootUUID, partition, "@BLSCFG@", string(reader))
	if err != nil {
		return nil, err
	}
	files["grub.cfg"] = config
	return files, nil
}

// fillConfig fills a configuration in. Values are checked, not quoted.
func fillConfig(text, bootUUID string, partition int, more ...string) ([]byte, error) {
	if !regexp.MustCompile(`^[0-9A-Fa-f-]+$`).MatchString(bootUUID) {
		return nil, fmt.Errorf("root file system's UUID %q: want hexadecimal digits and dashes", bootUUID)
	}
	hint := ""
	if partition > 0 {
		hint = fmt.Sprintf(`--hint "$disk,gpt%d" `, partition)
	}
	return []byte(strings.NewReplacer(append(more, "@UUID@", bootUUID, "@HINT@", hint)...).Replace(text)), nil
}

// CheckSignedArguments checks that a signed GRUB carries the kernel arguments; the error is an
// [*ArgumentError]. One that reads entries by script takes quotes off, and splits at each blank.
func CheckSignedArguments(grub *efi.GRUB, args []string) error {
	if EntryReaderOf(grub) != ReadsByScript {
		return nil
	}
	if err := CheckArguments(args); err != nil {
		return err
	}
	for _, arg := range args {
		if strings.ContainsRune(arg, '"') {
			return &ArgumentError{Key: "options", Word: arg, Reason: "a signed GRUB without blscfg takes quotes off"}
		}
	}
	return nil
}
