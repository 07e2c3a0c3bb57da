package audit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// logRecord is a record of a log, as the kernel sent it.
type logRecord struct {
	typ  uint16
	text []byte
}

var (
	logLine = regexp.MustCompile(`^(?:node=\S+ )?type=(\S+) msg=(audit\(.*)$`)
	// auditd marks a change of clocks in this way; the kernel knows no such stamp.
	unnamed = regexp.MustCompile(`^UNKNOWN\[(\d+)\]$`)
)

// readLog reads a log of auditd's: type=SYSCALL msg=audit(1364481363.243:24287): arch=…
func readLog(t testing.TB, file string) []logRecord {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]uint16{}
	for _, names := range []map[uint16]string{typeNames, newerTypes} {
		for n, name := range names {
			numbers[name] = n
		}
	}
	var out []logRecord
	for i, line := range bytes.Split(data, []byte("\n")) {
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		m := logLine.FindSubmatch(line)
		if m == nil {
			t.Fatalf("%s:%d: no record: %.80q", file, i+1, line)
		}
		typ, ok := numbers[string(m[1])]
		if u := unnamed.FindSubmatch(m[1]); u != nil {
			n, _ := strconv.Atoi(string(u[1]))
			typ, ok = uint16(n), true
		}
		if !ok {
			t.Fatalf("%s:%d: no type is called %s", file, i+1, m[1])
		}
		out = append(out, logRecord{typ, m[2]})
	}
	return out
}

// noClock makes NTime unix time.
func noClock() int64 { return 0 }

// decodeAll decodes records, waits for no end at the end, and returns the events as text,
// the counters after them.
func decodeAll(t testing.TB, o decoderOptions, records []logRecord) string {
	t.Helper()
	o.Offset = noClock
	d := newDecoder(o)
	now := time.Unix(1_000_000_000, 0)
	var b []byte
	take := func() {
		for _, e := range d.take() {
			b = appendKnown(b, e)
		}
	}
	for _, r := range records {
		d.push(r.typ, r.text, now)
		take()
	}
	for range 3 {
		now = now.Add(time.Minute)
		d.flush(now)
		take()
	}
	if d.pending() {
		t.Errorf("%d groups and %d forks are left", d.r.n, len(d.clones.held))
	}
	for _, c := range d.counts() {
		kind := "unknown"
		if c.Kind != 0 {
			kind = c.Kind.String()
		}
		b = fmt.Appendf(b, "# %s %s %s %d\n", kind, c.What, c.Reason, c.N)
	}
	return string(b)
}

// appendKnown appends an event as a line of JSON, without what is false, which other sources
// may know of.
func appendKnown(b []byte, e event.Event) []byte {
	b = append(b, '{')
	for i := range event.ByID(e.Head().Kind).Columns {
		c := &event.ByID(e.Head().Kind).Columns[i]
		switch {
		case c.Has(schema.Internal), c.Name == "ntime", c.Name == "eid", c.Name == "source":
		case c.Form == schema.Boolean && c.Int(e) == 0:
		default:
			before := len(b)
			if b = c.AppendJSON(b, e); len(b) > before {
				b = append(b, ',')
			}
		}
	}
	return append(bytes.TrimSuffix(b, []byte(",")), '}', '\n')
}

// TestLogs decodes real logs, each named for the system it was written on. What they become
// is in the file beside.
func TestLogs(t *testing.T) {
	logs, err := filepath.Glob("testdata/*.log")
	if err != nil || len(logs) < 5 {
		t.Fatalf("%d logs: %v", len(logs), err)
	}
	for _, log := range logs {
		t.Run(strings.TrimSuffix(filepath.Base(log), ".log"), func(t *testing.T) {
			golden(t, strings.TrimSuffix(log, ".log")+".golden", []byte(decodeAll(t, decoderOptions{}, readLog(t, log))))
		})
	}
}
