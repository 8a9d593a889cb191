package efi

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Generations are the lines of SBAT metadata: the generation of each component that a program is
// made of; or, as a level, the lowest generation of each that may still be started.
type Generations map[string]uint64

// RevokedError reports a program that may not be started any more.
type RevokedError struct {
	Component string // of SBAT metadata, "" where the program itself or its signer is on a list
	Has, Want uint64 // generations
	Reason    string // where Component is ""
}

func (e *RevokedError) Error() string {
	if e.Component == "" {
		return "it is revoked: " + e.Reason
	}
	return fmt.Sprintf("it is revoked: its SBAT metadata has generation %d of %s, and shim starts none below %d: update its package",
		e.Has, e.Component, e.Want)
}

// readSBAT returns the program's SBAT metadata, nil if it has none.
func (p *program) readSBAT() (Generations, error) {
	data := p.section(".sbat")
	if data == nil {
		return nil, nil
	}
	return parseGenerations(data)
}

// parseGenerations reads lines "component,generation,..." up to a zero byte.
func parseGenerations(data []byte) (Generations, error) {
	text, _, _ := bytes.Cut(data, []byte{0})
	found := Generations{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSpace(line), ",")
		if len(fields) < 2 {
			continue
		}
		generation, err := strconv.ParseUint(strings.TrimSpace(fields[1]), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("reading SBAT metadata: the generation of %s is %q, not a number", fields[0], fields[1])
		}
		found[fields[0]] = generation
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("reading SBAT metadata: no component in %d bytes", len(data))
	}
	return found, nil
}

// check reports the first component, by name, that is below the level.
func (g Generations) check(level Generations) error {
	var revoked *RevokedError
	for component, has := range g {
		want, listed := level[component]
		if listed && has < want && (revoked == nil || component < revoked.Component) {
			revoked = &RevokedError{Component: component, Has: has, Want: want}
		}
	}
	if revoked != nil {
		return revoked
	}
	return nil
}
