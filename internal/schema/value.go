package schema

import (
	"math"
	"strconv"
)

// Kind is what a Value holds.
type Kind uint8

const (
	KindNull Kind = iota
	KindInt
	KindFloat
	KindText
)

// Value is one cell. The zero Value is NULL.
type Value struct {
	kind Kind
	n    int64
	s    string
}

// Null is the absent cell.
var Null Value

// IntValue is an integer cell. Unsigned 64-bit numbers keep their bits.
func IntValue(n int64) Value { return Value{kind: KindInt, n: n} }

// TextValue is a text cell; s may hold any bytes.
func TextValue(s string) Value { return Value{kind: KindText, s: s} }

// FloatValue is a floating-point cell.
func FloatValue(f float64) Value { return Value{kind: KindFloat, n: int64(math.Float64bits(f))} }

// BoolValue is 0 or 1.
func BoolValue(b bool) Value {
	if b {
		return IntValue(1)
	}
	return IntValue(0)
}

// Kind says what v holds.
func (v Value) Kind() Kind { return v.kind }

// IsNull reports whether v is NULL.
func (v Value) IsNull() bool { return v.kind == KindNull }

// Int returns v as an integer: text is read as decimal (0 if it is none), floats are cut.
func (v Value) Int() int64 {
	switch v.kind {
	case KindInt:
		return v.n
	case KindFloat:
		return int64(math.Float64frombits(uint64(v.n)))
	case KindText:
		n, _ := strconv.ParseInt(v.s, 10, 64)
		return n
	}
	return 0
}

// Float returns v as a floating-point number.
func (v Value) Float() float64 {
	switch v.kind {
	case KindInt:
		return float64(v.n)
	case KindFloat:
		return math.Float64frombits(uint64(v.n))
	case KindText:
		f, _ := strconv.ParseFloat(v.s, 64)
		return f
	}
	return 0
}

// Text returns v as text; NULL is empty.
func (v Value) Text() string {
	switch v.kind {
	case KindInt:
		return strconv.FormatInt(v.n, 10)
	case KindFloat:
		return strconv.FormatFloat(math.Float64frombits(uint64(v.n)), 'g', -1, 64)
	case KindText:
		return v.s
	}
	return ""
}
