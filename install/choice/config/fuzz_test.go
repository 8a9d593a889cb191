package config

import (
	"strings"
	"testing"
	"testing/fstest"
)

// FuzzConfig: no file of an image makes the readers panic, and no accepted argument would end a
// line of a boot entry.
func FuzzConfig(f *testing.F) {
	f.Add("[install]\nroot-fs-type = \"xfs\"\nkargs = [\"a=b\", \"c\"]\n[install.filesystem.root]\ntype = \"ext4\"\n")
	f.Add("[install]\nblock = [\"direct\", \"tpm2-luks\"]\nmatch-architectures = [\"x86_64\"]\nkarg-deletes = [\"quiet\"]\n")
	f.Add("[install.ostree]\nbls-append-except-default = 'grub_users=\"\"'\n[install.bootupd]\nskip-boot-uuid = true\n")
	f.Add("kargs = [\"x\"]\nmatch-architectures = [\"aarch64\"]\n")
	f.Fuzz(func(t *testing.T, text string) {
		fsys := fstest.MapFS{
			ImageFiles()[0] + "/10-a.toml": {Data: []byte(text)},
			KargsDir + "/10-a.toml":        {Data: []byte(text)},
		}
		for _, load := range []func() (*Loaded, error){
			func() (*Loaded, error) { return Load("amd64", fsys) },
			func() (*Loaded, error) { return LoadKargs("amd64", fsys) },
		} {
			l, err := load()
			if err != nil {
				continue
			}
			for _, note := range l.Notes {
				if strings.TrimSpace(note) == "" {
					t.Error("an empty note")
				}
			}
		}
	})
}
