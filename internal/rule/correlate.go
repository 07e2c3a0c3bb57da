package rule

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/goshawk-project/goshawk/internal/event"
)

// correlationRule finds what other rules' findings have in common.
type correlationRule struct {
	rule     *Rule
	kind     string // event_count, value_count, temporal, temporal_ordered
	names    []string
	groupBy  []string
	timespan time.Duration
	bounds   []bounds
	value    string // the field whose values are counted
	aliases  map[string]map[string]string
	line     int

	members []*Rule
	index   int
}

// bounds is a comparison of a count.
type bounds struct {
	compare string
	number  int64
}

func (b bounds) holds(n int64) bool {
	switch b.compare {
	case "gt":
		return n > b.number
	case "gte":
		return n >= b.number
	case "lt":
		return n < b.number
	case "lte":
		return n <= b.number
	case "neq":
		return n != b.number
	}
	return n == b.number
}

var correlationKinds = []string{"event_count", "value_count", "temporal", "temporal_ordered"}

func (p *parsed) readCorrelation(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return faultf(n.Line, "correlation is a map")
	}
	c := &correlationRule{line: n.Line}
	p.correlation = c
	for i := 0; i+1 < len(n.Content); i += 2 {
		v := real(n.Content[i+1])
		var err error
		switch key := n.Content[i].Value; key {
		case "type":
			if c.kind, err = text(v); err == nil && !slices.Contains(correlationKinds, c.kind) {
				err = faultf(v.Line, "correlation type %q is none of %s", c.kind, strings.Join(correlationKinds, ", "))
			}
		case "rules":
			c.names, err = texts(v)
		case "group-by":
			c.groupBy, err = texts(v)
		case "timespan":
			c.timespan, err = timespan(v)
		case "generate":
			if v.Decode(&p.generate) != nil {
				err = faultf(v.Line, "generate is true or false")
			}
		case "condition":
			err = c.readCondition(v)
		case "aliases":
			err = c.readAliases(v)
		}
		if err != nil {
			return err
		}
	}
	ordered := strings.HasPrefix(c.kind, "temporal")
	switch {
	case c.kind == "":
		return faultf(n.Line, "the correlation has no type")
	case len(c.names) == 0:
		return faultf(n.Line, "the correlation names no rules")
	case len(c.names) > 64:
		return faultf(n.Line, "the correlation is over more than 64 rules")
	case c.timespan == 0:
		return faultf(n.Line, "the correlation has no timespan")
	case !ordered && len(c.bounds) == 0:
		return faultf(n.Line, "the correlation has no condition")
	case c.kind == "value_count" && c.value == "":
		return faultf(n.Line, "the condition names no field whose values to count")
	case ordered && len(c.bounds) > 0:
		return faultf(n.Line, "correlation %s is true when all its rules are; it takes no condition", c.kind)
	}
	for _, b := range c.bounds {
		// What fewer events make true is true of none, at any moment.
		if b.compare == "lt" || b.compare == "lte" || b.compare == "eq" && b.number == 0 {
			if !slices.ContainsFunc(c.bounds, func(b bounds) bool { return b.compare == "gt" || b.compare == "gte" }) {
				return faultf(n.Line, "condition %s alone is true when nothing happens, which no event tells", b.compare)
			}
		}
		if b.number > maxCounted {
			return faultf(n.Line, "condition: no more than %d are counted", maxCounted)
		}
	}
	return nil
}

func (c *correlationRule) readCondition(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return faultf(n.Line, "the condition of a correlation is a map, as {gte: 10}")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		v := real(n.Content[i+1])
		switch key := n.Content[i].Value; key {
		case "field":
			if v.Kind != yaml.ScalarNode {
				return faultf(v.Line, "values are counted of one field")
			}
			c.value = v.Value
		case "gt", "gte", "lt", "lte", "eq", "neq":
			number, err := strconv.ParseInt(v.Value, 10, 64)
			if err != nil || number < 0 {
				return faultf(v.Line, "condition %s: %q is no count", key, v.Value)
			}
			c.bounds = append(c.bounds, bounds{key, number})
		default:
			return faultf(n.Content[i].Line, "condition has no %q: field, gt, gte, lt, lte, eq, neq", key)
		}
	}
	return nil
}

func (c *correlationRule) readAliases(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return faultf(n.Line, "aliases is a map of names, each a map of rules and their fields")
	}
	c.aliases = make(map[string]map[string]string)
	for i := 0; i+1 < len(n.Content); i += 2 {
		v := real(n.Content[i+1])
		if v.Kind != yaml.MappingNode {
			return faultf(v.Line, "an alias is a map of rules and their fields")
		}
		of := make(map[string]string)
		for j := 0; j+1 < len(v.Content); j += 2 {
			of[v.Content[j].Value] = real(v.Content[j+1]).Value
		}
		c.aliases[n.Content[i].Value] = of
	}
	return nil
}

const (
	// maxGroups bounds the groups of all correlations; the one that was quiet longest goes.
	maxGroups = 4096
	// maxCounted bounds what a group remembers, the oldest going first.
	maxCounted = 10_000
	// maxSightings bounds what all groups remember together, some 20 MB.
	maxSightings = 100_000
)

// groups are what correlations have seen, by rule and values.
type groups struct {
	by map[string]*group
	// The most recently used is first.
	first, last *group
	sightings   int // of all groups
}

type group struct {
	key        string
	prev, next *group
	seen       []sighting     // oldest first
	values     map[string]int // how many of seen have which value, of those that have one
}

// sighting is a finding that a correlation counts.
type sighting struct {
	at       time.Duration
	member   int
	value    string
	evidence string
	eid      int64
}

func (g *groups) of(key []byte) (x *group, evicted bool) {
	if x := g.by[string(key)]; x != nil {
		g.unlink(x)
		g.link(x)
		return x, false
	}
	if g.by == nil {
		g.by = make(map[string]*group)
	}
	if len(g.by) >= maxGroups {
		evicted = len(g.last.seen) > 0
		g.drop(g.last)
	}
	x = &group{key: string(key)}
	g.by[x.key] = x
	g.link(x)
	return x, evicted
}

func (g *groups) drop(x *group) {
	g.forget(x, len(x.seen))
	delete(g.by, x.key)
	g.unlink(x)
}

// forget lets the oldest n sightings of a group go.
func (g *groups) forget(x *group, n int) {
	for _, s := range x.seen[:n] {
		if s.value == "" {
			continue
		}
		if x.values[s.value]--; x.values[s.value] == 0 {
			delete(x.values, s.value)
		}
	}
	clear(x.seen[:n])
	x.seen = x.seen[n:]
	g.sightings -= n
}

// add keeps a sighting in a group, in order of time, and lets those before since go; it returns
// how many went for want of room.
func (g *groups) add(x *group, s sighting, since time.Duration) (evicted int) {
	old := 0
	for old < len(x.seen) && x.seen[old].at < since {
		old++
	}
	g.forget(x, old)
	if len(x.seen) >= maxCounted {
		g.forget(x, 1)
		evicted++
	}
	for g.sightings >= maxSightings {
		if g.last == x {
			evicted++
			g.forget(x, 1)
			continue
		}
		evicted += len(g.last.seen)
		g.drop(g.last)
	}
	i := len(x.seen)
	for i > 0 && x.seen[i-1].at > s.at {
		i--
	}
	x.seen = slices.Insert(x.seen, i, s)
	g.sightings++
	if s.value != "" {
		if x.values == nil {
			x.values = make(map[string]int)
		}
		x.values[s.value]++
	}
	return evicted
}

func (g *groups) link(x *group) {
	x.prev, x.next = nil, g.first
	if g.first != nil {
		g.first.prev = x
	}
	if g.first = x; g.last == nil {
		g.last = x
	}
}

func (g *groups) unlink(x *group) {
	if x.prev != nil {
		x.prev.next = x.next
	} else {
		g.first = x.next
	}
	if x.next != nil {
		x.next.prev = x.prev
	} else {
		g.last = x.prev
	}
}

// correlate tells a correlation of a finding of one of its rules. One that comes true raises
// its alert, and begins anew.
func (en *Engine) correlate(c *correlationRule, r *Rule, e event.Event) {
	key := strconv.AppendInt(nil, int64(c.index), 10)
	for _, name := range c.groupBy {
		text, ok := en.now.fieldOf(r, e, c.fieldName(name, r), en)
		if !ok {
			return // an event without the field belongs to no group
		}
		key = append(append(key, 0), text...)
	}
	x, evicted := en.groups.of(key)
	if evicted {
		en.counts.evicted++
	}
	now := timeOf(e)
	s := sighting{at: now, member: slices.Index(c.members, r)}
	if c.kind == "value_count" {
		text, ok := en.now.fieldOf(r, e, c.fieldName(c.value, r), en)
		if !ok {
			return
		}
		s.value = strings.Clone(text)
	}
	s.evidence, s.eid = string(appendEvidence(nil, e)), e.Head().EID
	en.counts.evicted += uint64(en.groups.add(x, s, now-c.timespan))
	if !c.holds(x) {
		return
	}
	en.evidence = append(en.evidence[:0], '[')
	var proof []int64
	for i, s := range x.seen[max(0, len(x.seen)-maxEvidence):] {
		if i > 0 {
			en.evidence = append(en.evidence, ',')
		}
		en.evidence = append(en.evidence, s.evidence...)
		proof = append(proof, s.eid)
	}
	en.groups.forget(x, len(x.seen))
	en.alert(c.rule, e, append(en.evidence, ']'), proof...)
	for _, outer := range en.now.of[c.rule] {
		en.correlate(outer, c.rule, e)
	}
}

// holds reports whether what a group has seen makes the correlation true.
func (c *correlationRule) holds(x *group) bool {
	switch c.kind {
	case "event_count":
		return c.within(int64(len(x.seen)))
	case "value_count":
		return c.within(int64(len(x.values)))
	case "temporal":
		var members uint64
		for _, s := range x.seen {
			members |= 1 << s.member
		}
		return members == 1<<len(c.members)-1
	}
	next := 0 // of temporal_ordered
	for _, s := range x.seen {
		if next < len(c.members) && s.member == next {
			next++
		}
	}
	return next == len(c.members)
}

func (c *correlationRule) within(n int64) bool {
	for _, b := range c.bounds {
		if !b.holds(n) {
			return false
		}
	}
	return true
}

// fieldName is what a rule calls a field of the correlation.
func (c *correlationRule) fieldName(name string, r *Rule) string {
	of, ok := c.aliases[name]
	if !ok {
		return name
	}
	if f, ok := of[r.Name]; ok && r.Name != "" {
		return f
	}
	return of[r.ID]
}
