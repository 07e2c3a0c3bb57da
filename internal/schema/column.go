package schema

import (
	"strconv"
	"unicode/utf8"
)

// Column is one column over rows of type T: its definition and how its cell is read.
//
// A stored column (made by Str, Int, Bool, Strings, Raw, Time) also says how its cell is
// written, so that the event store can keep it; a computed one (Calc) is derived from
// others whenever it is asked for.
type Column[T any] struct {
	ColumnDef
	// Value reads the SQL cell.
	Value func(T) Value
	// Uses names the stored native columns that a computed column reads.
	Uses []string

	// Exactly one pair of these is set on a stored column.
	Int    func(T) int64
	SetInt func(T, int64)
	Str    func(T) string
	SetStr func(T, string)

	// At points to the cell of a stored column, a string, bool or integer in the row. It
	// is for planning: what is done for every row should not go through any.
	At func(T) any
}

// Stored reports whether the store keeps this column.
func (c *Column[T]) Stored() bool { return c.Int != nil || c.Str != nil }

type integer interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

func def(name string, t Type, f Form, doc string, flags []Flag) ColumnDef {
	d := ColumnDef{Name: name, Type: t, Form: f, Doc: doc, key: string(append(AppendString(nil, name), ':'))}
	for _, x := range flags {
		d.Flags |= x
	}
	return d
}

// Str is a TEXT column kept in the string that at points to.
func Str[T any](name string, at func(T) *string, doc string, flags ...Flag) Column[T] {
	return Column[T]{
		ColumnDef: def(name, Text, Plain, doc, flags),
		Value:     func(r T) Value { return TextValue(*at(r)) },
		Str:       func(r T) string { return *at(r) },
		SetStr:    func(r T, s string) { *at(r) = s },
		At:        func(r T) any { return at(r) },
	}
}

// Strings is a column kept as strings that each end in a NUL byte; see List.
func Strings[T any](name string, at func(T) *string, doc string, flags ...Flag) Column[T] {
	c := Str(name, at, doc, flags...)
	c.Form = List
	c.Value = func(r T) Value { return TextValue(string(AppendList(nil, *at(r)))) }
	return c
}

// Raw is a TEXT column whose string is JSON already.
func Raw[T any](name string, at func(T) *string, doc string, flags ...Flag) Column[T] {
	c := Str(name, at, doc, flags...)
	c.Form = JSON
	return c
}

// Int is a BIGINT column kept in the integer that at points to.
func Int[T any, N integer](name string, at func(T) *N, doc string, flags ...Flag) Column[T] {
	c := Column[T]{
		ColumnDef: def(name, BigInt, Plain, doc, flags),
		Value:     func(r T) Value { return IntValue(int64(*at(r))) },
		Int:       func(r T) int64 { return int64(*at(r)) },
		SetInt:    func(r T, n int64) { *at(r) = N(n) },
		At:        func(r T) any { return at(r) },
	}
	if c.omits = c.Has(OmitZero) || c.Has(OmitUnset); c.omits {
		if c.Has(OmitUnset) {
			c.unknown = int64(^N(0))
		}
		unknown := c.unknown
		c.Value = func(r T) Value {
			if n := int64(*at(r)); n != unknown {
				return IntValue(n)
			}
			return Null
		}
	}
	return c
}

// Bool is a column of 0 and 1 kept in the bool that at points to.
func Bool[T any](name string, at func(T) *bool, doc string, flags ...Flag) Column[T] {
	get := func(r T) int64 {
		if *at(r) {
			return 1
		}
		return 0
	}
	return Column[T]{
		ColumnDef: def(name, Integer, Boolean, doc, flags),
		Value:     func(r T) Value { return IntValue(get(r)) },
		Int:       get,
		SetInt:    func(r T, n int64) { *at(r) = n != 0 },
		At:        func(r T) any { return at(r) },
	}
}

// Time is a column kept in unix nanoseconds; see Timestamp.
func Time[T any](name string, at func(T) *int64, doc string, flags ...Flag) Column[T] {
	c := Int(name, at, doc, flags...)
	c.Form = Timestamp
	c.Value = func(r T) Value { return IntValue(floorDiv(*at(r), 1e9)) }
	return c
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// Calc is a column derived from the row by value.
func Calc[T any](name string, t Type, value func(T) Value, doc string, flags ...Flag) Column[T] {
	return Column[T]{ColumnDef: def(name, t, Plain, doc, flags), Value: value}
}

// Absent is a column that must exist but has no meaning here: ” or NULL, as in osquery.
func Absent[T any](name string, t Type, doc string, flags ...Flag) Column[T] {
	v := Null
	if t == Text {
		v = TextValue("")
	}
	return Calc(name, t, func(T) Value { return v }, doc, flags...)
}

// As returns c with another SQL type.
func (c Column[T]) As(t Type) Column[T] { c.Type = t; return c }

// From returns c with the stored native columns that it is computed from.
func (c Column[T]) From(names ...string) Column[T] { c.Uses = names; return c }

// Alias returns c with further hidden names.
func (c Column[T]) Alias(names ...string) Column[T] { c.Aliases = names; return c }

// Collated returns c with a collation.
func (c Column[T]) Collated(name string) Column[T] { c.Collate = name; return c }

// Map returns c over rows of another type, from which f makes a row of c's.
func Map[A, B any](c Column[A], f func(B) A) Column[B] {
	m := Column[B]{ColumnDef: c.ColumnDef, Uses: c.Uses}
	m.Value = func(b B) Value { return c.Value(f(b)) }
	if c.Int != nil {
		m.Int = func(b B) int64 { return c.Int(f(b)) }
		m.SetInt = func(b B, n int64) { c.SetInt(f(b), n) }
	}
	if c.Str != nil {
		m.Str = func(b B) string { return c.Str(f(b)) }
		m.SetStr = func(b B, s string) { c.SetStr(f(b), s) }
	}
	if c.At != nil {
		m.At = func(b B) any { return c.At(f(b)) }
	}
	return m
}

// AppendJSON appends `"name":cell` for a row, or nothing when the cell is unknown:
// NULL, empty text, or a zero that means unknown.
func (c *Column[T]) AppendJSON(dst []byte, r T) []byte {
	if c.Str != nil {
		s := c.Str(r)
		if s == "" {
			return dst
		}
		dst = append(dst, c.key...)
		switch c.Form {
		case List:
			return AppendList(dst, s)
		case JSON:
			return append(dst, s...)
		}
		return AppendString(dst, s)
	}
	if c.Int != nil {
		n := c.Int(r)
		if c.omits && n == c.unknown {
			return dst
		}
		dst = append(dst, c.key...)
		switch {
		case c.Form == Boolean:
			return strconv.AppendBool(dst, n != 0)
		case c.Form == Timestamp:
			return append(AppendTime(append(dst, '"'), n), '"')
		case c.Type == UnsignedBigInt:
			return strconv.AppendUint(dst, uint64(n), 10)
		}
		return strconv.AppendInt(dst, n, 10)
	}
	v := c.Value(r)
	switch v.kind {
	case KindNull:
		return dst
	case KindText:
		if v.s == "" {
			return dst
		}
		dst = append(dst, c.key...)
		if c.Form == JSON {
			return append(dst, v.s...)
		}
		return AppendString(dst, v.s)
	case KindFloat:
		return strconv.AppendFloat(append(dst, c.key...), v.Float(), 'g', -1, 64)
	}
	return strconv.AppendInt(append(dst, c.key...), v.n, 10)
}

// AppendTime appends unix nanoseconds as RFC 3339 in UTC with all nine digits; several times
// faster than time.AppendFormat, which every event would pay. The calendar is that of
// https://howardhinnant.github.io/date_algorithms.html#civil_from_days.
func AppendTime(dst []byte, ns int64) []byte {
	seconds := floorDiv(ns, 1e9)
	fraction := ns - seconds*1e9
	days := floorDiv(seconds, 86400)
	rest := seconds - days*86400
	z := days + 719468
	era := floorDiv(z, 146097)
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day := doy - (153*mp+2)/5 + 1
	month := mp + 3
	if month > 12 {
		month -= 12
	}
	year := yoe + era*400
	if month <= 2 {
		year++
	}
	dst = append(digits(dst, year, 4), '-')
	dst = append(digits(dst, month, 2), '-')
	dst = append(digits(dst, day, 2), 'T')
	dst = append(digits(dst, rest/3600, 2), ':')
	dst = append(digits(dst, rest/60%60, 2), ':')
	dst = append(digits(dst, rest%60, 2), '.')
	return append(digits(dst, fraction, 9), 'Z')
}

// digits appends n in decimal with leading zeros.
func digits(dst []byte, n int64, width int) []byte {
	var b [9]byte
	for i := width - 1; i >= 0; i-- {
		b[i] = '0' + byte(n%10)
		n /= 10
	}
	return append(dst, b[:width]...)
}

// AppendList appends a JSON array of the strings in list, each of which ends in NUL.
func AppendList(dst []byte, list string) []byte {
	dst = append(dst, '[')
	start := 0
	for i := 0; i < len(list); i++ {
		if list[i] != 0 {
			continue
		}
		if start > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, list[start:i])
		start = i + 1
	}
	if start < len(list) { // a cut last string
		if start > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, list[start:])
	}
	return append(dst, ']')
}

// SplitList returns the strings of a NUL-terminated list.
func SplitList(list string) []string {
	var out []string
	start := 0
	for i := 0; i < len(list); i++ {
		if list[i] == 0 {
			out = append(out, list[start:i])
			start = i + 1
		}
	}
	if start < len(list) {
		out = append(out, list[start:])
	}
	return out
}

const hex = "0123456789abcdef"

// asIs are the bytes that stand for themselves in a JSON string, whatever comes next.
var asIs = func() (t [256]bool) {
	for b := ' '; b < 0x7f; b++ {
		t[b] = b != '"' && b != '\\'
	}
	return t
}()

// AppendString appends s as a JSON string (RFC 8259). Bytes that are not UTF-8 become
// the text \xNN (four characters), as osquery writes them, so nothing is lost.
func AppendString(dst []byte, s string) []byte {
	plain := true
	for i := 0; i < len(s); i++ {
		plain = plain && asIs[s[i]]
	}
	if plain {
		return append(append(append(dst, '"'), s...), '"')
	}
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b >= 0x20 && b < 0x7f && b != '"' && b != '\\' {
			i++
			continue
		}
		if b >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || n > 1 {
				// U+2028 and U+2029 are legal JSON; they stay as they are.
				i += n
				continue
			}
			dst = append(dst, s[start:i]...)
			dst = append(dst, '\\', '\\', 'x', hex[b>>4], hex[b&15])
			i++
			start = i
			continue
		}
		dst = append(dst, s[start:i]...)
		switch b {
		case '"', '\\':
			dst = append(dst, '\\', b)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}
