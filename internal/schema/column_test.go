package schema

import (
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"
)

func TestAppendTime(t *testing.T) {
	for _, tm := range []time.Time{
		time.Unix(0, 0), time.Unix(0, -1), time.Unix(1, 999999999),
		time.Date(2026, 11, 22, 19, 39, 38, 347407906, time.UTC),
		time.Date(2024, 2, 29, 23, 59, 59, 1, time.UTC), time.Date(2000, 3, 1, 0, 0, 0, 0, time.UTC),
		time.Date(1999, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(2100, 2, 28, 12, 0, 0, 0, time.UTC),
		time.Date(1969, 12, 31, 23, 59, 59, 5, time.UTC),
	} {
		want := tm.UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
		if got := string(AppendTime(nil, tm.UnixNano())); got != want {
			t.Errorf("AppendTime(%d) = %s, want %s", tm.UnixNano(), got, want)
		}
	}
	for d := int64(-200000); d < 200000; d++ {
		tm := time.Unix(d*86400/4+d, 7)
		want := tm.UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
		if got := string(AppendTime(nil, tm.UnixNano())); got != want {
			t.Fatalf("AppendTime(%d) = %s, want %s", tm.UnixNano(), got, want)
		}
	}
}

func TestAppendString(t *testing.T) {
	for in, want := range map[string]string{
		"":                 `""`,
		"plain":            `"plain"`,
		`a"b\c`:            `"a\"b\\c"`,
		"tab\tline\nret\r": `"tab\tline\nret\r"`,
		"\x00\x1b\x7f":     `"\u0000\u001b\u007f"`,
		"é\xff日":           `"é\\xff日"`,
		"\xc3":             `"\\xc3"`,
		"\ufffd":           "\"\ufffd\"",
	} {
		if got := string(AppendString(nil, in)); got != want {
			t.Errorf("AppendString(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestAppendList(t *testing.T) {
	for in, want := range map[string]string{
		"":               `[]`,
		"\x00":           `[""]`,
		"a\x00b c\x00":   `["a","b c"]`,
		"a\x00\x00b":     `["a","","b"]`,
		"cut":            `["cut"]`,
		"\x00\x00":       `["",""]`,
		"\xff\x00\"\x00": `["\\xff","\""]`,
	} {
		if got := string(AppendList(nil, in)); got != want {
			t.Errorf("AppendList(%q) = %s, want %s", in, got, want)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("a\"\\\n\x00\xff\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		b := AppendString(nil, s)
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("AppendString(%q) = %s: %v", s, b, err)
		}
		if utf8.ValidString(s) && back != s {
			t.Fatalf("AppendString(%q) reads back as %q", s, back)
		}
		if err := json.Unmarshal(AppendList(nil, s), &[]string{}); err != nil {
			t.Fatalf("AppendList(%q): %v", s, err)
		}
	})
}
