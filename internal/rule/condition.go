package rule

import (
	"path"
	"slices"
	"strings"
)

// op is what a node of a condition does.
type op uint8

const (
	opTrue op = iota
	opFalse
	opAnd
	opOr
	opNot
	opTest
)

// node is a condition. Its tests name fields; compiling binds them to the columns of a kind.
type node struct {
	op   op
	kids []*node
	test *test
}

func all(kids ...*node) *node    { return &node{op: opAnd, kids: kids} }
func any1(kids ...*node) *node   { return &node{op: opOr, kids: kids} }
func not(kid *node) *node        { return &node{op: opNot, kids: []*node{kid}} }
func testNode(t *test) *node     { return &node{op: opTest, test: t} }
func isWord(w, word string) bool { return strings.EqualFold(w, word) }

// maxDepth bounds how deep parentheses and negations may be nested.
const maxDepth = 64

// conditionParser reads a condition: identifiers of searches, and, or, not, 1 of, all of,
// parentheses. not binds closest, then and.
type conditionParser struct {
	line     int
	tokens   []string
	at       int
	depth    int
	searches map[string]*node
	used     map[string]bool
}

func parseCondition(line int, text string, searches map[string]*node, used map[string]bool) (*node, error) {
	tokens, err := tokenize(line, text)
	if err != nil {
		return nil, err
	}
	p := &conditionParser{line: line, tokens: tokens, searches: searches, used: used}
	if len(tokens) == 0 {
		return nil, faultf(line, "the condition is empty")
	}
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.at < len(p.tokens) {
		return nil, faultf(line, "condition: %q is not expected after %q", p.tokens[p.at], strings.Join(p.tokens[:p.at], " "))
	}
	return n, nil
}

func tokenize(line int, text string) ([]string, error) {
	var tokens []string
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == '(' || c == ')':
			tokens = append(tokens, text[i:i+1])
			i++
		case c == '|':
			return nil, faultf(line, "condition: aggregations after | are of Sigma before version 2; write a correlation rule")
		case identifierByte(c):
			start := i
			for i < len(text) && identifierByte(text[i]) {
				i++
			}
			tokens = append(tokens, text[start:i])
		default:
			return nil, faultf(line, "condition: %q is not part of one", text[i:i+1])
		}
		if len(tokens) > 1000 {
			return nil, faultf(line, "condition: more than 1,000 words")
		}
	}
	return tokens, nil
}

func identifierByte(c byte) bool {
	return c == '_' || c == '-' || c == '*' || c == '.' || c == '?' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

func (p *conditionParser) peek() string {
	if p.at < len(p.tokens) {
		return p.tokens[p.at]
	}
	return ""
}

func (p *conditionParser) or() (*node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, faultf(p.line, "condition: nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	return p.chain("or", p.and, any1)
}

func (p *conditionParser) and() (*node, error) { return p.chain("and", p.not, all) }

func (p *conditionParser) chain(word string, next func() (*node, error), join func(...*node) *node) (*node, error) {
	n, err := next()
	if err != nil {
		return nil, err
	}
	kids := []*node{n}
	for isWord(p.peek(), word) {
		p.at++
		if n, err = next(); err != nil {
			return nil, err
		}
		kids = append(kids, n)
	}
	if len(kids) == 1 {
		return kids[0], nil
	}
	return join(kids...), nil
}

func (p *conditionParser) not() (*node, error) {
	if isWord(p.peek(), "not") {
		p.at++
		if p.depth++; p.depth > maxDepth {
			return nil, faultf(p.line, "condition: nested more than %d deep", maxDepth)
		}
		defer func() { p.depth-- }()
		n, err := p.not()
		if err != nil {
			return nil, err
		}
		return not(n), nil
	}
	return p.one()
}

func (p *conditionParser) one() (*node, error) {
	word := p.peek()
	if word == "" {
		return nil, faultf(p.line, "condition: something is missing after %q", strings.Join(p.tokens, " "))
	}
	p.at++
	switch {
	case word == "(":
		n, err := p.or()
		if err != nil {
			return nil, err
		}
		if p.peek() != ")" {
			return nil, faultf(p.line, "condition: a parenthesis is not closed")
		}
		p.at++
		return n, nil
	case isWord(p.peek(), "of"):
		p.at++
		what := p.peek()
		p.at++
		return p.of(word, what)
	}
	n, ok := p.searches[word]
	if !ok {
		return nil, faultf(p.line, "condition: there is no search called %q", word)
	}
	p.used[word] = true
	return n, nil
}

// of is "1 of selection_*" and the like.
func (p *conditionParser) of(quantity, what string) (*node, error) {
	join := any1
	switch {
	case quantity == "1" || isWord(quantity, "any"):
	case isWord(quantity, "all"):
		join = all
	default:
		return nil, faultf(p.line, "condition: %q of is not 1, any or all", quantity)
	}
	var names []string
	for name := range p.searches {
		ok, err := path.Match(what, name)
		if isWord(what, "them") {
			ok, err = !strings.HasPrefix(name, "_"), nil
		}
		if err != nil {
			return nil, faultf(p.line, "condition: %q is no pattern of names", what)
		}
		if ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, faultf(p.line, "condition: no search is called like %q", what)
	}
	slices.Sort(names)
	kids := make([]*node, len(names))
	for i, name := range names {
		p.used[name] = true
		kids[i] = p.searches[name]
	}
	return join(kids...), nil
}
