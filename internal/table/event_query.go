package table

import (
	"math"
	"slices"
	"strconv"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// source is where a column of an event table comes from.
type source struct {
	uses []string // stored columns that it reads
	how  push     // what becomes of conditions on it
	name string   // the stored column that they are about
}

// push says how a condition on a column of a table becomes one on what is stored.
type push uint8

const (
	pushNothing push = iota
	pushInt          // the stored integer as it is
	pushEID          // likewise, and ordered
	pushEIDText      // its decimal digits, perhaps after zeros
	pushTime         // unix seconds of stored nanoseconds
)

func sourceOf(c *event.Column) source {
	s := source{uses: c.Uses}
	if len(s.uses) == 0 && c.Stored() {
		s.uses = []string{c.Name}
	}
	if len(s.uses) != 1 {
		return s
	}
	s.name = s.uses[0]
	switch {
	case s.name == "time":
		if c.Form == schema.Timestamp {
			s.how = pushTime
		}
	case s.name == "eid":
		s.how = pushEID
		if c.Int == nil {
			s.how = pushEIDText
		}
	case c.Int != nil && c.Form != schema.Timestamp:
		s.how = pushInt
	}
	return s
}

// selection is the part of q that the log can answer. It never leaves out a row that q
// wants.
func (t *eventTable) selection(q *schema.Query) event.Selection {
	s := event.Selection{Kinds: t.kinds, Columns: []string{}}
	use := func(names []string) {
		for _, n := range names {
			if !slices.Contains(s.Columns, n) {
				s.Columns = append(s.Columns, n)
			}
		}
	}
	use(t.keepUses)
	use(t.convertUses)
	use(t.splitUses)
	for i := range t.sources {
		if q.Uses(i) {
			use(t.sources[i].uses)
		}
	}
	for i := range q.Constraints {
		c := &q.Constraints[i]
		if c.Column < 0 || c.Column >= len(t.sources) {
			continue
		}
		switch from := &t.sources[c.Column]; from.how {
		case pushTime:
			narrowTime(&s, c)
		case pushEID, pushEIDText:
			narrowEID(&s, c, from.how == pushEIDText)
		case pushInt:
			if values, ok := integers(c, false); ok {
				s.Equal = append(s.Equal, event.Equal{Column: from.name, Values: values})
			}
		}
	}
	return s
}

// integers returns what c requires a column of integers to be one of; false when it does
// not say so. With digits the column holds text, of which "0042" stands for 42.
func integers(c *schema.Constraint, digits bool) ([]int64, bool) {
	var list []schema.Value
	switch c.Op {
	case schema.Eq:
		list = []schema.Value{c.Value}
	case schema.In:
		list = c.Values
	default:
		return nil, false
	}
	out := make([]int64, 0, len(list))
	for _, v := range list {
		switch {
		case v.Kind() == schema.KindInt:
			out = append(out, v.Int())
		case digits && v.Kind() == schema.KindText:
			n, err := strconv.ParseInt(v.Text(), 10, 64)
			if err != nil {
				return nil, false
			}
			out = append(out, n)
		case digits:
			return nil, false
		}
		// Other values equal no integer: SQL has made numbers of those that do.
	}
	return out, true
}

// narrowEID applies a condition on eid. Ranges of text are not ranges of numbers, unless
// who asks gives a number: that is no SQL, which compares text with text.
func narrowEID(s *event.Selection, c *schema.Constraint, digits bool) {
	if values, ok := integers(c, digits); ok {
		s.Equal = append(s.Equal, event.Equal{Column: "eid", Values: values})
		return
	}
	if c.Value.Kind() != schema.KindInt {
		return
	}
	n := c.Value.Int()
	switch c.Op {
	case schema.Ge:
		if n == math.MinInt64 {
			return
		}
		n--
		fallthrough
	case schema.Gt:
		s.AfterEID = max(s.AfterEID, n)
	case schema.Lt:
		if n == math.MinInt64 {
			return
		}
		n--
		fallthrough
	case schema.Le:
		if n > 0 && (s.MaxEID == 0 || n < s.MaxEID) { // events are numbered from 1
			s.MaxEID = n
		}
	}
}

// narrowTime applies a condition on time in unix seconds.
func narrowTime(s *event.Selection, c *schema.Constraint) {
	first, last := int64(math.MinInt64), int64(math.MaxInt64)
	switch c.Op {
	case schema.Eq, schema.In:
		values, _ := integers(c, false)
		if len(values) == 0 {
			return
		}
		first, last = slices.Min(values), slices.Max(values)
	case schema.Gt, schema.Ge, schema.Lt, schema.Le:
		if c.Value.Kind() != schema.KindInt {
			return
		}
		n := c.Value.Int()
		switch {
		case c.Op == schema.Gt && n < math.MaxInt64:
			first = n + 1
		case c.Op == schema.Ge:
			first = n
		case c.Op == schema.Lt && n > math.MinInt64:
			last = n - 1
		case c.Op == schema.Le:
			last = n
		}
	default:
		return
	}
	const second = 1_000_000_000
	if first > math.MinInt64/second && first <= math.MaxInt64/second {
		if from := first * second; s.From == 0 || from > s.From {
			s.From = from
		}
	}
	if last >= math.MinInt64/second && last < math.MaxInt64/second {
		if to := last*second + second - 1; s.To == 0 || to < s.To {
			s.To = to
		}
	}
}
