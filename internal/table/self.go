package table

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// Self is what the tables about the agent are made from.
type Self struct {
	// Status returns the agent's present state; nil: there is no agent, and the tables are
	// empty.
	Status func(ctx context.Context) (SelfStatus, error)
	// Subscribers are the tables that events feed.
	Subscribers []Subscriber
}

// SelfStatus is the state of an agent at one moment.
type SelfStatus struct {
	Sources []SelfSource
	Hooks   []event.Hook
	Counts  []event.Count
}

// SelfSource is a source of events.
type SelfSource struct {
	Name   string
	Active bool
	Error  string // why it ended
}

// Subscriber is a table over events of some kinds.
type Subscriber struct {
	Name  string
	Kinds []event.ID
}

// Subscribers picks the tables over events.
func Subscribers(all []schema.Relation) []Subscriber {
	var out []Subscriber
	for _, r := range all {
		if t, ok := r.(*eventTable); ok {
			out = append(out, Subscriber{t.name, t.kinds})
		}
	}
	return out
}

// SelfTables returns the tables by which the agent tells about itself.
func SelfTables(s Self) []schema.Relation {
	return []schema.Relation{hooksTable(s), lossesTable(s), sourcesTable(s), eventsTable(s)}
}

// status asks the agent, if there is one.
func (s *Self) status(ctx context.Context, q *schema.Query) (SelfStatus, error) {
	if s.Status == nil {
		q.Warning("no agent is running: its tables are empty")
		return SelfStatus{}, nil
	}
	return s.Status(ctx)
}

func kindName(id event.ID) string {
	if id == 0 {
		return "unknown"
	}
	return id.String()
}

func hooksTable(s Self) schema.Relation {
	type row = *event.Hook
	kinds := func(h row) schema.Value {
		names := make([]string, len(h.Kinds))
		for i, k := range h.Kinds {
			names[i] = k.String()
		}
		return schema.TextValue(strings.Join(names, ","))
	}
	t := &schema.Table[row]{
		Name: "goshawk_hooks",
		Doc:  "Places in the kernel where events are observed, and how each is attached.",
		Columns: []schema.Column[row]{
			schema.Str("source", func(h row) *string { return &h.Source }, "Source that the hook belongs to: ebpf or audit"),
			schema.Str("name", func(h row) *string { return &h.Name }, "Hook, as run --tier names it"),
			schema.Calc("kinds", schema.Text, kinds, "Kinds of event that it observes, with commas"),
			schema.Str("tier", func(h row) *string { return &h.Tier }, "How it is attached, empty when no way works here"),
			schema.Bool("best", func(h row) *bool { return &h.Best }, "1 when it is attached in the best way there is"),
			schema.Str("refused", func(h row) *string { return &h.Refused }, "Better ways, each with the reason why it is not used"),
			schema.Int("seen", func(h row) *uint64 { return &h.Seen }, "Records since the agent started"),
			schema.Bool("silent", func(h row) *bool { return &h.Silent }, "1 when the agent tried it, and what it did was not told"),
		},
		Rows: func(ctx context.Context, q *schema.Query) ([]row, error) {
			st, err := s.status(ctx, q)
			if err != nil {
				return nil, err
			}
			rows := make([]row, len(st.Hooks))
			for i := range st.Hooks {
				rows[i] = &st.Hooks[i]
			}
			return rows, nil
		},
	}
	return t.Bind()
}

func lossesTable(s Self) schema.Relation {
	type row = *event.Count
	kind := func(c row) schema.Value { return schema.TextValue(kindName(c.Kind)) }
	t := &schema.Table[row]{
		Name: "goshawk_losses",
		Doc:  "Events lost since the agent started, by where, which kind and why; no row, no loss.",
		Columns: []schema.Column[row]{
			schema.Str("source", func(c row) *string { return &c.Source }, "Where they were lost: a source, the store or a sink"),
			schema.Calc("kind", schema.Text, kind, "Kind of the events, unknown when it cannot be told"),
			schema.Str("reason", func(c row) *string { return &c.Reason }, "Why they were lost"),
			schema.Int("count", func(c row) *uint64 { return &c.N }, "How many"),
		},
		Rows: func(ctx context.Context, q *schema.Query) ([]row, error) {
			st, err := s.status(ctx, q)
			if err != nil {
				return nil, err
			}
			var rows []row
			for i := range st.Counts {
				if c := &st.Counts[i]; c.What == event.Lost && c.N > 0 {
					rows = append(rows, c)
				}
			}
			return rows, nil
		},
	}
	return t.Bind()
}

// balance is what one source (or the store, or a sink) did with the events of one kind.
type balance struct {
	source, err, failures                                                string
	kind                                                                 event.ID
	active                                                               bool
	generated, delivered, filtered, lost, late, expired, evicted, failed uint64
}

func (b *balance) add(c *event.Count) {
	switch c.What {
	case event.Generated:
		b.generated += c.N
	case event.Delivered:
		b.delivered += c.N
	case event.Filtered:
		b.filtered += c.N
	case event.Lost:
		b.lost += c.N
	case event.Late:
		b.late += c.N
	case event.Expired:
		b.expired += c.N
	case event.Evicted:
		b.evicted += c.N
	case event.Failed:
		b.failed += c.N
		if c.N > 0 {
			b.failures = strings.TrimSpace(b.failures + " " + c.Reason + "=" + strconv.FormatUint(c.N, 10))
		}
	}
}

// balances sums counters by source and kind. A source that has counted nothing yet has
// one row, of no kind.
func balances(st SelfStatus) []*balance {
	var rows []*balance
	find := func(source string, kind event.ID) *balance {
		for _, b := range rows {
			if b.source == source && b.kind == kind {
				return b
			}
		}
		b := &balance{source: source, kind: kind, active: true}
		rows = append(rows, b)
		return b
	}
	for i := range st.Counts {
		c := &st.Counts[i]
		find(c.Source, c.Kind).add(c)
	}
	for _, s := range st.Sources {
		if !slices.ContainsFunc(rows, func(b *balance) bool { return b.source == s.Name }) {
			find(s.Name, 0)
		}
		for _, b := range rows {
			if b.source == s.Name {
				b.active, b.err = s.Active, s.Error
			}
		}
	}
	slices.SortStableFunc(rows, func(x, y *balance) int {
		return cmp.Or(cmp.Compare(x.source, y.source), cmp.Compare(x.kind, y.kind))
	})
	return rows
}

func sourcesTable(s Self) schema.Relation {
	type row = *balance
	kind := func(b row) schema.Value {
		if b.kind == 0 {
			return schema.TextValue("")
		}
		return schema.TextValue(b.kind.String())
	}
	t := &schema.Table[row]{
		Name: "goshawk_sources",
		Doc:  "What each source, the store and each sink did with events, by kind: generated = delivered + filtered + lost.",
		Columns: []schema.Column[row]{
			schema.Str("source", func(b row) *string { return &b.source }, "Source, or agent, process (the process table), store, or a sink's name"),
			schema.Calc("kind", schema.Text, kind, "Kind of event, empty when the counters are of none"),
			schema.Bool("active", func(b row) *bool { return &b.active }, "1 when it runs"),
			schema.Int("generated", func(b row) *uint64 { return &b.generated }, "Records that it set out to make, or events that it was given"),
			schema.Int("delivered", func(b row) *uint64 { return &b.delivered }, "Events that it passed on"),
			schema.Int("filtered", func(b row) *uint64 { return &b.filtered }, "Events left out on purpose"),
			schema.Int("lost", func(b row) *uint64 { return &b.lost }, "Events lost; goshawk_losses has the reasons"),
			schema.Int("late", func(b row) *uint64 { return &b.late }, "Of those passed on: told after events of another source that happened later"),
			schema.Int("expired", func(b row) *uint64 { return &b.expired }, "Events that have left the store, by age or for room"),
			schema.Int("evicted", func(b row) *uint64 { return &b.evicted }, "State (not events) given up to stay within a bound"),
			schema.Int("failed", func(b row) *uint64 { return &b.failed }, "Questions (to container runtimes) that brought no answer, or none that could be used"),
			schema.Str("failures", func(b row) *string { return &b.failures }, "Of those, how many for which reason"),
			schema.Str("error", func(b row) *string { return &b.err }, "Why it ended, when it did"),
		},
		Rows: func(ctx context.Context, q *schema.Query) ([]row, error) {
			st, err := s.status(ctx, q)
			if err != nil {
				return nil, err
			}
			return balances(st), nil
		},
	}
	return t.Bind()
}

// publisher is a row of osquery_events.
type publisher struct {
	name, publisher, kind                  string
	subscriptions, events, refreshes, lost int64
	active                                 bool
}

func eventsTable(s Self) schema.Relation {
	type row = *publisher
	t := &schema.Table[row]{
		Name: "osquery_events",
		Doc:  "Sources of events and the tables they feed, in osquery's terms of publishers and subscribers.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(p row) *string { return &p.name }, "Source, or table"),
			schema.Str("publisher", func(p row) *string { return &p.publisher }, "Source that feeds it"),
			schema.Str("type", func(p row) *string { return &p.kind }, "publisher or subscriber"),
			schema.Int("subscriptions", func(p row) *int64 { return &p.subscriptions }, "Tables fed, or kinds of event taken").As(schema.Integer),
			schema.Int("events", func(p row) *int64 { return &p.events }, "Events since the agent started").As(schema.Integer),
			schema.Int("refreshes", func(p row) *int64 { return &p.refreshes }, "Restarts: none").As(schema.Integer),
			schema.Bool("active", func(p row) *bool { return &p.active }, "1 when it runs"),
			schema.Int("dropped", func(p row) *int64 { return &p.lost }, "Events lost on the way", schema.Hidden),
		},
		Rows: func(ctx context.Context, q *schema.Query) ([]row, error) {
			st, err := s.status(ctx, q)
			if err != nil || s.Status == nil {
				return nil, err
			}
			return publishers(st, s.Subscribers), nil
		},
	}
	return t.Bind()
}

func publishers(st SelfStatus, subscribers []Subscriber) []*publisher {
	var rows []*publisher
	for _, src := range st.Sources {
		p := &publisher{name: src.Name, publisher: src.Name, kind: "publisher",
			subscriptions: int64(len(subscribers)), active: src.Active}
		for i := range st.Counts {
			switch c := &st.Counts[i]; {
			case c.Source != src.Name:
			case c.What == event.Delivered:
				p.events += int64(c.N)
			case c.What == event.Lost:
				p.lost += int64(c.N)
			}
		}
		rows = append(rows, p)
	}
	for _, sub := range subscribers {
		feeds := st.feeds(sub.Kinds)
		p := &publisher{name: sub.Name, publisher: feeds, kind: "subscriber",
			subscriptions: int64(len(sub.Kinds)), active: feeds != ""}
		for i := range st.Counts {
			switch c := &st.Counts[i]; {
			case !slices.Contains(sub.Kinds, c.Kind):
			case c.Source == "store" && c.What == event.Generated:
				p.events += int64(c.N)
			case c.What == event.Lost && (c.Source == "store" || slices.ContainsFunc(st.Sources, func(s SelfSource) bool { return s.Name == c.Source })):
				p.lost += int64(c.N)
			}
		}
		rows = append(rows, p)
	}
	return rows
}

// feeds is the source that observes one of kinds now, else the first that runs; empty when
// none does.
func (st *SelfStatus) feeds(kinds []event.ID) string {
	first := ""
	for _, src := range st.Sources {
		if !src.Active {
			continue
		}
		for i := range st.Hooks {
			h := &st.Hooks[i]
			if h.Source == src.Name && h.Tier != "" && slices.ContainsFunc(h.Kinds, func(k event.ID) bool { return slices.Contains(kinds, k) }) {
				return src.Name
			}
		}
		if first == "" {
			first = src.Name
		}
	}
	return first
}
