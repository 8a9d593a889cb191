package page

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// value is a piece of evidence, of whatever form: it is shown as it is, so that
// a report of a newer version is shown whole too. One of the three is set.
type value struct {
	Text   string
	Fields []field
	Items  []*value
	IsList bool
}

// field is a member of an object, in the order of the report.
type field struct {
	Name  string
	Value *value
}

// Empty says that there is nothing to show.
func (v *value) Empty() bool {
	return v == nil || v.Text == "" && len(v.Fields) == 0 && len(v.Items) == 0
}

// parseValue reads JSON, keeping the order of members; nil where there is none.
func parseValue(data []byte) *value {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	v, err := nextValue(decoder)
	if err != nil {
		return &value{Text: string(data)} // not to be lost
	}
	return v
}

var errEnd = errors.New("end of a list")

func nextValue(d *json.Decoder) (*value, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		switch t {
		case '{':
			return object(d)
		case '[':
			return list(d)
		}
		return nil, errEnd
	case nil:
		return &value{Text: "none"}, nil
	case bool:
		return &value{Text: map[bool]string{true: "yes", false: "no"}[t]}, nil
	}
	return &value{Text: fmt.Sprint(token)}, nil
}

func object(d *json.Decoder) (*value, error) {
	v := &value{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		member, err := nextValue(d)
		if err != nil {
			return nil, err
		}
		name := strings.ReplaceAll(fmt.Sprint(key), "_", " ")
		v.Fields = append(v.Fields, field{name, member})
	}
	_, err := d.Token()
	return v, err
}

func list(d *json.Decoder) (*value, error) {
	v := &value{IsList: true}
	for {
		item, err := nextValue(d)
		if errors.Is(err, errEnd) {
			return v, nil
		}
		if err == io.EOF {
			return nil, io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		v.Items = append(v.Items, item)
	}
}

// Short says that the items of a list are mere words, to be set beside each other.
func (v *value) Short() bool {
	for _, item := range v.Items {
		if len(item.Fields) > 0 || item.IsList || len(item.Text) > 24 {
			return false
		}
	}
	return true
}
