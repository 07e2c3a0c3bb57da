package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Loss says that events of a kind were not delivered, how many, and why. Its header names
// no process.
type Loss struct {
	Header
	KindLost    string
	Reason      string
	Count       uint64
	WindowStart int64 // unix ns
	WindowEnd   int64
}

// Reset empties e for use again.
func (e *Loss) Reset() { *e = Loss{} }

var lossKind = kindOf[Loss](Kind{
	ID: KindLoss, Table: "loss_events",
	Doc: "Events that were not delivered, counted by kind and reason",
	Columns: columns(
		schema.Str("kind_lost", func(e *Loss) *string { return &e.KindLost }, "Kind of the events lost"),
		schema.Str("reason", func(e *Loss) *string { return &e.Reason }, "Why they were lost"),
		schema.Int("count", func(e *Loss) *uint64 { return &e.Count }, "How many were lost in the window"),
		schema.Time("window_start", func(e *Loss) *int64 { return &e.WindowStart }, "Start of the window"),
		schema.Time("window_end", func(e *Loss) *int64 { return &e.WindowEnd }, "End of the window"),
	),
})
