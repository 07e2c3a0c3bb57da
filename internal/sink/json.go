package sink

import (
	"strconv"
	"unsafe"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// JSON writes events as event.AppendJSON does, one a line, in a fraction of its time.
//
// An event has some fifty cells, each behind three function values. So where cells lie is
// found once, as the store does it. And most of them say which process acted: what was
// written of a process is kept, and copied when it acts again. A JSON belongs to the
// goroutine that encodes.
type JSON struct {
	kinds  [event.MaxKind + 1]*template
	shared []cell // of every kind, from source on
	actors [64]actor

	second int64 // of which date is the text
	date   []byte
}

// template is what to write of a kind.
type template struct {
	is    func(event.Event) bool
	open  string // `{"kind":"exec","time":"`
	cells []cell // its own
}

// actor is a header without what differs from event to event, and what was written of it.
type actor struct {
	head event.Header
	text []byte
}

// maxActor bounds the text kept of a header: longer ones, with their long paths, are rare.
const maxActor = 1024

// form is how a cell is read and written.
type form uint8

const (
	computed form = iota // by the column itself
	plainText
	list
	raw
	boolean
	wide // 64 bits; above 1<<63 it is negative, as in SQL
	signed32
	unsigned32
	unsigned16
	process // an identity: its pid lies at one place, its start at the other
)

// cell is one column: its key, and where it lies from the start of the event.
type cell struct {
	key     string // `,"name":`
	form    form
	omit    bool // when it holds unknown
	at      uint16
	start   uint16 // of a process
	unknown int64
	column  *event.Column
}

// NewJSON returns an encoder of every kind.
func NewJSON() *JSON {
	j := &JSON{}
	for _, k := range event.Kinds {
		e := k.New()
		t := &template{is: k.Is, open: `{"kind":"` + k.Name + `","time":"`}
		for i := range k.Columns {
			c := &k.Columns[i]
			switch {
			case c.Has(schema.Internal):
			case i >= event.Shared:
				t.cells = append(t.cells, cellOf(k, c, e))
			case c.Name == "kind" || c.Name == "time" || c.Name == "ntime" || c.Name == "eid": // the first, written apart
			case k == event.Kinds[0]:
				j.shared = append(j.shared, cellOf(k, c, e))
			}
		}
		j.kinds[k.ID] = t
	}
	return j
}

// cellOf finds the cell of a column of k in events like e. Reading it from another is safe
// because Append asks whether that is of the kind's type.
func cellOf(k *event.Kind, c *event.Column, e event.Event) cell {
	x := cell{key: `,"` + c.Name + `":`, column: c}
	x.unknown, x.omit = c.Unknown()
	from := func(p unsafe.Pointer) uint16 { return uint16(uintptr(p) - uintptr(unsafe.Pointer(e.Head()))) }
	if len(c.Uses) == 3 && c.Uses[2] == "boot_id" { // the identity of a process
		pid, ok := k.Column(c.Uses[0]).At(e).(*uint32)
		start, ok2 := k.Column(c.Uses[1]).At(e).(*uint64)
		if ok && ok2 {
			x.form, x.at, x.start = process, from(unsafe.Pointer(pid)), from(unsafe.Pointer(start))
		}
		return x
	}
	if c.At == nil || c.Form == schema.Timestamp || c.Type == schema.UnsignedBigInt {
		return x
	}
	set := func(f form, p unsafe.Pointer) { x.form, x.at = f, from(p) }
	switch p := c.At(e).(type) {
	case *string:
		forms := map[schema.Form]form{schema.Plain: plainText, schema.List: list, schema.JSON: raw}
		set(forms[c.Form], unsafe.Pointer(p))
	case *bool:
		set(boolean, unsafe.Pointer(p))
	case *uint64:
		set(wide, unsafe.Pointer(p))
	case *int64:
		set(wide, unsafe.Pointer(p))
	case *uint32:
		set(unsigned32, unsafe.Pointer(p))
	case *int32:
		set(signed32, unsafe.Pointer(p))
	case *uint16:
		set(unsigned16, unsafe.Pointer(p))
	}
	return x
}

// Append is the Encoder.
func (j *JSON) Append(dst []byte, e event.Event) []byte {
	h := e.Head()
	if h.Kind > event.MaxKind || j.kinds[h.Kind] == nil || !j.kinds[h.Kind].is(e) {
		return append(event.AppendJSON(dst, e), '\n')
	}
	t := j.kinds[h.Kind]
	dst = append(dst, t.open...)
	dst = j.appendTime(dst, h.Time)
	dst = strconv.AppendInt(append(dst, `","ntime":`...), int64(h.NTime), 10)
	dst = strconv.AppendInt(append(dst, `,"eid":`...), h.EID, 10)
	dst = j.appendActor(dst, h)
	for i := range t.cells {
		dst = t.cells[i].append(dst, e, h)
	}
	return append(dst, "}\n"...)
}

// appendTime appends a time, of which the date and the second seldom change.
func (j *JSON) appendTime(dst []byte, ns int64) []byte {
	second := ns / 1e9
	if ns < 0 || second != j.second || len(j.date) == 0 {
		start := len(dst)
		dst = schema.AppendTime(dst, ns)
		if ns >= 0 { // below, division rounds the other way
			j.second, j.date = second, append(j.date[:0], dst[start:len(dst)-len("000000000Z")]...)
		}
		return dst
	}
	dst = append(dst, j.date...)
	fraction := uint32(ns - second*1e9)
	var b [10]byte
	for i := 8; i >= 0; i-- {
		b[i] = '0' + byte(fraction%10)
		fraction /= 10
	}
	b[9] = 'Z'
	return append(dst, b[:]...)
}

// appendActor appends the columns that tell of the process.
func (j *JSON) appendActor(dst []byte, h *event.Header) []byte {
	key := *h
	key.Kind, key.EID, key.Time, key.NTime = 0, 0, 0, 0
	a := &j.actors[(h.PID*0x9e3779b1+h.TID*0x85ebca77)>>26] // 64 of them
	if a.head == key && len(a.text) > 0 {
		return append(dst, a.text...)
	}
	start := len(dst)
	for i := range j.shared {
		dst = j.shared[i].append(dst, h, h)
	}
	if len(dst)-start <= maxActor {
		a.head, a.text = key, append(a.text[:0], dst[start:]...)
	}
	return dst
}

// append appends the cell of e, whose header is h.
func (c *cell) append(dst []byte, e event.Event, h *event.Header) []byte {
	p := unsafe.Add(unsafe.Pointer(h), c.at)
	var n int64
	switch c.form {
	case plainText:
		if s := *(*string)(p); s != "" {
			return schema.AppendString(append(dst, c.key...), s)
		}
		return dst
	case unsigned32:
		n = int64(*(*uint32)(p))
	case wide:
		n = *(*int64)(p)
	case unsigned16:
		n = int64(*(*uint16)(p))
	case signed32:
		n = int64(*(*int32)(p))
	case boolean:
		switch {
		case *(*bool)(p):
			return append(append(dst, c.key...), "true"...)
		case c.omit && c.unknown == 0:
			return dst
		}
		return append(append(dst, c.key...), "false"...)
	case list, raw:
		s := *(*string)(p)
		switch {
		case s == "":
			return dst
		case c.form == list:
			return schema.AppendList(append(dst, c.key...), s)
		}
		return append(append(dst, c.key...), s...)
	case process:
		pid, start := *(*uint32)(p), *(*uint64)(unsafe.Add(unsafe.Pointer(h), c.start))
		if start == 0 || pid == 0 {
			return dst
		}
		if hexadecimal(h.BootID) {
			dst = append(append(dst, c.key...), '"')
			return append(event.AppendProcessID(dst, h.BootID, pid, start), '"')
		}
		return c.compute(dst, e) // no boot's identity: let it be escaped
	default:
		return c.compute(dst, e)
	}
	if c.omit && n == c.unknown {
		return dst
	}
	return strconv.AppendInt(append(dst, c.key...), n, 10)
}

// compute appends the cell by way of its column.
func (c *cell) compute(dst []byte, e event.Event) []byte {
	before := len(dst)
	if dst = c.column.AppendJSON(append(dst, ','), e); len(dst) == before+1 {
		return dst[:before]
	}
	return dst
}

func hexadecimal(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
