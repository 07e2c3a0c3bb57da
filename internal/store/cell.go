package store

import (
	"fmt"
	"reflect"
	"unsafe"

	"github.com/goshawk-project/goshawk/internal/event"
)

// cell is where a stored column is in the events of a stream: so many bytes from their
// header, this wide. It is worked out once from the column's own pointer. Going through
// the column's functions instead is safe without further thought, and takes 2.5 times as
// long to append an event, since a row has some fifty cells.
//
// Reading a cell of an event is safe because Append compares the event's type with the
// stream's, and a cursor makes its events itself.
type cell struct {
	offset int // from the header
	form   form
}

type form uint8

const (
	formText form = iota
	formInt8
	formUint8
	formBool
	formInt16
	formUint16
	formInt32
	formUint32
	form64
)

// cellOf finds the cell of c in events like e.
func cellOf(c *event.Column, e event.Event) cell {
	at := reflect.ValueOf(c.At(e))
	whole := reflect.ValueOf(e)
	if offset := at.Pointer() - whole.Pointer(); offset+at.Type().Elem().Size() > whole.Type().Elem().Size() {
		panic(fmt.Sprintf("BUG: column %q is not in its event", c.Name))
	}
	forms := map[reflect.Kind]form{
		reflect.String: formText, reflect.Bool: formBool, reflect.Uint8: formUint8, reflect.Int8: formInt8,
		reflect.Uint16: formUint16, reflect.Int16: formInt16, reflect.Uint32: formUint32, reflect.Int32: formInt32,
		reflect.Uint64: form64, reflect.Int64: form64, reflect.Uint: form64, reflect.Int: form64,
	}
	f, ok := forms[at.Type().Elem().Kind()]
	if !ok || (f == formText) != (c.Str != nil) {
		panic(fmt.Sprintf("BUG: column %q is kept in a %s", c.Name, at.Type().Elem()))
	}
	return cell{offset: int(at.Pointer() - uintptr(unsafe.Pointer(e.Head()))), form: f}
}

func (c cell) text(h *event.Header) string {
	return *(*string)(unsafe.Add(unsafe.Pointer(h), c.offset))
}

func (c cell) setText(h *event.Header, s string) {
	*(*string)(unsafe.Add(unsafe.Pointer(h), c.offset)) = s
}

func (c cell) int(h *event.Header) int64 {
	p := unsafe.Add(unsafe.Pointer(h), c.offset)
	switch c.form {
	case formUint32:
		return int64(*(*uint32)(p))
	case form64:
		return *(*int64)(p)
	case formUint16:
		return int64(*(*uint16)(p))
	case formUint8, formBool: // bools in a Go program are 0 or 1
		return int64(*(*uint8)(p))
	case formInt32:
		return int64(*(*int32)(p))
	case formInt16:
		return int64(*(*int16)(p))
	}
	return int64(*(*int8)(p))
}

func (c cell) setInt(h *event.Header, n int64) {
	p := unsafe.Add(unsafe.Pointer(h), c.offset)
	switch c.form {
	case formUint32, formInt32:
		*(*uint32)(p) = uint32(n)
	case form64:
		*(*int64)(p) = n
	case formUint16, formInt16:
		*(*uint16)(p) = uint16(n)
	case formBool:
		*(*bool)(p) = n != 0
	default:
		*(*uint8)(p) = uint8(n)
	}
}
