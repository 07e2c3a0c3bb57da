package rule

import (
	"encoding/base64"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"gopkg.in/yaml.v3"
)

// look is how a test looks at a field.
type look uint8

const (
	lookPattern look = iota
	lookRegexp
	lookCompare
	lookNetwork
	lookExists // or not
	lookField  // at another field
)

// test is one question about one field.
type test struct {
	line    int
	field   string // as the rule has it; "" is any text of the event
	look    look
	cased   bool
	pattern pattern
	regexp  *regexp.Regexp
	compare string // gt, gte, lt, lte
	number  int64
	network netip.Prefix
	exists  bool
	other   string // a field
	form    form   // where the other field's text is to be
}

// key tells tests of one field apart.
func (t *test) key() string {
	k := string(rune('0'+t.look)) + strconv.FormatBool(t.cased)
	switch t.look {
	case lookPattern:
		if !t.cased {
			return k + t.pattern.lower().key()
		}
		return k + t.pattern.key()
	case lookRegexp:
		return k + t.regexp.String()
	case lookCompare:
		return k + t.compare + strconv.FormatInt(t.number, 10)
	case lookNetwork:
		return k + t.network.String()
	case lookExists:
		return k + strconv.FormatBool(t.exists)
	}
	return k + strconv.Itoa(int(t.form)) + t.other
}

// maxTests bounds what one rule may ask.
const maxTests = 10_000

// searchParser reads the searches of one rule.
type searchParser struct {
	tests int
	depth int
}

// search reads a search: a map of fields, a list of such or of keywords, or a keyword.
func (p *searchParser) search(n *yaml.Node) (*node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, faultf(n.Line, "nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	n = real(n)
	switch n.Kind {
	case yaml.MappingNode:
		if len(n.Content) == 0 {
			return nil, faultf(n.Line, "the search is empty")
		}
		kids := make([]*node, 0, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			kid, err := p.item(n.Content[i].Value, n.Content[i].Line, n.Content[i+1])
			if err != nil {
				return nil, err
			}
			kids = append(kids, kid)
		}
		return all(kids...), nil
	case yaml.SequenceNode:
		if len(n.Content) == 0 {
			return nil, faultf(n.Line, "the search is empty")
		}
		kids := make([]*node, 0, len(n.Content))
		for _, c := range n.Content {
			kid, err := p.search(c)
			if err != nil {
				return nil, err
			}
			kids = append(kids, kid)
		}
		return any1(kids...), nil
	case yaml.ScalarNode:
		return p.item("", n.Line, n)
	}
	return nil, faultf(n.Line, "a search is a map of fields, or a list")
}

// real follows an alias.
func real(n *yaml.Node) *yaml.Node {
	for range 8 {
		if n.Kind != yaml.AliasNode || n.Alias == nil {
			break
		}
		n = n.Alias
	}
	return n
}

// modifiers are what stands behind a field's name.
type modifiers struct {
	has   map[string]bool
	flags string // of re
}

var known = []string{
	"contains", "startswith", "endswith", "all", "cased", "re", "i", "ignorecase", "m", "multiline", "s", "dotall", "cidr",
	"base64", "base64offset", "wide", "utf16le", "utf16be", "utf16", "windash", "gt", "gte", "lt", "lte", "exists", "fieldref", "neq",
}

func parseModifiers(line int, words []string) (modifiers, error) {
	m := modifiers{has: make(map[string]bool, len(words))}
	for _, w := range words {
		switch {
		case w == "expand":
			return m, faultf(line, "modifier expand: nobody here says what a placeholder stands for; write the values out")
		case slices.Contains([]string{"minute", "hour", "day", "week", "month", "year"}, w):
			return m, faultf(line, "modifier %s: parts of times are not told apart", w)
		case !slices.Contains(known, w):
			return m, faultf(line, "modifier %q is not known", w)
		}
		m.has[w] = true
		switch w {
		case "i", "ignorecase":
			m.flags += "i"
		case "m", "multiline":
			m.flags += "m"
		case "s", "dotall":
			m.flags += "s"
		}
	}
	exclusive := []string{"re", "cidr", "gt", "gte", "lt", "lte", "exists", "base64", "base64offset"}
	var first string
	for _, w := range exclusive {
		if m.has[w] {
			if first != "" {
				return m, faultf(line, "modifiers %s and %s exclude each other", first, w)
			}
			first = w
		}
	}
	if m.flags != "" && !m.has["re"] {
		return m, faultf(line, "modifiers i, m and s belong to re")
	}
	if (m.has["re"] || m.has["cidr"] || m.has["exists"]) && (m.has["contains"] || m.has["startswith"] || m.has["endswith"]) {
		return m, faultf(line, "modifier %s stands for itself, not with contains, startswith or endswith", first)
	}
	return m, nil
}

// item reads one field with its values.
func (p *searchParser) item(key string, line int, value *yaml.Node) (*node, error) {
	name, rest, has := strings.Cut(key, "|")
	var words []string
	if has {
		words = strings.Split(rest, "|")
	}
	m, err := parseModifiers(line, words)
	if err != nil {
		return nil, err
	}
	value = real(value)
	values := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		if values = value.Content; len(values) == 0 {
			return nil, faultf(line, "field %q has no values", name)
		}
	}
	var kids []*node
	for _, v := range values {
		if v = real(v); v.Kind != yaml.ScalarNode {
			return nil, faultf(v.Line, "field %q: a value is a text, a number, true, false or null", name)
		}
		kid, err := p.value(name, v, m)
		if err != nil {
			return nil, err
		}
		kids = append(kids, kid)
	}
	n := any1(kids...)
	if m.has["all"] {
		n = all(kids...)
	}
	if m.has["neq"] {
		return not(n), nil
	}
	return n, nil
}

// value reads one value of a field.
func (p *searchParser) value(field string, v *yaml.Node, m modifiers) (*node, error) {
	make1 := func(t test) (*node, error) {
		if p.tests++; p.tests > maxTests {
			return nil, faultf(v.Line, "more than %d values", maxTests)
		}
		t.line, t.field = v.Line, field
		t.cased = t.cased || m.has["cased"]
		return testNode(&t), nil
	}
	switch {
	case v.Tag == "!!null":
		return make1(test{look: lookExists})
	case m.has["exists"]:
		var yes bool
		if v.Decode(&yes) != nil {
			return nil, faultf(v.Line, "modifier exists: %q is not true or false", v.Value)
		}
		return make1(test{look: lookExists, exists: yes})
	case m.has["fieldref"]:
		return make1(test{look: lookField, other: v.Value, form: formOf(m)})
	case m.has["re"]:
		text := v.Value
		if m.flags != "" {
			text = "(?" + m.flags + ")" + text
		}
		re, err := regexp.Compile(text)
		if err != nil {
			return nil, faultf(v.Line, "regular expression: %v (Go's syntax has no look-around and no back-references)", err)
		}
		return make1(test{look: lookRegexp, regexp: re})
	case m.has["cidr"]:
		network, err := netip.ParsePrefix(v.Value)
		if err != nil {
			return nil, faultf(v.Line, "network %q: use ADDRESS/BITS", v.Value)
		}
		return make1(test{look: lookNetwork, network: network.Masked()})
	}
	for _, w := range []string{"gt", "gte", "lt", "lte"} {
		if m.has[w] {
			n, err := strconv.ParseInt(v.Value, 0, 64)
			if err != nil {
				return nil, faultf(v.Line, "modifier %s: %q is no whole number", w, v.Value)
			}
			return make1(test{look: lookCompare, compare: w, number: n})
		}
	}

	text := v.Value
	encoded := false
	for _, w := range []string{"wide", "utf16le", "utf16be", "utf16"} {
		if m.has[w] {
			text, encoded = wide(text, w), true
		}
	}
	texts := []string{text}
	if m.has["windash"] {
		texts = dashed(text)
	}
	if m.has["base64"] || m.has["base64offset"] {
		encoded = true
		var out []string
		for _, s := range texts {
			if m.has["base64"] {
				out = append(out, base64.StdEncoding.EncodeToString([]byte(s)))
				continue
			}
			out = append(out, offsets(s)...)
		}
		texts = out
	}
	var kids []*node
	for _, s := range texts {
		q := parsePattern(s)
		if encoded {
			q = literalPattern(s)
		}
		f := formOf(m)
		if field == "" { // a keyword may be anywhere
			f = anywhere
		}
		q = q.open(f == anywhere || f == atEnd, f == anywhere || f == atStart)
		// Base64 in other letters is another text.
		kid, err := make1(test{look: lookPattern, pattern: q, cased: m.has["base64"] || m.has["base64offset"]})
		if err != nil {
			return nil, err
		}
		kids = append(kids, kid)
	}
	if len(kids) == 1 {
		return kids[0], nil
	}
	return any1(kids...), nil
}

func formOf(m modifiers) form {
	switch {
	case m.has["contains"] || m.has["startswith"] && m.has["endswith"]:
		return anywhere
	case m.has["startswith"]:
		return atStart
	case m.has["endswith"]:
		return atEnd
	}
	return whole
}

// wide is a text in UTF-16, as a string of its bytes.
func wide(s, how string) string {
	var b []byte
	put := func(u uint16) {
		if how == "utf16be" {
			b = append(b, byte(u>>8), byte(u))
			return
		}
		b = append(b, byte(u), byte(u>>8))
	}
	if how == "utf16" {
		put(0xfeff)
	}
	for _, u := range utf16.Encode([]rune(s)) {
		put(u)
	}
	return string(b)
}

// offsets are what base64 makes of s wherever in a longer text it stands, without the
// characters that depend on its neighbours.
func offsets(s string) []string {
	var out []string
	for i, start := range []int{0, 2, 3} {
		e := base64.StdEncoding.EncodeToString(append(make([]byte, i, i+len(s)), s...))
		end := len(e)
		switch (len(s) + i) % 3 {
		case 1:
			end -= 3
		case 2:
			end -= 2
		}
		if start < end {
			out = append(out, e[start:end])
		}
	}
	return out
}
