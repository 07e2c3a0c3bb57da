package rule

import (
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Set is rules, compiled: a program for each kind of event. It is never changed.
type Set struct {
	Rules    []*Rule // in the order of their files
	Problems []Problem

	programs     [event.MaxKind + 1]*program
	correlations []*correlationRule
	of           map[*Rule][]*correlationRule // that a rule belongs to
	silences     []*silence
	wantsNames   bool // some rule asks for the name of an address
}

// program is what is asked of the events of one kind.
type program struct {
	kind   *event.Kind
	fields []programField
	checks []check
	rules  []programRule
	// guarded[check] are the rules that cannot be true unless one of such checks is.
	guarded [][]int32
	always  []int32 // rules that nothing guards

	byField map[string]int32
	byCheck map[string]int32
}

type programField struct {
	field
	automaton *automaton
	literals  []literal
}

// check is a test bound to a field.
type check struct {
	test
	field int32
	other int32 // of lookField
	lower pattern
	// scanned: an automaton finds it. sure: what it finds is all there is to ask.
	scanned, sure bool
	weight        int // bytes of the literal
}

// programRule is a rule for one kind.
type programRule struct {
	rule *Rule
	cond *bound
}

// bound is a condition over checks.
type bound struct {
	op    op
	kids  []*bound
	check int32
}

var (
	yes = &bound{op: opTrue}
	no  = &bound{op: opFalse}
)

func newProgram(kind *event.Kind) *program {
	return &program{kind: kind, byField: map[string]int32{}, byCheck: map[string]int32{}}
}

// add compiles a condition for the program's kind; false when it can never be true. missing
// takes the names of fields that the kind lacks.
func (p *program) add(r *Rule, cond *node, c *category, missing func(t *test)) bool {
	b := p.bind(cond, c, missing)
	if len(c.operations) > 0 {
		kids := make([]*bound, len(c.operations))
		for i, o := range c.operations {
			kids[i] = p.bindTest(&test{field: "operation", pattern: literalPattern(o)}, c, missing)
		}
		b = join(opAnd, []*bound{join(opOr, kids), b})
	}
	if b.op == opFalse {
		return false
	}
	n := int32(len(p.rules))
	p.rules = append(p.rules, programRule{r, b})
	guard, _ := p.guard(b)
	if guard == nil {
		p.always = append(p.always, n)
		return true
	}
	for len(p.guarded) < len(p.checks) {
		p.guarded = append(p.guarded, nil)
	}
	for _, id := range guard {
		p.guarded[id] = append(p.guarded[id], n)
	}
	return true
}

// guard returns checks of which at least one is true when b is, all found by automata; nil
// when there are none such. Longer literals are found less often by chance.
func (p *program) guard(b *bound) (ids []int32, weight int) {
	switch b.op {
	case opTest:
		if c := &p.checks[b.check]; c.scanned {
			return []int32{b.check}, c.weight
		}
	case opAnd:
		for _, k := range b.kids {
			if g, w := p.guard(k); g != nil && w > weight {
				ids, weight = g, w
			}
		}
	case opOr:
		for i, k := range b.kids {
			g, w := p.guard(k)
			if g == nil {
				return nil, 0
			}
			if ids = append(ids, g...); i == 0 || w < weight {
				weight = w
			}
		}
	}
	return ids, weight
}

// join makes an and or an or, without what is known.
func join(o op, kids []*bound) *bound {
	neutral, decisive := opTrue, no
	if o == opOr {
		neutral, decisive = opFalse, yes
	}
	var rest []*bound
	for _, k := range kids {
		switch k.op {
		case neutral:
		case decisive.op:
			return decisive
		case o:
			rest = append(rest, k.kids...)
		default:
			rest = append(rest, k)
		}
	}
	switch len(rest) {
	case 0:
		return &bound{op: neutral}
	case 1:
		return rest[0]
	}
	return &bound{op: o, kids: rest}
}

func (p *program) bind(n *node, c *category, missing func(*test)) *bound {
	switch n.op {
	case opTest:
		return p.bindTest(n.test, c, missing)
	case opNot:
		switch k := p.bind(n.kids[0], c, missing); k.op {
		case opTrue:
			return no
		case opFalse:
			return yes
		case opNot:
			return k.kids[0]
		default:
			return &bound{op: opNot, kids: []*bound{k}}
		}
	}
	kids := make([]*bound, len(n.kids))
	for i, k := range n.kids {
		kids[i] = p.bind(k, c, missing)
	}
	return join(n.op, kids)
}

// bindTest binds a test to a field of the kind. One on a field that it lacks is false,
// unless it asks whether the field is there.
func (p *program) bindTest(t *test, c *category, missing func(*test)) *bound {
	f, ok := c.find(p.kind, t.field)
	other := field{}
	if ok && t.look == lookField {
		if other, ok = c.find(p.kind, t.other); !ok {
			missing(t)
			return no
		}
	}
	if !ok {
		if t.look == lookExists {
			return known1(!t.exists)
		}
		missing(t)
		return no
	}
	k := check{test: *t, field: p.field(f), other: -1}
	if t.look == lookField {
		k.other = p.field(other)
	}
	if k.look == lookPattern {
		if f.boolean {
			k.pattern = booleanPattern(k.pattern)
		}
		k.lower = k.pattern.lower()
		if f.constant {
			text, _ := f.text(nil, nil, nil)
			return known1(anyOf(text, func(v string) bool { return k.lower.match(string(appendLower(nil, v))) }))
		}
	}
	key := f.name + "\x00" + k.key()
	id, ok := p.byCheck[key]
	if !ok {
		id = int32(len(p.checks))
		p.prefilter(&k, id)
		p.checks = append(p.checks, k)
		p.byCheck[key] = id
	}
	return &bound{op: opTest, check: id}
}

func known1(v bool) *bound {
	if v {
		return yes
	}
	return no
}

// prefilter gives the field's automaton what it can look for.
func (p *program) prefilter(k *check, id int32) {
	if k.look != lookPattern {
		return
	}
	text, form, exact := k.lower.literal()
	if !exact {
		if text, form = k.lower.longest(), anywhere; text == "" {
			return
		}
	}
	if text == "" {
		return
	}
	k.scanned, k.sure, k.weight = true, exact && !k.cased, len(text)
	if form == whole {
		k.weight += 2
	}
	f := &p.fields[k.field]
	f.literals = append(f.literals, literal{text, form, id})
}

// booleanPattern is how a rule may write true and false, as the text of a column has it.
func booleanPattern(q pattern) pattern {
	switch text, form, ok := q.literal(); {
	case !ok || form != whole:
	case text == "1" || strings.EqualFold(text, "yes"):
		return literalPattern("true")
	case text == "0" || strings.EqualFold(text, "no"):
		return literalPattern("false")
	}
	return q
}

func (p *program) field(f field) int32 {
	if i, ok := p.byField[f.name]; ok {
		return i
	}
	i := int32(len(p.fields))
	p.fields = append(p.fields, programField{field: f})
	p.byField[f.name] = i
	return i
}

// finish builds the automata.
func (p *program) finish() {
	for len(p.guarded) < len(p.checks) {
		p.guarded = append(p.guarded, nil)
	}
	for i := range p.fields {
		if f := &p.fields[i]; len(f.literals) > 0 {
			f.automaton = newAutomaton(f.literals)
			f.literals = nil
		}
	}
	p.byField, p.byCheck = nil, nil
}

// anyOf reports whether one of the strings of a list is as f says.
func anyOf(list string, f func(string) bool) bool {
	for list != "" {
		s, rest, _ := strings.Cut(list, "\x00")
		if f(s) {
			return true
		}
		list = rest
	}
	return false
}
