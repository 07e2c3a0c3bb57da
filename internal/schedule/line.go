package schedule

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/state"
)

// Log lines are osquery 5.23.1's to the byte: what writes them there is rapidjson, with keys in
// the order in which they were added (osquery/core/query.cpp).

// Format says how log lines look, by osquery's flags.
type Format struct {
	Events         bool   // a line for each row, not for each run (logger_event_type)
	SnapshotEvents bool   // likewise for snapshots (logger_snapshot_event_type)
	Numerics       bool   // numbers as numbers (logger_numerics)
	TopLevel       bool   // decorations among the other keys (decorations_top_level)
	Null           string // text for NULL (nullvalue)
}

// Head is what all lines of a run begin with.
type Head struct {
	Name, Host     string
	Time           time.Time
	Epoch, Counter uint64
	Decorations    []state.Pair // sorted by key
}

// member is a key of a line with its value in JSON. The value of some comes later.
type member struct{ name, value string }

// members are the keys of a line in their order.
type members []member

// add appends a key as rapidjson does after removing it: the last key then takes its place.
func (m members) add(name, value string) members {
	for i := range m {
		if m[i].name == name {
			m[i] = m[len(m)-1]
			m = m[:len(m)-1]
			break
		}
	}
	return append(m, member{name, value})
}

// head appends the keys of h.
func (m members) head(h *Head, f *Format) members {
	m = m.add("name", quoted(h.Name)).add("hostIdentifier", quoted(h.Host)).
		add("calendarTime", quoted(CalendarTime(h.Time))).add("unixTime", strconv.FormatInt(h.Time.Unix(), 10)).
		add("epoch", strconv.FormatUint(h.Epoch, 10)).add("counter", strconv.FormatUint(h.Counter, 10)).
		add("numerics", strconv.FormatBool(f.Numerics))
	if len(h.Decorations) == 0 {
		return m
	}
	if f.TopLevel {
		for _, d := range h.Decorations {
			m = m.add(d.Key, quoted(d.Value))
		}
		return m
	}
	return m.add("decorations", string(AppendDecorations(nil, h.Decorations)))
}

// AppendDecorations appends decorations as an object.
func AppendDecorations(dst []byte, decorations []state.Pair) []byte {
	dst = append(dst, '{')
	for i, d := range decorations {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, d.Key), ':')
		dst = AppendString(dst, d.Value)
	}
	return append(dst, '}')
}

// write appends the keys; where a value is missing it calls fill.
func (m members) write(dst []byte, fill func(dst []byte, name string) []byte) []byte {
	dst = append(dst, '{')
	for i := range m {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, m[i].name), ':')
		if m[i].value == "" {
			dst = fill(dst, m[i].name)
		} else {
			dst = append(dst, m[i].value...)
		}
	}
	return append(dst, '}', '\n')
}

// split returns what stands before, between and after the values that are missing.
func (m members) split() []string {
	const gap = "\x00"
	return strings.Split(string(m.write(nil, func(dst []byte, _ string) []byte { return append(dst, gap...) })), gap)
}

// eventLine returns a function that appends the line of one row, whose columns are JSON
// already.
func eventLine(h *Head, f *Format, action string) func(dst, columns []byte) []byte {
	parts := members(nil).head(h, f).add("columns", "").add("action", quoted(action)).split()
	return func(dst, columns []byte) []byte {
		return append(append(append(dst, parts[0]...), columns...), parts[1]...)
	}
}

// AppendEvent appends the line of one row that has come about, as a query of the schedule called
// h.Name would log it.
func AppendEvent(dst []byte, h *Head, f *Format, names []string, row []schema.Value) []byte {
	l := newLayout(names)
	return eventLine(h, f, "added")(dst, l.columns(nil, row, f))
}

// diffLine returns what a line for a whole run has before its removed rows, between them and
// those added, and after these.
func diffLine(h *Head, f *Format) (before, between, after string) {
	parts := members(nil).add("diffResults", "").head(h, f).split()
	return parts[0] + `{"removed":[`, `],"added":[`, `]}` + parts[1]
}

// snapshotLine returns what a line for a whole snapshot has before and after its rows.
func snapshotLine(h *Head, f *Format) (before, after string) {
	parts := members(nil).add("snapshot", "").add("action", `"snapshot"`).head(h, f).split()
	return parts[0] + "[", "]" + parts[1]
}

// CalendarTime is asctime(3) in UTC, as osquery writes it.
func CalendarTime(t time.Time) string { return t.UTC().Format("Mon Jan _2 15:04:05 2006 UTC") }

// layout is the order in which a statement's columns are written: by name, and of columns
// with one name the last, since osquery's rows are maps.
type layout struct {
	names []string // of the columns written
	keys  []string // `"name":`
	index []int    // in the statement
}

func newLayout(names []string) layout {
	last := make(map[string]int, len(names))
	for i, n := range names {
		last[n] = i
	}
	var l layout
	for n := range last {
		l.names = append(l.names, n)
	}
	slices.Sort(l.names)
	for _, n := range l.names {
		l.keys = append(l.keys, quoted(n)+":")
		l.index = append(l.index, last[n])
	}
	return l
}

// columns appends a row as an object.
func (l *layout) columns(dst []byte, row []schema.Value, f *Format) []byte {
	dst = append(dst, '{')
	for i, key := range l.keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, key...)
		dst = appendCell(dst, row[l.index[i]], f)
	}
	return append(dst, '}')
}

func appendCell(dst []byte, v schema.Value, f *Format) []byte {
	switch v.Kind() {
	case schema.KindInt:
		if f.Numerics {
			return strconv.AppendInt(dst, v.Int(), 10)
		}
		return append(strconv.AppendInt(append(dst, '"'), v.Int(), 10), '"')
	case schema.KindFloat:
		if f.Numerics {
			return appendFloat(dst, v.Float())
		}
		return append(AppendFloatText(append(dst, '"'), v.Float()), '"')
	case schema.KindNull:
		return AppendString(dst, f.Null)
	}
	return AppendString(dst, v.Text())
}

// CellText is a cell as text, as osquery's rows have it.
func CellText(v schema.Value, null string) string {
	switch v.Kind() {
	case schema.KindFloat:
		return string(AppendFloatText(nil, v.Float()))
	case schema.KindNull:
		return null
	}
	return v.Text()
}

// AppendFloatText appends f as boost::lexical_cast writes it: with 17 digits as C's %g
// does; ".0" is appended where there is no point, even after an exponent.
func AppendFloatText(dst []byte, f float64) []byte {
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'g', 17, 64)
	for _, b := range dst[start:] {
		if b == '.' {
			return dst
		}
	}
	return append(dst, ".0"...)
}

// appendFloat appends f as rapidjson's dtoa does: the shortest digits that stand for f, without an
// exponent from 1e-6 up to 1e21.
func appendFloat(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, "null"...) // JSON has no word for them
	}
	if f < 0 || f == 0 && math.Signbit(f) {
		dst, f = append(dst, '-'), -f
	}
	text := strconv.AppendFloat(make([]byte, 0, 32), f, 'e', -1, 64) // d.ddde±xx
	digits := make([]byte, 0, 17)
	i := 0
	for ; text[i] != 'e'; i++ {
		if text[i] != '.' {
			digits = append(digits, text[i])
		}
	}
	exponent, _ := strconv.Atoi(string(text[i+1:]))
	point := exponent + 1 // digits before the point
	switch n := len(digits); {
	case f == 0:
		return append(dst, "0.0"...)
	case n <= point && point <= 21:
		dst = append(dst, digits...)
		for range point - n {
			dst = append(dst, '0')
		}
		return append(dst, ".0"...)
	case 0 < point && point <= 21:
		dst = append(append(dst, digits[:point]...), '.')
		return append(dst, digits[point:]...)
	case -6 < point && point <= 0:
		dst = append(dst, "0."...)
		for range -point {
			dst = append(dst, '0')
		}
		return append(dst, digits...)
	}
	dst = append(dst, digits[0])
	if len(digits) > 1 {
		dst = append(append(dst, '.'), digits[1:]...)
	}
	return strconv.AppendInt(append(dst, 'e'), int64(exponent), 10)
}

const upperHex = "0123456789ABCDEF"

// escape replaces control characters and bytes that are no UTF-8 by the text \xNN, as
// osquery does before it compares rows (osquery#8777).
func escape(s string) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = s[i] >= 0x20 && s[i] < utf8.RuneSelf
	}
	if clean {
		return s
	}
	out := make([]byte, 0, len(s)+16)
	for i := 0; i < len(s); {
		if b := s[i]; b < 0x20 {
			out = append(out, '\\', 'x', upperHex[b>>4], upperHex[b&15])
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			out = append(out, '\\', 'x', upperHex[s[i]>>4], upperHex[s[i]&15])
		} else {
			out = append(out, s[i:i+n]...)
		}
		i += n
	}
	return string(out)
}

func quoted(s string) string { return string(AppendString(make([]byte, 0, len(s)+2), s)) }

// AppendString appends s as rapidjson writes a string. Bytes that are no UTF-8, which it
// would pass on and so write no JSON, become the text \xNN.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b >= 0x20 && b != '"' && b != '\\' && b < utf8.RuneSelf {
			i++
			continue
		}
		if b >= utf8.RuneSelf {
			if r, n := utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
		}
		dst = append(dst, s[start:i]...)
		switch b {
		case '"', '\\':
			dst = append(dst, '\\', b)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			if b < 0x20 {
				dst = append(dst, '\\', 'u', '0', '0', upperHex[b>>4], upperHex[b&15])
			} else {
				dst = append(dst, '\\', '\\', 'x', upperHex[b>>4], upperHex[b&15])
			}
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}
