package table

import (
	"context"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// EventOptions says which rows osquery's event tables show beyond those that osquery
// shows by default. The native tables show everything that happened.
type EventOptions struct {
	// AllowFork adds processes made by fork to process_events
	// (osquery's audit_allow_fork_process_events).
	AllowFork bool
	// AllowFailed adds connects, binds and accepts that failed
	// (audit_allow_failed_socket_events).
	AllowFailed bool
	// AllowNullAccept adds accepts that found no client waiting
	// (audit_allow_null_accept_socket_events).
	AllowNullAccept bool
	// AllowUnix adds unix sockets (audit_allow_unix).
	AllowUnix bool
	// OmitAccept leaves accepts out of socket_events
	// (audit_allow_accept_socket_events=false).
	OmitAccept bool
	// ShowAccesses adds files opened for reading only to process_file_events
	// (audit_fim_show_accesses).
	ShowAccesses bool
}

// EventTables returns the tables over the events in log: the native ones, then those that
// osquery has.
func EventTables(log event.Log, o EventOptions) []schema.Relation {
	all := nativeTables(log)
	for _, t := range []*eventTable{
		processEvents(o), socketEvents(o), fileEvents(), processFileEvents(o), userEvents(), selinuxEvents(), apparmorEvents(), seccompEvents(),
		bpfProcessEvents(), bpfSocketEvents(o),
	} {
		t.log = log
		all = append(all, t.bind())
	}
	return all
}

// sharedDocs describe the native tables that several kinds share.
var sharedDocs = map[string]string{
	"network_events": "What was done with sockets: connect, accept, bind, listen, and close with the bytes each way",
}

// nativeTables returns a table for each distinct Kind.Table.
func nativeTables(log event.Log) []schema.Relation {
	var all []schema.Relation
	byName := map[string]*eventTable{}
	for _, k := range event.Kinds {
		t := byName[k.Table]
		if t == nil {
			t = &eventTable{name: k.Table, doc: k.Doc, log: log}
			byName[k.Table] = t
			all = append(all, t)
		} else {
			t.doc = sharedDocs[k.Table]
		}
		var visible []event.Column
		for _, c := range k.Columns {
			if !c.Has(schema.Internal) {
				visible = append(visible, c)
			}
		}
		t.kinds = append(t.kinds, k.ID)
		t.columns = append(t.columns, visible)
	}
	for _, t := range byName {
		t.bind()
	}
	return all
}

// over returns columns for rows of type T as columns for events, which are such rows.
func over[T event.Event](columns []schema.Column[T]) []event.Column {
	out := make([]event.Column, len(columns))
	for i, c := range columns {
		out[i] = schema.Map(c, func(e event.Event) T { return e.(T) })
	}
	return out
}

// eventTable is a table over events of some kinds. It implements schema.Relation.
type eventTable struct {
	name, doc string
	log       event.Log
	kinds     []event.ID
	// columns are those of each of kinds; they differ in getters only. A single list is
	// for all kinds.
	columns [][]event.Column

	// keep, if set, leaves out rows; it reads the stored columns keepUses.
	keep     func(event.Event) bool
	keepUses []string
	// convert, if set, makes a function for one scan that turns events into rows; it
	// reads the stored columns convertUses. Conditions on columns that it changes, all
	// but time and eid, stay with SQL.
	convert     func() func(event.Event) event.Event
	convertUses []string
	// split, if set, makes one or two rows of an event; it reads the stored columns splitUses.
	// No condition on a column that differs between the two is the log's.
	split     func(event.Event) (first, second event.Event)
	splitUses []string

	def     *schema.Def
	sources []source
}

// bind fixes the definition; t is not changed afterwards.
func (t *eventTable) bind() *eventTable {
	t.def = &schema.Def{Name: t.name, Doc: t.doc, Events: true, Columns: schema.Defs(t.columns[0])}
	t.sources = make([]source, len(t.columns[0]))
	for i := range t.columns[0] {
		t.sources[i] = sourceOf(&t.columns[0][i])
		if (t.convert != nil || t.split != nil) && t.sources[i].how == pushInt {
			t.sources[i].how = pushNothing
		}
	}
	return t
}

// Def implements schema.Relation.
func (t *eventTable) Def() *schema.Def { return t.def }

// Open implements schema.Relation. What the query asks of time, eid and integers becomes
// part of the selection, so that the log need not decode what nobody wants.
func (t *eventTable) Open(ctx context.Context, q *schema.Query) (schema.Cursor, error) {
	c, err := t.log.Scan(ctx, t.selection(q))
	if err != nil {
		return nil, err
	}
	rows := &eventRows{table: t, cursor: c}
	for i, id := range t.kinds {
		rows.byKind[id] = t.columns[min(i, len(t.columns)-1)]
	}
	if t.convert != nil {
		rows.convert = t.convert()
	}
	return rows, nil
}

// eventRows implements schema.Cursor.
type eventRows struct {
	table   *eventTable
	cursor  event.Cursor
	convert func(event.Event) event.Event
	byKind  [256][]event.Column
	row     event.Event
	next    event.Event // second row of the same event
	columns []event.Column
}

func (r *eventRows) Next() (bool, error) {
	if r.next != nil {
		r.row, r.next = r.next, nil
		return true, nil
	}
	for {
		e, err := r.cursor.Next()
		if err != nil || e == nil {
			return false, err
		}
		r.columns = r.byKind[e.Head().Kind]
		if r.convert != nil {
			e = r.convert(e)
		}
		if r.table.keep == nil || r.table.keep(e) {
			if r.row = e; r.table.split != nil {
				r.row, r.next = r.table.split(e)
			}
			return true, nil
		}
	}
}

func (r *eventRows) Value(column int) schema.Value { return r.columns[column].Value(r.row) }

func (r *eventRows) Close() error { return r.cursor.Close() }
