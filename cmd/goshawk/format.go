package main

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
)

// formats are the ways to print an answer.
var formats = []string{"table", "json", "csv", "line"}

// printer writes an answer to a query in one format. A query that fails midway is not
// ended: a JSON array stays open then, so that no parser takes it for the whole answer.
type printer interface {
	sql.Receiver
	// end writes what is still due after the last row.
	end() error
}

// newPrinter returns the printer of a format, one of formats. Warnings go to warn.
func newPrinter(format string, w io.Writer, warn func(string)) printer {
	base := output{w: bufio.NewWriterSize(w, 32<<10), flushed: time.Now(), warn: warn}
	switch format {
	case "json":
		return &jsonPrinter{output: base}
	case "csv":
		return &csvPrinter{output: base}
	case "line":
		return &linePrinter{output: base}
	}
	return &tablePrinter{output: base}
}

// output is what all printers have in common.
type output struct {
	w       *bufio.Writer
	flushed time.Time
	warn    func(string)

	names, types []string
}

func (o *output) Warning(sentence string) { o.warn(sentence) }

// flushSome keeps rows that come slowly from waiting for those that follow.
func (o *output) flushSome() error {
	if now := time.Now(); now.Sub(o.flushed) > 100*time.Millisecond {
		o.flushed = now
		return o.w.Flush()
	}
	return nil
}

// text is the i-th cell as osqueryi has it: numbers in decimal, floating-point ones with
// a point, NULL as nothing.
func (o *output) text(i int, v schema.Value) string {
	switch v.Kind() {
	case schema.KindInt:
		if i < len(o.types) && o.types[i] == "UNSIGNED_BIGINT" {
			return strconv.FormatUint(uint64(v.Int()), 10)
		}
	case schema.KindFloat:
		s := strconv.FormatFloat(v.Float(), 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") && !math.IsInf(v.Float(), 0) {
			s += ".0"
		}
		return s
	}
	return v.Text()
}

// safe replaces each byte that a terminal could take for a command, and each that is no
// UTF-8, by \xNN: control characters of both sets, and the invisible ones that reorder
// text. What a process called itself must not be able to retitle or rewrite a screen.
func safe(s string) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = ' ' <= s[i] && s[i] < 0x7f
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n <= 1 || !unicode.IsGraphic(r) {
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// jsonPrinter writes an array for each statement, a row a line, all values as strings.
type jsonPrinter struct {
	output
	open bool
	rows int
	last []bool // whether no later column has the same name: as in osquery, the last wins
	buf  []byte
}

func (p *jsonPrinter) Columns(names, types []string) error {
	if err := p.end(); err != nil {
		return err
	}
	p.names, p.types = names, types
	p.last = make([]bool, len(names))
	seen := make(map[string]bool, len(names))
	for i := len(names) - 1; i >= 0; i-- {
		p.last[i] = !seen[names[i]]
		seen[names[i]] = true
	}
	p.open, p.rows = true, 0
	_, err := p.w.WriteString("[")
	return err
}

func (p *jsonPrinter) Row(values []schema.Value) error {
	b := append(p.buf[:0], ",\n  {"...)
	if p.rows == 0 {
		b = append(p.buf[:0], "\n  {"...)
	}
	p.rows++
	first := true
	for i, v := range values {
		if !p.last[i] {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(schema.AppendString(b, p.names[i]), ':')
		b = schema.AppendString(b, p.text(i, v))
	}
	p.buf = append(b, '}')
	if _, err := p.w.Write(p.buf); err != nil {
		return err
	}
	return p.flushSome()
}

func (p *jsonPrinter) end() error {
	if p.open {
		p.open = false
		if _, err := p.w.WriteString("\n]\n"); err != nil {
			return err
		}
	}
	return p.w.Flush()
}

// csvPrinter writes a header for each statement, then its rows.
type csvPrinter struct {
	output
	csv    *csv.Writer
	record []string
}

func (p *csvPrinter) Columns(names, types []string) error {
	if p.csv == nil {
		p.csv = csv.NewWriter(p.w)
	}
	p.names, p.types = names, types
	p.record = p.record[:0]
	for _, name := range names {
		p.record = append(p.record, safe(name))
	}
	return p.csv.Write(p.record)
}

func (p *csvPrinter) Row(values []schema.Value) error {
	p.record = p.record[:0]
	for i, v := range values {
		p.record = append(p.record, safe(p.text(i, v)))
	}
	if err := p.csv.Write(p.record); err != nil {
		return err
	}
	p.csv.Flush()
	return p.flushSome()
}

func (p *csvPrinter) end() error {
	if p.csv != nil {
		p.csv.Flush()
	}
	return p.w.Flush()
}

// linePrinter writes a cell a line, as sqlite3's .mode line, and an empty line between
// rows.
type linePrinter struct {
	output
	any bool
}

func (p *linePrinter) Columns(names, types []string) error {
	p.names, p.types = make([]string, len(names)), types
	width := 0
	for i, name := range names {
		p.names[i] = safe(name)
		width = max(width, text.StringWidthWithoutEscSequences(p.names[i]))
	}
	for i, name := range p.names {
		p.names[i] = strings.Repeat(" ", width-text.StringWidthWithoutEscSequences(name)) + name
	}
	return nil
}

func (p *linePrinter) Row(values []schema.Value) error {
	if p.any {
		p.w.WriteByte('\n')
	}
	p.any = true
	for i, v := range values {
		p.w.WriteString(p.names[i])
		p.w.WriteString(" = ")
		p.w.WriteString(safe(p.text(i, v)))
		p.w.WriteByte('\n') // the writer keeps its first error for the flush
	}
	return p.flushSome()
}

func (p *linePrinter) end() error { return p.w.Flush() }

// tablePrinter draws a box for each statement, and none for one without rows, as
// osqueryi does. It holds the rows until their widths are known: at most maxBox of them,
// then the next box begins.
type tablePrinter struct {
	output
	rows []table.Row
}

const maxBox = 10_000

func (p *tablePrinter) Columns(names, types []string) error {
	if err := p.end(); err != nil {
		return err
	}
	p.names, p.types = names, types
	return nil
}

func (p *tablePrinter) Row(values []schema.Value) error {
	row := make(table.Row, len(values))
	for i, v := range values {
		row[i] = safe(p.text(i, v))
	}
	if p.rows = append(p.rows, row); len(p.rows) == maxBox {
		return p.end()
	}
	return nil
}

func (p *tablePrinter) end() error {
	if len(p.rows) > 0 {
		t := table.NewWriter()
		style := table.StyleDefault
		style.Format.Header = text.FormatDefault
		t.SetStyle(style)
		header := make(table.Row, len(p.names))
		for i, name := range p.names {
			header[i] = safe(name)
		}
		t.AppendHeader(header)
		t.AppendRows(p.rows)
		p.rows = nil
		if _, err := p.w.WriteString(t.Render() + "\n"); err != nil {
			return err
		}
	}
	return p.w.Flush()
}
