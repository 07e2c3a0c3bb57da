package store

import (
	"reflect"

	"github.com/goshawk-project/goshawk/internal/event"
)

// stream is the log of one native table: what is stored of each row, and which kinds its
// rows are of. Streams are made once and never change.
type stream struct {
	name     string
	critical bool // one of its kinds is
	lasting  bool // kept longer than others: one of its kinds is, or it is another's kept
	columns  []event.Column
	cells    []cell       // of columns
	of       reflect.Type // of its events
	layout   string       // names and types of columns, as blocks refer to them
	make     func() event.Event

	kept *stream // where rows go that outlive their block; nil for a lasting stream
	base *stream // of which it is kept; nil for an ordinary stream

	kind, eid, time, pid int // columns that all events have, by index
}

// streamsOf returns the streams of kinds and, by the number of a kind, its stream.
// Kinds that share a table share their columns.
func streamsOf(kinds []*event.Kind) (all []*stream, byKind []*stream) {
	for _, k := range kinds {
		var s *stream
		for _, have := range all {
			if have.name == k.Table {
				s = have
			}
		}
		if s == nil {
			e := k.New()
			s = &stream{name: k.Table, make: k.New, of: reflect.TypeOf(e)}
			for i := range k.Columns {
				if c := &k.Columns[i]; c.Stored() {
					s.columns = append(s.columns, *c)
					s.cells = append(s.cells, cellOf(c, e))
				}
			}
			s.layout = layoutText(s.columns)
			s.kind, s.eid, s.time, s.pid = s.column("kind_id"), s.column("eid"), s.column("time"), s.column("pid")
			all = append(all, s)
		}
		s.critical = s.critical || k.Critical
		s.lasting = s.lasting || k.Lasting
		for len(byKind) <= int(k.ID) {
			byKind = append(byKind, nil)
		}
		byKind[k.ID] = s
	}
	for _, s := range all[:len(all):len(all)] {
		if s.lasting {
			continue
		}
		kept := *s
		kept.name, kept.lasting, kept.base = s.name+"+kept", true, s
		s.kept = &kept
		all = append(all, &kept)
	}
	return all, byKind
}

// known reports whether any stream has a stored column called name.
func (p *pool) known(name string) bool {
	for _, st := range p.streams {
		if st.column(name) >= 0 {
			return true
		}
	}
	return false
}

// column returns the index of the stored column called name, or -1.
func (s *stream) column(name string) int {
	for i := range s.columns {
		if s.columns[i].Name == name {
			return i
		}
	}
	return -1
}

// layoutText is how a layout is kept: a line a column, "i" or "s" and the name.
func layoutText(columns []event.Column) string {
	var text []byte
	for i := range columns {
		c := &columns[i]
		if c.Int != nil {
			text = append(text, "i "...)
		} else {
			text = append(text, "s "...)
		}
		text = append(append(text, c.Name...), '\n')
	}
	return string(text)
}
