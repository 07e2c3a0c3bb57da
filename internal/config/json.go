package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The bounds of osquery for one source: its size without comments, 4 MiB since
// osquery#9042, and how deeply it is nested.
const (
	maxSource = 4 << 20
	maxDepth  = 32
)

// source is the text of a configuration, and how places in it are named.
type source struct {
	name string
	text []byte // as it was read
	json []byte // without comments and continuations
	cuts []cut
}

// cut says that from an offset in json on, text is so much further.
type cut struct{ at, shift int }

// SyntaxError is what makes a configuration unreadable.
type SyntaxError struct {
	Source       string
	Line, Column int // from 1; columns count characters
	Text         string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.Source, e.Line, e.Column, e.Text)
}

// newSource takes out what osquery allows beyond JSON: a backslash at the end of a line
// joins it with the next; then lines that begin with # or // are comments.
func newSource(name string, text []byte) *source {
	s := &source{name: name, text: text, json: make([]byte, 0, len(text))}
	shift := 0
	drop := func(n int) {
		shift += n
		s.cuts = append(s.cuts, cut{len(s.json), shift})
	}
	for i := 0; i < len(text); {
		// A joined line: up to the first line end without a backslash.
		start := len(s.json)
		startCuts := len(s.cuts)
		for i < len(text) {
			end := bytes.IndexByte(text[i:], '\n')
			if end < 0 {
				s.json = append(s.json, text[i:]...)
				i = len(text)
				break
			}
			line := text[i : i+end]
			i += end + 1
			if !bytes.HasSuffix(line, []byte{'\\'}) {
				s.json = append(append(s.json, line...), '\n')
				break
			}
			s.json = append(s.json, line[:len(line)-1]...)
			drop(2)
		}
		if line := bytes.TrimSpace(s.json[start:]); bytes.HasPrefix(line, []byte("#")) || bytes.HasPrefix(line, []byte("//")) {
			shift += len(s.json) - start
			s.json, s.cuts = s.json[:start], s.cuts[:startCuts]
			s.cuts = append(s.cuts, cut{start, shift})
		}
	}
	return s
}

// place is where an offset in json is in the text.
func (s *source) place(at int) (line, column int) {
	shift := 0
	for _, c := range s.cuts {
		if c.at > at {
			break
		}
		shift = c.shift
	}
	before := s.text[:max(0, min(at+shift, len(s.text)))]
	line = bytes.Count(before, []byte{'\n'})
	return line + 1, utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
}

func (s *source) where(at int) string {
	line, column := s.place(at)
	return fmt.Sprintf("%s:%d:%d", s.name, line, column)
}

func (s *source) fail(at int, format string, args ...any) error {
	line, column := s.place(at)
	return &SyntaxError{s.name, line, column, fmt.Sprintf(format, args...)}
}

// kind is what a node is.
type kind byte

const (
	null kind = iota
	boolean
	number
	text
	array
	object
)

func (k kind) String() string {
	return [...]string{"null", "true or false", "a number", "text", "a list", "an object"}[k]
}

// node is a value of JSON with its place. encoding/json alone would not tell where a value
// is that is well-formed but makes no sense.
type node struct {
	source *source
	at     int // offset in source.json
	kind   kind
	bool   bool
	text   string // of a text or number
	list   []*node
	fields []field
}

type field struct {
	name  string
	value *node
}

// parse reads the root of a configuration.
func (s *source) parse() (*node, error) {
	if len(s.json) > maxSource {
		return nil, s.fail(0, "the configuration is %d bytes long, more than %d", len(s.json), maxSource)
	}
	// The decoder below does not say where exactly an error is.
	var raw json.RawMessage
	var syntax *json.SyntaxError
	if err := json.Unmarshal(s.json, &raw); errors.As(err, &syntax) {
		if int(syntax.Offset) >= len(s.json) && strings.HasPrefix(syntax.Error(), "unexpected end") {
			return nil, s.fail(len(s.json), "the configuration ends too early")
		}
		return nil, s.fail(int(syntax.Offset)-1, "%v", syntax)
	}
	d := &decoder{source: s, json: json.NewDecoder(bytes.NewReader(s.json))}
	d.json.UseNumber()
	root, err := d.value(0)
	if err != nil {
		return nil, err
	}
	if root.kind != object {
		return nil, s.fail(root.at, "the configuration is %s, not an object", root.kind)
	}
	return root, nil
}

type decoder struct {
	source *source
	json   *json.Decoder
}

// next is the offset at which the next token begins.
func (d *decoder) next() int {
	at := int(d.json.InputOffset())
	for at < len(d.source.json) && strings.IndexByte(" \t\r\n:,", d.source.json[at]) >= 0 {
		at++
	}
	return at
}

func (d *decoder) value(depth int) (*node, error) {
	n := &node{source: d.source, at: d.next()}
	token, err := d.json.Token()
	if err != nil {
		return nil, d.source.fail(n.at, "%v", err)
	}
	if depth >= maxDepth {
		return nil, d.source.fail(n.at, "nested more than %d deep", maxDepth)
	}
	switch t := token.(type) {
	case bool:
		n.kind, n.bool = boolean, t
	case string:
		n.kind, n.text = text, t
	case json.Number:
		n.kind, n.text = number, t.String()
	case json.Delim:
		if t == '[' {
			n.kind = array
			for d.json.More() {
				item, err := d.value(depth + 1)
				if err != nil {
					return nil, err
				}
				n.list = append(n.list, item)
			}
		} else {
			n.kind = object
			for d.json.More() {
				name, err := d.json.Token()
				if err != nil {
					return nil, d.source.fail(n.at, "%v", err)
				}
				value, err := d.value(depth + 1)
				if err != nil {
					return nil, err
				}
				n.fields = append(n.fields, field{name.(string), value})
			}
		}
		if _, err := d.json.Token(); err != nil {
			return nil, d.source.fail(n.at, "%v", err)
		}
	}
	return n, nil
}

// get returns a field of an object, the last of several, or nil.
func (n *node) get(name string) *node {
	var found *node
	for _, f := range n.fields {
		if f.name == name {
			found = f.value
		}
	}
	return found
}

// size reads a number, or text that is one, as osquery's JSON::valueToSize does; 0 when it
// is neither.
func (n *node) size() uint64 {
	if n.kind != number && n.kind != text {
		return 0
	}
	if v, err := strconv.ParseUint(strings.TrimSpace(n.text), 10, 63); err == nil {
		return v
	}
	if v, err := strconv.ParseFloat(n.text, 64); err == nil && n.kind == number && v >= 0 && v < 1<<53 {
		return uint64(v)
	}
	return 0
}

// truth reads what osquery's JSON::valueToBool takes for true.
func (n *node) truth() bool {
	switch n.kind {
	case boolean:
		return n.bool
	case text:
		low := strings.ToLower(n.text)
		return low == "true" || low == "t"
	case number:
		v, _ := strconv.ParseFloat(n.text, 64)
		return v != 0
	}
	return false
}

// json writes the value again.
func (n *node) json() []byte {
	b, err := json.Marshal(n.plain())
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return b
}

func (n *node) plain() any {
	switch n.kind {
	case boolean:
		return n.bool
	case number:
		return json.Number(n.text)
	case text:
		return n.text
	case array:
		list := make([]any, len(n.list))
		for i, item := range n.list {
			list[i] = item.plain()
		}
		return list
	case object:
		fields := make(map[string]any, len(n.fields))
		for _, f := range n.fields {
			fields[f.name] = f.value.plain()
		}
		return fields
	}
	return nil
}
