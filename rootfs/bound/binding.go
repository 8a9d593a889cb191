package bound

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"go.podman.io/image/v5/docker/reference"
)

// Dir is the directory of the bindings, in the image's tree.
const Dir = "usr/lib/bootc/bound-images.d"

// QuadletDirs are the directories where the quadlets stand that bindings usually lead to
// (podman-systemd.unit(5)), in the image's tree.
var QuadletDirs = []string{"usr/share/containers/systemd", "usr/etc/containers/systemd"}

// Binding is one bound image.
type Binding struct {
	File  string // the link, a path in the image's tree
	Image string // as the quadlet names it, with specifiers resolved
	// Names are the names that it may have in a storage, the first one that is there counts: full
	// names with a tag or a digest. There is more than one of a name without a registry.
	Names []reference.Named
}

// BindingError says which binding is at fault.
type BindingError struct {
	Path string
	Err  error
}

func (e *BindingError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *BindingError) Unwrap() error { return e.Err }

// Find reads the bindings of an image's tree, in which links must be followed as if it were the
// root. Errors are a [*BindingError].
func Find(tree fs.ReadLinkFS) ([]Binding, error) {
	entries, err := fs.ReadDir(tree, Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &BindingError{Dir, err}
	}
	var found []Binding
	for _, entry := range entries {
		name := path.Join(Dir, entry.Name())
		b, err := read(tree, name, entry.Type())
		if err != nil {
			return nil, &BindingError{name, err}
		}
		found = append(found, b)
	}
	return found, nil
}

// sections are those that name the image in the kinds of quadlets that can be bound.
var sections = map[string]string{".image": "Image", ".container": "Container"}

func read(tree fs.ReadLinkFS, name string, kind fs.FileMode) (b Binding, err error) {
	if kind != fs.ModeSymlink {
		return b, errors.New("it is no symbolic link, and only links to quadlets belong there")
	}
	section, ok := sections[path.Ext(name)]
	if !ok {
		return b, errors.New("it has neither the suffix .image nor .container")
	}
	text, err := fs.ReadFile(tree, name)
	if err != nil {
		return b, err
	}
	values := parseUnit(string(text))[section]
	if _, ok := values["AuthFile"]; ok && section == "Image" {
		return b, errors.New("AuthFile= is not supported of bound images: the host's /etc/ostree/auth.json has the credentials")
	}
	value := values["Image"]
	if value == "" {
		return b, fmt.Errorf("it has no Image= in a section [%s]", section)
	}
	b.File = name
	if b.Image, err = resolveSpecifiers(value); err != nil {
		return b, err
	}
	b.Names, err = namesOf(b.Image)
	return b, err
}

// parseUnit reads the values by section and key (systemd.syntax(7)); the last one counts.
// go-systemd's parser does not know comments amid continued lines.
func parseUnit(text string) map[string]map[string]string {
	units := map[string]map[string]string{}
	section, line := "", ""
	for part := range strings.Lines(text) {
		part = strings.TrimSpace(part)
		if strings.HasPrefix(part, "#") || strings.HasPrefix(part, ";") {
			continue // also amid a continued line
		}
		if more, ok := strings.CutSuffix(part, `\`); ok {
			line += more + " "
			continue
		}
		line, part = "", line+part
		if strings.HasPrefix(part, "[") && strings.HasSuffix(part, "]") {
			section = part[1 : len(part)-1]
			continue
		}
		if key, value, ok := strings.Cut(part, "="); ok {
			if units[section] == nil {
				units[section] = map[string]string{}
			}
			units[section][strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return units
}

// resolveSpecifiers allows but %% of the specifiers of systemd.unit(5): the values of the others
// stand for is known on the running host alone.
func resolveSpecifiers(value string) (string, error) {
	parts := strings.Split(value, "%%")
	for _, part := range parts {
		if strings.Contains(part, "%") {
			return "", fmt.Errorf("value Image=%s: specifiers of systemd are not supported of bound images", value)
		}
	}
	return strings.Join(parts, "%"), nil
}

// namesOf are the full names that an image may have.
func namesOf(image string) ([]reference.Named, error) {
	if ext := path.Ext(image); !strings.Contains(image, "/") && (ext == ".image" || ext == ".build") {
		return nil, fmt.Errorf("value Image=%s names another quadlet: bind that one, or name the image", image)
	}
	candidates := []string{image}
	if isShort(image) {
		candidates = []string{"localhost/" + image, image} // in the order of podman
	}
	var names []reference.Named
	for _, candidate := range candidates {
		name, err := reference.ParseNormalizedNamed(candidate)
		if err != nil {
			return nil, fmt.Errorf("value Image=%s: %w", image, err)
		}
		// The digest alone counts where there is a tag, too.
		if digested, ok := name.(reference.Digested); ok {
			if name, err = reference.WithDigest(reference.TrimNamed(name), digested.Digest()); err != nil {
				return nil, fmt.Errorf("value Image=%s: %w", image, err)
			}
		}
		names = append(names, reference.TagNameOnly(name))
	}
	return names, nil
}

// isShort reports whether a name has no registry.
func isShort(image string) bool {
	host, _, ok := strings.Cut(image, "/")
	return !ok || !strings.ContainsAny(host, ".:") && host != "localhost"
}
