package label

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// machine matches a path with all patterns of a policy at once: a deterministic automaton whose
// states are made when a path first leads to them.
//
// A pattern is a regular expression of PCRE2 in libselinux, on bytes, where a dot matches newlines
// too, between ^ and $. Go's package knows neither look-around nor back-references; a policy that
// uses those is refused with the line. All other patterns mean the same in both, on bytes that are
// each taken for a character of its own.
type machine struct {
	insts   []syntax.Inst // of all patterns; the Arg of a match is the pattern
	classes [256]uint8    // bytes that no instruction distinguishes have one class
	sample  []rune        // a byte of each class
	start   *state
	states  map[string]*state
	odd     []oddPattern // matched one by one

	stack []uint32
	seen  []uint32 // the pass in which an instruction was reached
	pass  uint32
}

// state is the set of the instructions at which patterns are after a part of a path.
type state struct {
	at      []uint32
	next    []*state // by class; nil: not made yet
	matched []int    // patterns that match if the path ends here, the last first
	ended   bool     // matched is known
}

// oddPattern is not anchored at both ends, as a|b is not, or looks at the bytes around a position.
type oddPattern struct {
	index int
	regex *regexp.Regexp
}

// maxStates bounds the states that are kept.
const maxStates = 1 << 16

// newMachine compiles the patterns. An error names the line.
func newMachine(patterns []spec) (*machine, error) {
	const typical = 32                                                    // instructions of a pattern
	m := &machine{insts: make([]syntax.Inst, 1, 1+typical*len(patterns))} // the first one fails: 0 is no start
	var starts []uint32
	for i := range patterns {
		s := &patterns[i]
		begin, err := m.add(i, s.regex)
		if err != nil {
			return nil, &Error{File: s.file, Line: s.line, Err: fmt.Errorf("the regular expression %q: %w", s.regex, err)}
		}
		if begin != 0 {
			starts = append(starts, begin)
		}
	}
	m.insts[0].Op = syntax.InstFail
	m.classify()
	m.seen = make([]uint32, len(m.insts))
	m.states = map[string]*state{}
	m.start = m.stateOf(m.closure(starts, syntax.EmptyBeginText))
	return m, nil
}

// add compiles one pattern, and returns its first instruction, or 0 for an odd one.
func (m *machine) add(index int, regex string) (uint32, error) {
	tree, err := syntax.Parse("^"+regex+"$", syntax.Perl|syntax.DotNL)
	if err != nil {
		return 0, err
	}
	if isOdd(tree) {
		compiled, err := regexp.Compile("(?s)^" + regex + "$")
		m.odd = append(m.odd, oddPattern{index, compiled})
		return 0, err
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return 0, err
	}
	base := uint32(len(m.insts))
	for _, inst := range prog.Inst {
		inst.Out += base
		switch inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			inst.Arg += base
		case syntax.InstMatch:
			inst.Arg = uint32(index)
		}
		m.insts = append(m.insts, inst)
	}
	return base + uint32(prog.Start), nil
}

// isOdd reports whether a pattern must be matched by itself.
func isOdd(tree *syntax.Regexp) bool {
	last := len(tree.Sub) - 1
	if tree.Op != syntax.OpConcat || tree.Sub[0].Op != syntax.OpBeginText || tree.Sub[last].Op != syntax.OpEndText {
		return true
	}
	return looksAround(tree)
}

// looksAround reports whether a tree has positions that the automaton does not know.
func looksAround(tree *syntax.Regexp) bool {
	switch tree.Op {
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return true
	}
	return slices.ContainsFunc(tree.Sub, looksAround)
}

// classify finds the bytes that no instruction distinguishes.
func (m *machine) classify() {
	var border [257]bool
	for i := range m.insts {
		inst := &m.insts[i]
		switch inst.Op {
		case syntax.InstRune, syntax.InstRune1:
		case syntax.InstRuneAnyNotNL:
			border['\n'], border['\n'+1] = true, true
			continue
		default:
			continue
		}
		if len(inst.Rune) == 1 && syntax.Flags(inst.Arg)&syntax.FoldCase != 0 {
			for b := range border {
				border[b] = true
			}
		}
		for j := 0; j < len(inst.Rune); j += 2 {
			lo, hi := inst.Rune[j], inst.Rune[min(j+1, len(inst.Rune)-1)]
			border[min(lo, 256)], border[min(hi, 255)+1] = true, true
		}
	}
	m.sample = nil
	for b := range m.classes {
		if b == 0 || border[b] {
			m.sample = append(m.sample, rune(b))
		}
		m.classes[b] = uint8(len(m.sample) - 1)
	}
}

// closure returns the instructions that wait for a byte, or for the end, sorted.
func (m *machine) closure(from []uint32, passed syntax.EmptyOp) (at []uint32) {
	m.pass++
	m.stack = append(m.stack[:0], from...)
	for len(m.stack) > 0 {
		pc := m.stack[len(m.stack)-1]
		m.stack = m.stack[:len(m.stack)-1]
		if m.seen[pc] == m.pass {
			continue
		}
		m.seen[pc] = m.pass
		inst := &m.insts[pc]
		switch inst.Op {
		case syntax.InstFail:
		case syntax.InstAlt, syntax.InstAltMatch:
			m.stack = append(m.stack, inst.Out, inst.Arg)
		case syntax.InstCapture, syntax.InstNop:
			m.stack = append(m.stack, inst.Out)
		case syntax.InstEmptyWidth:
			if need := syntax.EmptyOp(inst.Arg); need&^passed == 0 {
				m.stack = append(m.stack, inst.Out)
			} else if need&^syntax.EmptyEndText == 0 {
				at = append(at, pc)
			}
		default:
			at = append(at, pc)
		}
	}
	slices.Sort(at)
	return at
}

// stateOf returns the state of a set of instructions.
func (m *machine) stateOf(at []uint32) *state {
	key := make([]byte, 0, 4*len(at))
	for _, pc := range at {
		key = binary.LittleEndian.AppendUint32(key, pc)
	}
	if s := m.states[string(key)]; s != nil {
		return s
	}
	if len(m.states) >= maxStates {
		clear(m.states)
		if m.start != nil {
			m.start.next = make([]*state, len(m.sample))
		}
	}
	s := &state{at: at, next: make([]*state, len(m.sample))}
	m.states[string(key)] = s
	return s
}

// step makes the state that follows a byte.
func (m *machine) step(s *state, class uint8) *state {
	var from []uint32
	for _, pc := range s.at {
		if inst := &m.insts[pc]; matchesByte(inst, m.sample[class]) {
			from = append(from, inst.Out)
		}
	}
	next := m.stateOf(m.closure(from, 0))
	s.next[class] = next
	return next
}

func matchesByte(inst *syntax.Inst, b rune) bool {
	switch inst.Op {
	case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return inst.MatchRune(b)
	}
	return false
}

// end returns the patterns that match a path that ends in a state.
func (m *machine) end(s *state) []int {
	if s.ended {
		return s.matched
	}
	for _, pc := range m.closure(s.at, syntax.EmptyEndText) {
		if inst := &m.insts[pc]; inst.Op == syntax.InstMatch {
			s.matched = append(s.matched, int(inst.Arg))
		}
	}
	slices.Sort(s.matched)
	slices.Reverse(s.matched)
	s.ended = true
	return s.matched
}

// match returns the patterns that match a path, the last first. As in PCRE2 the $ stands for the
// end of the path, and also for the place before a newline there.
func (m *machine) match(name string) []int {
	s := m.start
	var before *state // the last byte
	for i := range len(name) {
		class := m.classes[name[i]]
		next := s.next[class]
		if next == nil {
			next = m.step(s, class)
		}
		before, s = s, next
	}
	matched := m.end(s)
	line, newline := strings.CutSuffix(name, "\n")
	if len(m.odd) == 0 && !newline {
		return matched
	}
	matched = slices.Clone(matched)
	if newline {
		matched = append(matched, m.end(before)...)
	}
	for _, o := range m.odd {
		if o.regex.MatchString(widen(name)) || newline && o.regex.MatchString(widen(line)) {
			matched = append(matched, o.index)
		}
	}
	slices.Sort(matched)
	slices.Reverse(matched)
	return matched
}

// widen returns a text whose characters are the bytes of name.
func widen(name string) string {
	wide := make([]rune, len(name))
	for i := range len(name) {
		wide[i] = rune(name[i])
	}
	return string(wide)
}
