package keyfile

import (
	"errors"
	"maps"
	"testing"
)

func TestParse(t *testing.T) {
	keys, err := Parse("# comment\n\n[origin]\nrefspec=a\\\\b\nrefspec = x=y \n\n[a b]\r\ny = z\\\\\n  [c]\n#k=v\nk=")
	want := map[string]string{"origin.refspec": "x=y", "a b.y": `z\`, "c.k": ""}
	if err != nil || !maps.Equal(keys, want) {
		t.Errorf("%q, %v", keys, err)
	}
	for text, line := range map[string]int{"key=1\n": 1, "[a]\nnonsense\n": 2, "[a]\nb=c\n=x\n": 3, "[a\n": 1} {
		var syntax *SyntaxError
		if keys, err := Parse(text); !errors.As(err, &syntax) || syntax.Line != line {
			t.Errorf("%q: %q, %v; want an error in line %d", text, keys, err, line)
		}
	}
}
