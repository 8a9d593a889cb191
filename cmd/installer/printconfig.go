package main

import (
	"context"
	"io"
	"io/fs"
	"os"
	"runtime"

	"installer/install/choice/config"
	"installer/install/printable"
	"installer/rootfs/image"

	"github.com/spf13/cobra"
)

const printConfigHelp = `Print the merged install configuration as JSON, as bootc install
print-configuration does: of the running system or container, or of an image.

Files are bootc/install/*.toml below /usr/lib, /usr/local/lib, /etc and /run.
Keys without a meaning are named on standard error.`

// printConfigFlags are the flags of print-configuration as given.
type printConfigFlags struct {
	all      bool
	source   string
	platform string
}

func newPrintConfigCommand(stdout, stderr io.Writer) *cobra.Command {
	var flags printConfigFlags
	cmd := &cobra.Command{
		Use:   "print-configuration [flags]",
		Short: "Print an image's own install configuration",
		Long:  printConfigHelp,
		Example: `  installer print-configuration | jq -r '."root-fs-type"'
  installer print-configuration --all --source-imgref oci:myos:latest`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runPrintConfig(cmd.Context(), flags, stdout, stderr)
		},
	}
	flag{name: "all", brief: "print the kernel arguments too", detail: "bootc leaves them out: the installer itself handles them."}.toggle(cmd.Flags(), &flags.all)
	flag{name: "source-imgref", value: "REF", brief: "image to read", fallback: "the running root", detail: "Any source of to-disk."}.text(cmd.Flags(), &flags.source)
	platformFlag().text(cmd.Flags(), &flags.platform)
	return cmd
}

func runPrintConfig(parent context.Context, flags printConfigFlags, stdout, stderr io.Writer) error {
	platform, err := parsePlatform(flags.platform)
	if err != nil {
		return &usageError{err}
	}
	ctx, stop := untilSignal(parent)
	defer stop()
	root, arch := fs.FS(os.DirFS("/")), runtime.GOARCH
	if flags.source != "" {
		if root, arch, err = imageRoot(ctx, flags.source, platform); err != nil {
			return err
		}
	}
	loaded, err := config.Load(arch, root)
	if err != nil {
		return err
	}
	for _, note := range loaded.Notes {
		printable.Fprintf(stderr, "installer: warning: %s\n", note)
	}
	return loaded.WriteJSON(stdout, flags.all)
}

// imageRoot gives the files that configure an image's installation.
func imageRoot(ctx context.Context, source string, platform image.Platform) (fs.FS, string, error) {
	ref, err := parseSource("--source-imgref", source)
	if err != nil {
		return nil, "", &usageError{err}
	}
	img, err := image.Open(ctx, ref, image.OpenOptions{Platform: platform})
	if err != nil {
		return nil, "", err
	}
	defer img.Close()
	inv, err := img.Scan(ctx, image.ScanOptions{Files: config.ImageFiles()})
	if err != nil {
		return nil, "", err
	}
	return inv.FS(), img.Architecture, nil
}
