package schedule

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/state"
)

func TestAppendString(t *testing.T) {
	for in, want := range map[string]string{
		"":                 `""`,
		`a"b\c/d`:          `"a\"b\\c/d"`,
		"\b\f\n\r\t":       `"\b\f\n\r\t"`,
		"\x00\x1b\x1f\x7f": `"\u0000\u001B\u001F` + "\x7f" + `"`,
		"é日\u2028🚲":        "\"é日\u2028🚲\"",
		"a\xffb\xc3":       `"a\\xFFb\\xC3"`,
		"\xed\xa0\x80":     `"\\xED\\xA0\\x80"`,
		"\ufffd":           "\"\ufffd\"",
	} {
		if got := quoted(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain \x7f": "plain \x7f", "é日🚲": "é日🚲", "a\nb\x00": `a\x0Ab\x00`, "\xff\xfe": `\xFF\xFE`, "caf\xc3": `caf\xC3`,
		"\xed\xa0\x80": `\xED\xA0\x80`, "\xf4\x90\x80\x80": `\xF4\x90\x80\x80`,
	} {
		if got := escape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestFloats(t *testing.T) {
	for _, tt := range []struct {
		f             float64
		text, numeric string
	}{
		{0, "0.0", "0.0"}, {1.5, "1.5", "1.5"}, {100, "100.0", "100.0"}, {-2, "-2.0", "-2.0"},
		{0.1, "0.10000000000000001", "0.1"}, {1.0 / 3, "0.33333333333333331", "0.3333333333333333"},
		{1e15, "1000000000000000.0", "1000000000000000.0"}, {1e17, "1e+17.0", "100000000000000000.0"},
		{1e20, "1e+20.0", "100000000000000000000.0"}, {1e21, "1e+21.0", "1e21"}, {1.5e300, "1.5000000000000001e+300", "1.5e300"},
		{1e-5, "1.0000000000000001e-05", "0.00001"}, {1e-7, "9.9999999999999995e-08", "1e-7"}, {123456789.125, "123456789.125", "123456789.125"},
		{5e-324, "4.9406564584124654e-324", "5e-324"}, {math.Copysign(0, -1), "-0.0", "-0.0"}, {math.Inf(1), "+Inf.0", "null"},
	} {
		if got := string(AppendFloatText(nil, tt.f)); got != tt.text {
			t.Errorf("%g as text: %s, want %s", tt.f, got, tt.text)
		}
		if got := string(appendFloat(nil, tt.f)); got != tt.numeric {
			t.Errorf("%g as a number: %s, want %s", tt.f, got, tt.numeric)
		}
	}
}

// The lines of osquery's documentation and source, whole.
func TestGoldenLines(t *testing.T) {
	at := time.Unix(1412098650, 0)
	head := Head{
		Name: "pack_ir_crontab", Host: "web-1", Time: at, Epoch: 0, Counter: 3,
		Decorations: []state.Pair{{Key: "host_uuid", Value: "4C4C-.."}, {Key: "username", Value: "root"}},
	}
	plain := head
	plain.Decorations = nil
	row := []schema.Value{schema.TextValue("/usr/bin/x"), schema.TextValue(""), schema.TextValue("*/5")}
	l := newLayout([]string{"command", "event", "minute"})
	for _, tt := range []struct {
		name string
		got  func() string
		want string
	}{
		{
			"added", func() string {
				f := &Format{Events: true}
				return string(eventLine(&head, f, "added")(nil, l.columns(nil, row, f)))
			},
			`{"name":"pack_ir_crontab","hostIdentifier":"web-1","calendarTime":"Tue Sep 30 17:37:30 2014 UTC","unixTime":1412098650,"epoch":0,"counter":3,"numerics":false,"decorations":{"host_uuid":"4C4C-..","username":"root"},"columns":{"command":"/usr/bin/x","event":"","minute":"*/5"},"action":"added"}`,
		},
		{
			"removed, no decorations, single digit day", func() string {
				h := plain
				h.Time = time.Unix(1409529600, 0)
				f := &Format{Events: true}
				return string(eventLine(&h, f, "removed")(nil, l.columns(nil, row, f)))
			},
			`{"name":"pack_ir_crontab","hostIdentifier":"web-1","calendarTime":"Mon Sep  1 00:00:00 2014 UTC","unixTime":1409529600,"epoch":0,"counter":3,"numerics":false,"columns":{"command":"/usr/bin/x","event":"","minute":"*/5"},"action":"removed"}`,
		},
		{
			"decorations at the top", func() string {
				f := &Format{Events: true, TopLevel: true}
				return string(eventLine(&head, f, "added")(nil, l.columns(nil, row, f)))
			},
			`{"name":"pack_ir_crontab","hostIdentifier":"web-1","calendarTime":"Tue Sep 30 17:37:30 2014 UTC","unixTime":1412098650,"epoch":0,"counter":3,"numerics":false,"host_uuid":"4C4C-..","username":"root","columns":{"command":"/usr/bin/x","event":"","minute":"*/5"},"action":"added"}`,
		},
		{
			"decorations at the top that take names", func() string {
				h := head
				h.Decorations = []state.Pair{{Key: "columns", Value: "c"}, {Key: "name", Value: "n"}}
				f := &Format{Events: true, TopLevel: true}
				return string(eventLine(&h, f, "added")(nil, []byte(`{}`)))
			},
			// rapidjson puts the last member where one was removed: here each in its turn.
			`{"name":"n","hostIdentifier":"web-1","calendarTime":"Tue Sep 30 17:37:30 2014 UTC","unixTime":1412098650,"epoch":0,"counter":3,"numerics":false,"columns":{},"action":"added"}`,
		},
		{
			"numbers as numbers", func() string {
				f := &Format{Events: true, Numerics: true, Null: "-"}
				l := newLayout([]string{"z", "i", "f", "n", "i"})
				return string(eventLine(&plain, f, "added")(nil, l.columns(nil, []schema.Value{
					schema.TextValue("7"), schema.IntValue(1), schema.FloatValue(2), schema.Null, schema.IntValue(-3),
				}, f)))
			},
			`{"name":"pack_ir_crontab","hostIdentifier":"web-1","calendarTime":"Tue Sep 30 17:37:30 2014 UTC","unixTime":1412098650,"epoch":0,"counter":3,"numerics":true,"columns":{"f":2.0,"i":-3,"n":"-","z":"7"},"action":"added"}`,
		},
		{
			"batch", func() string {
				a, b, c := diffLine(&Head{Name: "procs", Host: "web-1", Time: at, Counter: 4}, &Format{})
				return a + `{"pid":"77"}` + b + `{"pid":"88"}` + c
			},
			`{"diffResults":{"removed":[{"pid":"77"}],"added":[{"pid":"88"}]},"name":"procs","hostIdentifier":"web-1","calendarTime":"Tue Sep 30 17:37:30 2014 UTC","unixTime":1412098650,"epoch":0,"counter":4,"numerics":false}`,
		},
		{
			"snapshot", func() string {
				a, b := snapshotLine(&Head{Name: "procs_snap", Host: "web-1", Time: at}, &Format{})
				return a + `{"pid":"1"},{"pid":"2"}` + b
			},
			`{"snapshot":[{"pid":"1"},{"pid":"2"}],"action":"snapshot","name":"procs_snap","hostIdentifier":"web-1","calendarTime":"Tue Sep 30 17:37:30 2014 UTC","unixTime":1412098650,"epoch":0,"counter":0,"numerics":false}`,
		},
	} {
		if diff := cmp.Diff(tt.want+"\n", tt.got()); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}
