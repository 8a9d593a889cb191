// Package schema holds the JSON schemas of the documents that the installer prints and writes
// for programs. The types are those of the packages that make the documents, and a test compares
// both.
package schema

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

//go:embed installer.schema.json
var all []byte

// dialect is the JSON Schema that all of it is written in.
const dialect = "https://json-schema.org/draft/2020-12/schema"

// documents are the definitions of whole documents, with the flags that make them.
var documents = []Document{
	{"event", "a line of --progress json, and of finalize --json"},
	{"report", "report of to-disk, to-filesystem and build (--report)"},
	{"finalize", "report of finalize (--report)"},
	{"holders", "output of holders --json"},
	{"verify", "output of verify --json"},
}

// Document is a kind of JSON document that has a schema.
type Document struct {
	Name string
	Text string // its description, for people
}

// Documents lists the kinds.
func Documents() []Document { return slices.Clone(documents) }

// Get returns the schema of a kind of document, complete in itself.
func Get(name string) ([]byte, error) {
	var names []string
	for _, d := range documents {
		names = append(names, d.Name)
	}
	if !slices.Contains(names, name) {
		return nil, fmt.Errorf("no schema is named %q; there are %s", name, strings.Join(names, ", "))
	}
	defs, err := definitions()
	if err != nil {
		return nil, err
	}
	used := map[string]json.RawMessage{}
	collect(defs, name, used)
	return json.MarshalIndent(struct {
		Dialect string                     `json:"$schema"`
		Title   string                     `json:"title"`
		Ref     string                     `json:"$ref"`
		Defs    map[string]json.RawMessage `json:"$defs"`
	}{dialect, "installer: " + name, "#/$defs/" + name, used}, "", "  ")
}

func definitions() (map[string]json.RawMessage, error) {
	var file struct {
		Defs map[string]json.RawMessage `json:"$defs"`
	}
	if err := json.Unmarshal(all, &file); err != nil {
		return nil, fmt.Errorf("reading the schemas: %w", err)
	}
	return file.Defs, nil
}

var reference = regexp.MustCompile(`"\$ref":\s*"#/\$defs/([A-Za-z]+)"`)

// collect adds a definition, and all that it refers to, to used.
func collect(defs map[string]json.RawMessage, name string, used map[string]json.RawMessage) {
	if _, there := used[name]; there {
		return
	}
	used[name] = defs[name]
	for _, match := range reference.FindAllSubmatch(defs[name], -1) {
		collect(defs, string(match[1]), used)
	}
}
