package schedule

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/state"
)

// A kept row is, for each column by name, the name and its cell: two lengths with bytes, or, for a
// number, a length, the name, a zero, and eight bytes. Rows are equal when these are.

const (
	keptInt   = 0
	keptFloat = 1
	keptText  = 2
)

// keep appends a row in the form in which it is kept and compared. NULL is the text for it,
// as in osquery.
func (l *layout) keep(dst []byte, row []schema.Value, f *Format) []byte {
	for i, name := range l.names {
		dst = append(binary.AppendUvarint(dst, uint64(len(name))), name...)
		switch v := row[l.index[i]]; v.Kind() {
		case schema.KindInt:
			dst = binary.BigEndian.AppendUint64(append(dst, keptInt), uint64(v.Int()))
		case schema.KindFloat:
			dst = binary.BigEndian.AppendUint64(append(dst, keptFloat), math.Float64bits(v.Float()))
		default:
			text := v.Text()
			if v.IsNull() {
				text = f.Null
			}
			dst = append(binary.AppendUvarint(append(dst, keptText), uint64(len(text))), text...)
		}
	}
	return dst
}

var errKept = errors.New("a kept row is damaged")

// unkeep reads a kept row.
func unkeep(b []byte) (names []string, row []schema.Value, err error) {
	text := func() (string, bool) {
		n, used := binary.Uvarint(b)
		if used <= 0 || n > uint64(len(b)-used) {
			return "", false
		}
		s := string(b[used : used+int(n)])
		b = b[used+int(n):]
		return s, true
	}
	for len(b) > 0 {
		name, ok := text()
		if !ok || len(b) == 0 {
			return nil, nil, errKept
		}
		kind := b[0]
		b = b[1:]
		var v schema.Value
		switch kind {
		case keptInt, keptFloat:
			if len(b) < 8 {
				return nil, nil, errKept
			}
			bits := binary.BigEndian.Uint64(b)
			b = b[8:]
			v = schema.IntValue(int64(bits))
			if kind == keptFloat {
				v = schema.FloatValue(math.Float64frombits(bits))
			}
		case keptText:
			s, ok := text()
			if !ok {
				return nil, nil, errKept
			}
			v = schema.TextValue(s)
		default:
			return nil, nil, errKept
		}
		names, row = append(names, name), append(row, v)
	}
	return names, row, nil
}

func hashOf(kept []byte) state.Hash {
	sum := sha256.Sum256(kept)
	return state.Hash(sum[:16])
}

// goneRow is a row that is no longer among the results.
type goneRow struct {
	names []string
	cells []schema.Value
}

// sortGone puts rows into the order of osquery's multiset of maps.
func sortGone(rows []goneRow) {
	slices.SortStableFunc(rows, func(x, y goneRow) int {
		for i := range min(len(x.names), len(y.names)) {
			if c := cmp.Or(strings.Compare(x.names[i], y.names[i]), compareCells(x.cells[i], y.cells[i])); c != 0 {
				return c
			}
		}
		return cmp.Compare(len(x.names), len(y.names))
	})
}

// compareCells orders cells as boost::variant does: integers, floats, texts.
func compareCells(x, y schema.Value) int {
	rank := func(v schema.Value) int {
		switch v.Kind() {
		case schema.KindInt:
			return keptInt
		case schema.KindFloat:
			return keptFloat
		}
		return keptText
	}
	if c := cmp.Compare(rank(x), rank(y)); c != 0 {
		return c
	}
	switch x.Kind() {
	case schema.KindInt:
		return cmp.Compare(x.Int(), y.Int())
	case schema.KindFloat:
		return cmp.Compare(x.Float(), y.Float())
	}
	return strings.Compare(x.Text(), y.Text())
}
