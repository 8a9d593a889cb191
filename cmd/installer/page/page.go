package page

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"installer/finalize/holders"
)

// page holds the content of the template. Empty fields are left out.
type page struct {
	Title   string // of the window
	Kind    string // of the report
	Tone    tone
	Verdict string // in a few words
	Subject string // the disk, or another target
	Error   string
	Facts   []fact
	Steps   *timeline
	Disk    *diskPicture
	Lost    []string // earlier content of the disk
	Stages  *timeline
	Holders []holders.Holder
	Blind   []string // places that could not be looked at
	Kargs   []string
	Checks  []check
	Notes   []string
	Undone  []string // undo that failed
	Phases  *timeline
}

// tone is how the page says it, in colour and by a sign.
type tone string

const (
	good tone = "good"
	bad  tone = "bad"
	fair tone = "fair" // neither: worth a look
	idle tone = "idle" // did not happen
)

// Sign is the tone for those who do not see colours.
func (t tone) Sign() string {
	return map[tone]string{good: "✓", bad: "✗", fair: "!"}[t]
}

// fact is one line of the page's first table.
type fact struct{ Label, Value string }

// facts drops those without a value.
func facts(all ...fact) []fact {
	var list []fact
	for _, f := range all {
		if f.Value != "" {
			list = append(list, f)
		}
	}
	return list
}

//go:embed page.html.tmpl
var pageText string

//go:embed page.css
var styleText string

// write renders the page.
func (p *page) write(w io.Writer) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"text":  visible,
		"style": func() template.CSS { return template.CSS(styleText) }, // our own, and nobody else's
	}).Parse(pageText)
	if err != nil {
		return fmt.Errorf("reading the page's template: %w", err)
	}
	if err := t.Execute(w, p); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}

// visible escapes characters that do not print: control characters, and those
// that change the direction of the text around them.
func visible(v any) string {
	s := fmt.Sprint(v)
	if !strings.ContainsFunc(s, hidden) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func hidden(r rune) bool {
	return r != '\n' && r != '\t' && !unicode.IsPrint(r)
}

// seconds writes a duration as people read it.
func seconds(s float64) string {
	switch {
	case s < 0.0995:
		return fmt.Sprintf("%.0f ms", s*1000)
	case s < 99.5:
		return fmt.Sprintf("%.1f s", s)
	}
	return (time.Duration(s) * time.Second).String()
}

// clock writes a point in time; "" for none.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}
