package schema

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"installer/disk"
	"installer/disk/mounts"
	"installer/finalize"
	"installer/finalize/holders"
	"installer/finalize/kernel"
	"installer/install"
	"installer/install/verify"
	"installer/install/vm"
)

// types are the Go types that each definition describes; those that a document has beside them are
// in more.
var types = map[string]any{
	"event": install.Event{}, "report": vm.Report{}, "step": install.StepResult{}, "source": install.SourceReport{},
	"disk": install.DiskReport{}, "partition": disk.Partition{}, "found": disk.Found{}, "plan": install.Plan{},
	"deployment": install.DeploymentReport{}, "machine": vm.MachineReport{}, "phase": vm.PhaseTime{}, "plannedMachine": vm.Plan{},
	"finalize": finalize.Report{}, "stage": finalize.StageResult{}, "dropped": finalize.Dropped{}, "entry": finalize.Entry{},
	"perFilesystem": finalize.PerFilesystem{}, "filesystemResult": finalize.FilesystemResult{}, "unmounted": finalize.Unmounted{},
	"elsewhere": finalize.Elsewhere{}, "mount": mounts.Mount{}, "dead": finalize.Dead{}, "deadDevice": finalize.DeadDevice{},
	"liveness": holders.Liveness{}, "account": kernel.Account{}, "clean": finalize.Clean{}, "cleanDevice": finalize.CleanDevice{}, "detached": finalize.Detached{},
	"bind": finalize.Bind{}, "deadNumber": finalize.DeadNumber{},
	"holders": finalize.Search{}, "target": holders.Target{}, "holder": holders.Holder{}, "unseen": holders.Unseen{},
	"verify": verify.Report{}, "verifiedDisk": verify.DiskInfo{}, "verifiedPartition": verify.Partition{},
	"check": verify.Check{}, "finding": verify.Finding{}, "device": "", "mounted": install.MountedFilesystem{},
	"boundImage": install.BoundImage{}, "selinux": install.SELinuxReport{},
}

// more are members that no type has by itself.
var more = map[string][]string{"event": {"report"}}

// definition holds the members of a definition that the test reads.
type definition struct {
	Type        any                       `json:"type"`
	Description string                    `json:"description"`
	Properties  map[string]map[string]any `json:"properties"`
	Required    []string                  `json:"required"`
}

// The schema describes the members of the types, and no others.
func TestSchemaIsOfTheTypes(t *testing.T) {
	defined, err := names()
	if err != nil {
		t.Fatal(err)
	}
	defs, err := definitions()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range defined {
		example, ok := types[name]
		if !ok {
			t.Errorf("definition %q is of no type", name)
			continue
		}
		var d definition
		if err := json.Unmarshal(defs[name], &d); err != nil {
			t.Fatal(err)
		}
		if d.Description == "" {
			t.Errorf("%s is not described", name)
		}
		compare(t, name, d, members(reflect.TypeOf(example)))
	}
	for name := range types {
		if !slices.Contains(defined, name) {
			t.Errorf("there is no definition of %q", name)
		}
	}
}

func compare(t *testing.T, name string, d definition, members map[string]member) {
	t.Helper()
	for _, extra := range more[name] {
		members[extra] = member{optional: true}
	}
	for key, m := range members {
		p, ok := d.Properties[key]
		if !ok {
			t.Errorf("%s: member %q is not in installer.schema.json: describe it there", name, key)
			continue
		}
		if text, _ := p["description"].(string); text == "" {
			t.Errorf("%s: member %q is not described", name, key)
		}
		if got, _ := p["type"].(string); m.kind != "" && got != "" && got != m.kind {
			t.Errorf("%s: member %q is said to be %q, and is %q", name, key, got, m.kind)
		}
		if slices.Contains(d.Required, key) && m.optional {
			t.Errorf("%s: member %q is said to be always there, and may be left out", name, key)
		}
	}
	for key := range d.Properties {
		if _, ok := members[key]; !ok {
			t.Errorf("%s: there is no member %q", name, key)
		}
	}
}

// member is a field in JSON: its type, "" where any is possible, and whether it may be left out.
type member struct {
	kind     string
	optional bool
}

// members lists the members of a struct type and of the types that it embeds.
func members(t reflect.Type) map[string]member {
	list := map[string]member{}
	if t.Kind() != reflect.Struct {
		return list
	}
	for f := range t.Fields() {
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && tag == "":
			for name, m := range members(f.Type) {
				list[name] = m
			}
			continue
		case tag == "-" || !f.IsExported():
			continue
		case tag == "":
			tag = f.Name
		}
		list[tag] = member{kind: kind(f.Type), optional: strings.HasPrefix(options, "omit")}
	}
	return list
}

func kind(t reflect.Type) string {
	if t == reflect.TypeFor[time.Time]() || t == reflect.TypeFor[mounts.DevNum]() {
		return "string"
	}
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "integer"
	case reflect.Float64:
		return "number"
	case reflect.Slice:
		return "array"
	}
	return ""
}

// Each document's schema is complete: it holds the definitions that it refers to, and no others.
func TestGet(t *testing.T) {
	for _, d := range Documents() {
		text, err := Get(d.Name)
		if err != nil {
			t.Fatal(err)
		}
		var s struct {
			Schema string                     `json:"$schema"`
			Ref    string                     `json:"$ref"`
			Defs   map[string]json.RawMessage `json:"$defs"`
		}
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatal(err)
		}
		if s.Schema != dialect || s.Ref != "#/$defs/"+d.Name {
			t.Errorf("%s: %q, %q", d.Name, s.Schema, s.Ref)
		}
		for _, match := range reference.FindAllSubmatch(text, -1) {
			if len(s.Defs[string(match[1])]) == 0 {
				t.Errorf("%s: %s is missing", d.Name, match[1])
			}
		}
		for name := range s.Defs {
			if !strings.Contains(string(text), `"#/$defs/`+name+`"`) {
				t.Errorf("%s: %s is not used", d.Name, name)
			}
		}
	}
	if _, err := Get("nonsense"); err == nil || !strings.Contains(err.Error(), "event, report, finalize, holders, verify") {
		t.Error(err)
	}
}

// names lists all definitions, the parts of documents too, in order.
func names() ([]string, error) {
	defs, err := definitions()
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(defs)), nil
}
