package sink

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
)

// filled is an event of a kind whose stored cells hold values made by number and text.
func filled(k *event.Kind, number func() int64, text func() string) event.Event {
	e := k.New()
	for i := range k.Columns {
		switch c := &k.Columns[i]; {
		case c.SetInt != nil:
			c.SetInt(e, number())
		case c.SetStr != nil:
			c.SetStr(e, text())
		}
	}
	e.Head().Kind = k.ID
	return e
}

// TestJSONIsEventsJSON compares with the encoder that goes through the columns.
func TestJSONIsEventsJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	texts := []string{"", "x", "two\x00words\x00", "\x00", "\"\\\n\x1b\xff\u2028é", "[1]", "0123456789abcdef0123456789abcdef"}
	numbers := []int64{0, 1, -1, 255, 65535, 1 << 31, 1<<32 - 1, 1<<63 - 1, -1 << 63, 1_770_000_000_123_456_789}
	j := NewJSON()
	for _, k := range event.Kinds {
		t.Run(k.Name, func(t *testing.T) {
			if j.kinds[k.ID] == nil {
				t.Error("no template: written the slow way")
			}
			for range 300 {
				e := filled(k, func() int64 { return numbers[r.IntN(len(numbers))] }, func() string { return texts[r.IntN(len(texts))] })
				want := string(event.AppendJSON([]byte("before "), e)) + "\n"
				if d := cmp.Diff(want, string(j.Append([]byte("before "), e))); d != "" {
					t.Fatalf("(-want +got):\n%s", d)
				}
			}
		})
	}
}

func TestJSONOfAKindThatIsNotItsType(t *testing.T) {
	e := &event.Fork{Header: event.Header{Kind: event.KindFork, PID: 5}}
	want := string(event.AppendJSON(nil, e)) + "\n"
	j := NewJSON()
	j.kinds[event.KindFork].event = new(event.Exec)
	if d := cmp.Diff(want, string(j.Append(nil, e))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestJSONAllocatesNothing(t *testing.T) {
	j, buf := NewJSON(), make([]byte, 0, 8192)
	for _, k := range event.Kinds {
		e := filled(k, func() int64 { return 7 }, func() string { return "a1" })
		if n := testing.AllocsPerRun(100, func() { j.Append(buf, e) }); n > 0 {
			t.Errorf("%s: %v allocations", k.Name, n)
		}
	}
}

func BenchmarkJSON(b *testing.B) {
	e := &event.Exec{Header: head(event.KindExec), Args: "curl\x00-s\x00http://example.com/\x00", Cwd: "/home/ana"}
	e.Start, e.PStart, e.BootID = 123_456_789_012, 99_456_789_012, "0123456789abcdef0123456789abcdef"
	buf := make([]byte, 0, 8192)
	b.Run("template", func(b *testing.B) {
		j := NewJSON()
		b.ReportAllocs()
		for b.Loop() {
			buf = j.Append(buf[:0], e)
		}
	})
	b.Run("columns", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = event.AppendJSON(buf[:0], e)
		}
	})
}
