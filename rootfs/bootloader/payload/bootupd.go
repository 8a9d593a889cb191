package payload

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// componentsDir has a directory COMPONENT/VERSION/EFI for each component.
const componentsDir = "usr/lib/efi"

// components merges the components of bootupd. Those with a later name win, as there.
func components(tree Tree, m machine, loader Loader) (*Payload, error) {
	p := &Payload{}
	names, err := directories(tree, componentsDir)
	if err != nil {
		return nil, err
	}
	merged := map[string]File{}
	for _, name := range names {
		versions, err := directories(tree, path.Join(componentsDir, name))
		if err != nil {
			return nil, err
		}
		taken := ""
		for _, version := range versions {
			root := path.Join(componentsDir, name, version)
			files, err := walk(tree, root)
			switch {
			case errors.Is(err, ErrAbsent):
				continue
			case err != nil:
				return nil, err
			case taken != "":
				return nil, &LayoutError{fmt.Sprintf("/%s has two versions, %s and %s", path.Join(componentsDir, name), taken, version)}
			}
			taken = version
			for _, f := range files {
				merged[strings.ToLower(f.To)] = f
			}
		}
	}
	if len(merged) == 0 {
		return nil, ErrAbsent
	}
	for _, f := range merged {
		p.Files = append(p.Files, f)
	}
	return p, p.complete(m, loader)
}

// directory returns a source with all files of one directory as they go to the partition.
func directory(root string) func(Tree, machine, Loader) (*Payload, error) {
	return func(tree Tree, m machine, loader Loader) (*Payload, error) {
		files, err := walk(tree, root)
		if err != nil {
			return nil, err
		}
		p := &Payload{Files: files}
		return p, p.complete(m, loader)
	}
}

// complete checks that the files of a partition start a system: the firmware starts BOOT/BOOTX64,
// which is a shim; that starts the fallback beside it, or else the GRUB beside it.
func (p *Payload) complete(m machine, loader Loader) error {
	if loader != GRUB {
		return &LayoutError{fmt.Sprintf("it has no signed %s", loader)}
	}
	for _, f := range p.Files {
		if strings.EqualFold(path.Base(f.To), m.shim()) {
			if p.Vendor != "" {
				return &LayoutError{fmt.Sprintf("it has %s of two vendors, %s and %s", m.shim(), p.Vendor, path.Base(path.Dir(f.To)))}
			}
			p.Vendor = path.Base(path.Dir(f.To))
		}
	}
	if p.Vendor == "" {
		return &MissingError{"EFI/VENDOR/" + m.shim(), m.bring(m.shim(), loader)}
	}
	wanted := []string{"BOOT/" + m.removable(), p.Vendor + "/" + m.grub()}
	if _, ok := find(p.Files, "EFI/BOOT/"+m.fallback()); ok {
		wanted = append(wanted, p.Vendor+"/"+m.csv())
	} else {
		wanted = append(wanted, "BOOT/"+m.grub())
	}
	return p.has(m, loader, wanted...)
}

// has checks that the files are there, which are named below EFI.
func (p *Payload) has(m machine, loader Loader, wanted ...string) error {
	for _, name := range wanted {
		if _, ok := find(p.Files, "EFI/"+name); !ok {
			return &MissingError{"EFI/" + name, m.bring(path.Base(name), loader)}
		}
	}
	return nil
}

// walk returns the files below EFI in a directory of the image.
func walk(tree fs.FS, root string) ([]File, error) {
	var files []File
	err := fs.WalkDir(tree, path.Join(root, "EFI"), func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return nil
		case !entry.Type().IsRegular():
			return &LayoutError{fmt.Sprintf("/%s is not a regular file, which alone a FAT file system has", name)}
		}
		files = append(files, File{name, strings.TrimPrefix(name, root+"/")})
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && len(files) == 0:
		return nil, ErrAbsent
	case err != nil:
		return nil, err
	}
	return files, nil
}

// directories returns the names of the directories in one, sorted; none if it does not exist.
func directories(tree fs.FS, name string) ([]string, error) {
	entries, err := fs.ReadDir(tree, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading /%s: %w", name, err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
