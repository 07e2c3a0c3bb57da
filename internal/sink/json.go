package sink

import (
	"strconv"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// JSON writes events as event.AppendJSON does, one a line, in about a third of its time.
//
// Of some fifty cells in an event, each is behind three function values. So each kind has
// one event here into which those that come are copied, and pointers to its cells are
// found once. And most cells hold what they held in the event before: users, groups,
// modes, and strings that the sensor keeps once; these are not written anew. A JSON
// belongs to the goroutine that encodes.
type JSON struct {
	kinds [event.MaxKind + 1]*template
}

// template is a kind's event and what to write of it.
type template struct {
	open  string // `{"kind":"exec"`
	event event.Event
	copy  func(to, from event.Event) bool
	cells []cell
}

// form is how a cell is read and written.
type form uint8

const (
	computed form = iota // by the column itself
	plainText
	list
	raw
	boolean
	signed64
	unsigned64 // above 1<<63 it is negative, as in SQL
	signed32
	unsigned32
	unsigned16
	process // an identity; pid and start are pointed to
)

// cell is one column of a template: its key and a pointer of the form's type.
type cell struct {
	key     string // `,"name":`
	form    form
	omit    bool // when it holds unknown
	unknown int64
	s       *string
	b       *bool
	u64     *uint64
	i64     *int64
	u32     *uint32
	i32     *int32
	u16     *uint16
	column  *event.Column

	// What was written for the last value, for forms that seldom change.
	written  []byte
	lastInt  int64
	lastText string
}

// maxWritten bounds the text kept of one cell.
const maxWritten = 256

// NewJSON returns an encoder of every kind.
func NewJSON() *JSON {
	j := &JSON{}
	for _, k := range event.Kinds {
		e := k.New()
		e.Head().Kind = k.ID
		t := &template{open: `{"kind":"` + k.Name + `"`, event: e, copy: k.Copy}
		for i := range k.Columns {
			if c := &k.Columns[i]; !c.Has(schema.Internal) && c.Name != "kind" {
				t.cells = append(t.cells, cellOf(k, c, e))
			}
		}
		j.kinds[k.ID] = t
	}
	return j
}

// cellOf finds the cell of a column of k in e.
func cellOf(k *event.Kind, c *event.Column, e event.Event) cell {
	x := cell{key: `,"` + c.Name + `":`, column: c}
	x.unknown, x.omit = c.Unknown()
	if len(c.Uses) == 3 && c.Uses[2] == "boot_id" { // the identity of a process
		x.form, x.s = process, &e.Head().BootID
		x.u32, _ = k.Column(c.Uses[0]).At(e).(*uint32)
		x.u64, _ = k.Column(c.Uses[1]).At(e).(*uint64)
		if x.u32 == nil || x.u64 == nil {
			x.form = computed
		}
		return x
	}
	if c.At == nil || c.Form == schema.Timestamp || c.Type == schema.UnsignedBigInt {
		return x
	}
	switch p := c.At(e).(type) {
	case *string:
		x.s = p
		switch c.Form {
		case schema.Plain:
			x.form = plainText
		case schema.List:
			x.form = list
		case schema.JSON:
			x.form = raw
		}
	case *bool:
		x.form, x.b = boolean, p
	case *uint64:
		x.form, x.u64 = unsigned64, p
	case *int64:
		x.form, x.i64 = signed64, p
	case *uint32:
		x.form, x.u32 = unsigned32, p
	case *int32:
		x.form, x.i32 = signed32, p
	case *uint16:
		x.form, x.u16 = unsigned16, p
	}
	return x
}

// Append is the Encoder.
func (j *JSON) Append(dst []byte, e event.Event) []byte {
	kind := e.Head().Kind
	if int(kind) >= len(j.kinds) || j.kinds[kind] == nil || !j.kinds[kind].copy(j.kinds[kind].event, e) {
		return append(event.AppendJSON(dst, e), '\n')
	}
	t := j.kinds[kind]
	dst = append(dst, t.open...)
	for i := range t.cells {
		dst = t.cells[i].append(dst, e)
	}
	return append(dst, "}\n"...)
}

func (c *cell) append(dst []byte, e event.Event) []byte {
	var n int64
	switch c.form {
	case plainText, list, raw:
		return c.appendText(dst)
	case boolean:
		switch {
		case *c.b:
			return append(append(dst, c.key...), "true"...)
		case c.omit && c.unknown == 0:
			return dst
		}
		return append(append(dst, c.key...), "false"...)
	case process:
		if *c.u64 == 0 || *c.u32 == 0 {
			return dst
		}
		if !hexadecimal(*c.s) {
			break // no boot's identity: let it be escaped
		}
		dst = append(append(dst, c.key...), '"')
		return append(event.AppendProcessID(dst, *c.s, *c.u32, *c.u64), '"')
	case signed64:
		n = *c.i64
	case unsigned64:
		n = int64(*c.u64)
	case signed32:
		return c.appendSteady(dst, int64(*c.i32))
	case unsigned32:
		return c.appendSteady(dst, int64(*c.u32))
	case unsigned16:
		return c.appendSteady(dst, int64(*c.u16))
	}
	switch c.form {
	case computed, process:
		before := len(dst)
		if dst = c.column.AppendJSON(append(dst, ','), e); len(dst) == before+1 {
			return dst[:before]
		}
		return dst
	}
	if c.omit && n == c.unknown {
		return dst
	}
	return strconv.AppendInt(append(dst, c.key...), n, 10)
}

func hexadecimal(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// appendSteady writes a number that is likely to be the one before.
func (c *cell) appendSteady(dst []byte, n int64) []byte {
	if n == c.lastInt && len(c.written) > 0 {
		return append(dst, c.written...)
	}
	if c.omit && n == c.unknown {
		return dst
	}
	start := len(dst)
	dst = strconv.AppendInt(append(dst, c.key...), n, 10)
	c.lastInt, c.written = n, append(c.written[:0], dst[start:]...)
	return dst
}

func (c *cell) appendText(dst []byte) []byte {
	s := *c.s
	switch {
	case s == "":
		return dst
	case c.form == list:
		return schema.AppendList(append(dst, c.key...), s)
	case c.form == raw:
		return append(append(dst, c.key...), s...)
	case s == c.lastText: // for a string kept once, a comparison of pointers
		return append(dst, c.written...)
	}
	start := len(dst)
	dst = schema.AppendString(append(dst, c.key...), s)
	if len(dst)-start <= maxWritten {
		c.lastText, c.written = s, append(c.written[:0], dst[start:]...)
	}
	return dst
}
