package ctl

import (
	"bytes"
	"errors"
	"testing"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// FuzzRequest reads any bytes as a client's. What is understood must mean the same when
// it is written and read again.
func FuzzRequest(f *testing.F) {
	f.Add((&request{text: "SELECT 1", limit: 1e9}).append(nil))
	f.Add((&request{status: true}).append(nil))
	f.Add([]byte("\xff\xff\xff\xffQ"))
	f.Add([]byte("\x0c\x00\x00\x00Q\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, body, err := readFrame(bytes.NewReader(b), maxRequest)
		if err != nil {
			return
		}
		q, err := parseRequest(kind, body)
		if err != nil {
			if !errors.Is(err, errFrame) {
				t.Errorf("got %v", err)
			}
			return
		}
		kind, body, err = readFrame(bytes.NewReader(q.append(nil)), maxRequest+16)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseRequest(kind, body); again != q || err != nil {
			t.Errorf("%+v came back as %+v, %v", q, again, err)
		}
	})
}

// FuzzAnswer reads any bytes as a server's, frame by frame.
func FuzzAnswer(f *testing.F) {
	columns := appendColumns(nil, []string{"a", "b"}, []string{"TEXT", ""})
	rows := appendFrame(nil, kindRows)
	rows = append(rows, 2)
	for _, v := range []schema.Value{schema.Null, schema.IntValue(-1), schema.FloatValue(1.5), schema.TextValue("x")} {
		rows = appendValue(rows, v)
	}
	rows = endFrame(rows, 0)
	f.Add(append(appendHello(nil), columns...))
	f.Add(append(columns, rows...))
	f.Add(appendFault(columns, "no such table: x", "hint"))
	f.Add(endFrame(append(columns, "\x00\x00\x00\x00R\xff\xff\xff\xff\xff\xff\xff\xff\x7f"...), len(columns)))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.NewReader(b)
		var values []schema.Value
		for {
			kind, body, err := readFrame(in, maxReply)
			if err != nil {
				return
			}
			switch kind {
			case kindHello:
				_ = parseHello(kind, body)
			case kindColumns:
				names, types, err := parseColumns(body)
				if err == nil {
					values = make([]schema.Value, len(names))
					_, again, _ := readFrame(bytes.NewReader(appendColumns(nil, names, types)), 2*maxReply)
					if n, _, err := parseColumns(again); err != nil || len(n) != len(names) {
						t.Errorf("%q, %q came back as %q, %v", names, types, n, err)
					}
				}
			case kindRows:
				n := 0
				err := parseRows(body, values, func(row []schema.Value) error {
					n++
					size := 0
					for _, v := range row {
						size += len(v.Text())
						if again := (&reader{s: string(appendValue(nil, v))}).value(); again != v {
							t.Errorf("%v came back as %v", v, again)
						}
					}
					if v := row[0]; v.Kind() == schema.KindText && size > len(body) {
						t.Errorf("%d bytes of text out of a frame of %d", size, len(body))
					}
					return nil
				})
				if n > len(body) || err != nil && !errors.Is(err, errFrame) {
					t.Errorf("%d rows out of %d bytes, %v", n, len(body), err)
				}
			case kindFault:
				_, _, _ = parseFault(body)
			}
		}
	})
}
