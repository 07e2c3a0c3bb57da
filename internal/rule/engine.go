package rule

import (
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Options of an engine.
type Options struct {
	// User names a user; nil, or "", where none is known.
	User func(uid uint32) string
}

// Engine matches events against the rules it follows. It belongs to the goroutine that calls
// Match, but for Follow and Rules.
type Engine struct {
	opt Options
	set atomic.Pointer[Set]

	// What follows belongs to Match.
	now      *Set // whose state the rest is
	turn     uint32
	states   [event.MaxKind + 1]state
	names    names
	limits   map[string]*limit
	order    []string // keys of limits, the oldest first
	groups   groups
	alerts   []event.Event
	evidence []byte
	found    []*Rule
	counts   counts
}

// state is what is known of the present event.
type state struct {
	cells   []cell
	hit     []uint32 // by check: the turn in which the automaton found it
	memo    []uint32 // by check: turn<<1 | its answer, of those asked
	tried   []uint32 // by rule: the turn in which it was a candidate
	rules   []int32  // candidates
	program *program
}

// cell is a field of the present event.
type cell struct {
	turn     uint32
	lowTurn  uint32
	text     string
	low      string
	buf      []byte
	lowBytes []byte
}

// NewEngine returns an engine that follows set.
func NewEngine(set *Set, opt Options) *Engine {
	en := &Engine{opt: opt, limits: make(map[string]*limit)}
	en.Follow(set)
	return en
}

// Follow has the engine follow other rules from the next event on. What correlations had
// counted is forgotten. It may be called by any goroutine.
func (en *Engine) Follow(set *Set) { en.set.Store(set) }

// Rules are those followed. It may be called by any goroutine.
func (en *Engine) Rules() *Set { return en.set.Load() }

// Match returns the alerts that e raises, valid until the next call. Without any it
// allocates nothing.
func (en *Engine) Match(e event.Event) []event.Event {
	if set := en.set.Load(); set != en.now {
		en.take(set)
	}
	en.alerts = en.alerts[:0]
	h := e.Head()
	if h.Kind > event.MaxKind {
		return nil
	}
	if en.now.wantsNames {
		if d, ok := e.(*event.DNS); ok {
			en.names.learn(d)
		}
	}
	s := &en.states[h.Kind]
	if s.program == nil {
		return nil
	}
	if en.turn++; en.turn >= 1<<31 {
		en.forgetTurns()
	}
	en.run(s, e)
	for _, r := range en.found {
		en.raise(r, e)
	}
	return en.alerts
}

// take begins to follow a set.
func (en *Engine) take(set *Set) {
	en.now = set
	en.turn = 0
	en.groups = groups{}
	for kind := range en.states {
		p := set.programs[kind]
		en.states[kind] = state{}
		if p != nil {
			en.states[kind] = state{
				program: p, cells: make([]cell, len(p.fields)), hit: make([]uint32, len(p.checks)),
				memo: make([]uint32, len(p.checks)), tried: make([]uint32, len(p.rules)),
			}
		}
	}
}

// forgetTurns begins to count anew.
func (en *Engine) forgetTurns() {
	en.turn = 1
	for i := range en.states {
		s := &en.states[i]
		clear(s.hit)
		clear(s.memo)
		clear(s.tried)
		for j := range s.cells {
			s.cells[j].turn, s.cells[j].lowTurn = 0, 0
		}
	}
}

// run leaves the rules that are true of e in en.found.
func (en *Engine) run(s *state, e event.Event) {
	en.found = en.found[:0]
	s.rules = append(s.rules[:0], s.program.always...)
	for i := range s.program.fields {
		f := &s.program.fields[i]
		if f.automaton == nil {
			continue
		}
		text := en.text(s, int32(i), e)
		if !ascii(text) {
			text = en.low(s, int32(i), e)
		}
		hit := func(id int32) {
			if s.hit[id] == en.turn {
				return
			}
			s.hit[id] = en.turn
			for _, r := range s.program.guarded[id] {
				if s.tried[r] != en.turn {
					s.tried[r] = en.turn
					s.rules = append(s.rules, r)
				}
			}
		}
		if !f.list {
			f.automaton.scan(text, hit)
			continue
		}
		for start, i := 0, 0; i < len(text); i++ {
			if text[i] == 0 {
				f.automaton.scan(text[start:i], hit)
				start = i + 1
			} else if i == len(text)-1 {
				f.automaton.scan(text[start:], hit)
			}
		}
	}
	for _, n := range s.rules {
		if r := &s.program.rules[n]; en.holds(s, r.cond, e) {
			en.found = append(en.found, r.rule)
		}
	}
}

// text is a field of e.
func (en *Engine) text(s *state, i int32, e event.Event) string {
	c := &s.cells[i]
	if c.turn != en.turn {
		c.turn = en.turn
		c.text, c.buf = s.program.fields[i].text(en, c.buf, e)
	}
	return c.text
}

// low is the same in lower case.
func (en *Engine) low(s *state, i int32, e event.Event) string {
	text := en.text(s, i, e)
	c := &s.cells[i]
	if c.lowTurn != en.turn {
		c.lowTurn = en.turn
		c.lowBytes = appendLower(c.lowBytes[:0], text)
		c.low = view(c.lowBytes)
	}
	return c.low
}

// holds reports whether a condition is true of e.
func (en *Engine) holds(s *state, b *bound, e event.Event) bool {
	switch b.op {
	case opTrue:
		return true
	case opAnd:
		for _, k := range b.kids {
			if !en.holds(s, k, e) {
				return false
			}
		}
		return true
	case opOr:
		for _, k := range b.kids {
			if en.holds(s, k, e) {
				return true
			}
		}
		return false
	case opNot:
		return !en.holds(s, b.kids[0], e)
	case opTest:
		c := &s.program.checks[b.check]
		if c.scanned && (c.sure || s.hit[b.check] != en.turn) {
			return s.hit[b.check] == en.turn
		}
		if m := s.memo[b.check]; m>>1 == en.turn {
			return m&1 != 0
		}
		ok := en.ask(s, c, e)
		s.memo[b.check] = en.turn << 1
		if ok {
			s.memo[b.check] |= 1
		}
		return ok
	}
	return false
}

// ask asks what no automaton knows.
func (en *Engine) ask(s *state, c *check, e event.Event) bool {
	text := en.text(s, c.field, e)
	if c.look == lookExists {
		return (text != "") == c.exists
	}
	if c.look == lookPattern && !c.cased {
		text = en.low(s, c.field, e)
	}
	if !s.program.fields[c.field].list {
		return en.fits(s, c, text, e)
	}
	if text == "" {
		return false
	}
	return anyOf(text, func(v string) bool { return en.fits(s, c, v, e) })
}

// fits reports whether one value is as a check wants it.
func (en *Engine) fits(s *state, c *check, text string, e event.Event) bool {
	switch c.look {
	case lookPattern:
		if c.cased {
			return c.pattern.match(text)
		}
		return c.lower.match(text)
	case lookRegexp:
		return c.regexp.MatchString(text)
	case lookCompare:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return false
		}
		switch c.compare {
		case "gt":
			return n > c.number
		case "gte":
			return n >= c.number
		case "lt":
			return n < c.number
		}
		return n <= c.number
	case lookNetwork:
		a, err := netip.ParseAddr(text)
		return err == nil && c.network.Contains(a.Unmap())
	case lookField:
		other := en.text(s, c.other, e)
		return text != "" && other != "" && equalAt(text, other, c.form, c.cased)
	}
	return false
}

// equalAt reports whether other stands in text where form says.
func equalAt(text, other string, f form, cased bool) bool {
	if !cased {
		text, other = string(appendLower(nil, text)), string(appendLower(nil, other))
	}
	q := literalPattern(other).open(f == anywhere || f == atEnd, f == anywhere || f == atStart)
	return q.match(text)
}

// nameBound is how many addresses keep the name they were found by.
const nameBound = 8192

// names are what addresses were found by: the questions of which they were answers.
type names struct {
	by  map[string]string
	old []string // addresses, the oldest first
}

func (n *names) learn(d *event.DNS) {
	if d.Answers == "" || d.Question == "" {
		return
	}
	anyOf(d.Answers, func(answer string) bool {
		if a, err := netip.ParseAddr(answer); err == nil {
			n.put(a.Unmap().String(), d.Question)
		}
		return false
	})
}

func (n *names) put(address, name string) {
	if n.by == nil {
		n.by = make(map[string]string)
	}
	if _, ok := n.by[address]; !ok {
		if len(n.old) == nameBound {
			delete(n.by, n.old[0])
			n.old = append(n.old[:0], n.old[1:]...)
		}
		n.old = append(n.old, address)
	}
	n.by[address] = string([]byte(name)) // the event's own text goes with it
}

func (n *names) of(address string) string { return n.by[address] }

// timeOf is when an event happened.
func timeOf(e event.Event) time.Duration { return time.Duration(e.Head().NTime) }
