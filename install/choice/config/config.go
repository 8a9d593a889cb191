package config

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"installer/disk"
)

// Config is an install configuration: the keys of the table [install]. A key that no file sets is
// nil. The fields stand in the order of their names, as in bootc's JSON.
type Config struct {
	Block                []string    `toml:"block" json:"block"`
	BootMountSpec        *string     `toml:"boot-mount-spec" json:"boot-mount-spec"`
	Bootloader           *string     `toml:"bootloader" json:"bootloader"`
	Bootupd              *Bootupd    `toml:"bootupd" json:"bootupd"`
	Discoverable         *bool       `toml:"discoverable-partitions" json:"discoverable-partitions"`
	EnforceSigPolicy     *bool       `toml:"enforce-container-sigpolicy" json:"enforce-container-sigpolicy"`
	Filesystem           *Filesystem `toml:"filesystem" json:"filesystem"`
	KargDeletes          []string    `toml:"karg-deletes" json:"karg-deletes,omitempty"`
	Kargs                []string    `toml:"kargs" json:"kargs,omitempty"`
	MatchArchitectures   []string    `toml:"match-architectures" json:"match-architectures"`
	Ostree               *Ostree     `toml:"ostree" json:"ostree"`
	RootFSType           *string     `toml:"root-fs-type" json:"root-fs-type"`
	RootMountSpec        *string     `toml:"root-mount-spec" json:"root-mount-spec"`
	Stateroot            *string     `toml:"stateroot" json:"stateroot"`
	MatchArchitecturesUS []string    `toml:"match_architectures" json:"-"` // as the manual page spells it
}

// Filesystem is the table install.filesystem.
type Filesystem struct {
	Root *RootFilesystem `toml:"root" json:"root"`
}

// RootFilesystem is the table install.filesystem.root.
type RootFilesystem struct {
	Type *string `toml:"type" json:"type"`
}

// Ostree is the table install.ostree.
type Ostree struct {
	BLSAppendExceptDefault *string `toml:"bls-append-except-default" json:"bls-append-except-default,omitempty"`
}

// Bootupd is the table install.bootupd.
type Bootupd struct {
	SkipBootUUID *bool `toml:"skip-boot-uuid" json:"skip-boot-uuid"`
}

// Values of Block.
const (
	BlockDirect   = "direct"
	BlockTPM2LUKS = "tpm2-luks"
)

// RootType is the type of the root file system, "" if no file sets it.
func (c Config) RootType() string {
	if c.Filesystem != nil && c.Filesystem.Root != nil && c.Filesystem.Root.Type != nil {
		return *c.Filesystem.Root.Type
	}
	return value(c.RootFSType)
}

// BlockSetup is the block setup to use where asked is "" or one of those that the configuration
// enables; the first of them is the default.
func (c Config) BlockSetup(asked string) (string, error) {
	enabled := c.Block
	if enabled == nil {
		enabled = []string{BlockDirect}
	}
	switch {
	case len(enabled) == 0:
		return "", fmt.Errorf("the install configuration has an empty list of block setups: it enables none")
	case asked == "":
		return enabled[0], nil
	case !slices.Contains(enabled, asked):
		return "", fmt.Errorf("block setup %s is not enabled: the install configuration has block = %q", asked, enabled)
	}
	return asked, nil
}

// value returns the value behind a pointer, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// take replaces a value by one that is set.
func take[T any](old **T, by *T) {
	if by != nil {
		*old = by
	}
}

// merge lays another configuration over this one: lists of kernel arguments are appended,
// everything else is replaced.
func (c *Config) merge(o *Config) {
	if o.Block != nil {
		c.Block = o.Block
	}
	take(&c.BootMountSpec, o.BootMountSpec)
	take(&c.Bootloader, o.Bootloader)
	take(&c.Discoverable, o.Discoverable)
	take(&c.EnforceSigPolicy, o.EnforceSigPolicy)
	take(&c.RootFSType, o.RootFSType)
	take(&c.RootMountSpec, o.RootMountSpec)
	take(&c.Stateroot, o.Stateroot)
	c.mergeTables(o)
	c.KargDeletes = append(c.KargDeletes, o.KargDeletes...)
	c.Kargs = append(c.Kargs, o.Kargs...)
}

func (c *Config) mergeTables(o *Config) {
	if o.Bootupd != nil {
		c.Bootupd = orNew(c.Bootupd)
		take(&c.Bootupd.SkipBootUUID, o.Bootupd.SkipBootUUID)
	}
	if o.Ostree != nil {
		c.Ostree = orNew(c.Ostree)
		take(&c.Ostree.BLSAppendExceptDefault, o.Ostree.BLSAppendExceptDefault)
	}
	if o.Filesystem != nil {
		c.Filesystem = orNew(c.Filesystem)
		if root := o.Filesystem.Root; root != nil {
			c.Filesystem.Root = orNew(c.Filesystem.Root)
			take(&c.Filesystem.Root.Type, root.Type)
		}
	}
}

func orNew[T any](p *T) *T {
	if p == nil {
		return new(T)
	}
	return p
}

// canonicalize makes the two keys of the root file system's type agree, the table's winning, and
// states the default of block.
func (c *Config) canonicalize() {
	if kind := c.RootType(); kind != "" {
		c.RootFSType = &kind
		c.Filesystem = orNew(c.Filesystem)
		c.Filesystem.Root = orNew(c.Filesystem.Root)
		c.Filesystem.Root.Type = &kind
	}
	if c.Block == nil {
		c.Block = []string{BlockDirect}
	}
}

// check refuses values that no installation knows.
func (c *Config) check() error {
	for _, kind := range []*string{c.RootFSType, c.rootTable()} {
		if kind == nil {
			continue
		}
		if _, err := disk.ParseFilesystem(*kind); err != nil {
			return fmt.Errorf("root file system type: %w", err)
		}
	}
	for _, b := range c.Block {
		if b != BlockDirect && b != BlockTPM2LUKS {
			return fmt.Errorf("block: unknown setup %q: known are %s and %s", b, BlockDirect, BlockTPM2LUKS)
		}
	}
	return nil
}

func (c *Config) rootTable() *string {
	if c.Filesystem == nil || c.Filesystem.Root == nil {
		return nil
	}
	return c.Filesystem.Root.Type
}

// WriteJSON writes the configuration as bootc install print-configuration does: one line of
// canonical JSON. Without all, it leaves out the kernel arguments, which the installer handles also
// for file systems made by others.
func (c Config) WriteJSON(w io.Writer, all bool) error {
	if !all {
		c.Kargs, c.KargDeletes = nil, nil
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(c); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return nil
}
