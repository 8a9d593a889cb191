package main

import (
	"os"
	"path/filepath"
	"strings"

	"installer/rootfs/image"

	"github.com/spf13/cobra"
)

// completeBuild offers the image, and then files for the output.
func completeBuild(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return completeRef(cmd, args, typed)
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// completeRef offers transports, and after the colon of one that is a path, files.
func completeRef(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	const more = cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	transport, path, hasColon := strings.Cut(typed, ":")
	if !hasColon {
		var list []cobra.Completion
		for _, t := range image.Transports() {
			if t += ":"; t == image.TransportDocker+":" {
				t += "//"
			}
			list = append(list, t)
		}
		return list, more
	}
	switch transport {
	case image.TransportOCI, image.TransportOCIArchive, image.TransportDir, image.TransportDockerArchive, image.TransportRootfs:
		return withPrefix(transport+":", paths(path)), more
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func withPrefix(prefix string, list []string) []cobra.Completion {
	for i := range list {
		list[i] = prefix + list[i]
	}
	return list
}

// paths lists the files whose paths begin as typed; directories end in a slash.
func paths(typed string) []string {
	dir, start := filepath.Split(typed)
	look := dir
	if look == "" {
		look = "."
	}
	entries, err := os.ReadDir(look)
	if err != nil {
		return nil // nothing to offer
	}
	var list []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), start) {
			continue
		}
		name := dir + e.Name()
		if info, err := os.Stat(filepath.Join(look, e.Name())); err == nil && info.IsDir() {
			name += "/"
		}
		list = append(list, name)
	}
	return list
}
