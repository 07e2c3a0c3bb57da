package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Levels are those of alerts, Sigma's, lowest first.
var Levels = []string{"informational", "low", "medium", "high", "critical"}

// Alert is a rule that was true of what happened. The header is that of the event that made
// it true: its process, its time.
type Alert struct {
	Header
	RuleID      string
	RuleName    string // its title
	Level       string // one of Levels
	Tags        string // each ending in NUL
	Description string
	Summary     string // what happened, in a few words: the command line of an exec
	Evidence    string // JSON array of {kind, table, eid, process_id}: the events that proved it
	Ancestors   string // JSON array of {pid, path, cmdline}, nearest first; of an exec
	Suppressed  uint64 // alerts of this rule kept back since the last one

	// Proof are the numbers of the events in Evidence. They are not kept.
	Proof []int64
}

// Reset empties e for use again.
func (e *Alert) Reset() { *e = Alert{} }

var alertKind = kindOf[Alert](Kind{
	ID: KindAlert, Table: "alerts", Critical: true, Lasting: true,
	Doc: "Detection rules that were true of what happened",
	Columns: columns(
		schema.Str("rule_id", func(e *Alert) *string { return &e.RuleID }, "Identity of the rule"),
		schema.Str("rule_name", func(e *Alert) *string { return &e.RuleName }, "Title of the rule"),
		schema.Str("level", func(e *Alert) *string { return &e.Level }, "informational, low, medium, high or critical"),
		schema.Strings("tags", func(e *Alert) *string { return &e.Tags }, "Tags of the rule, among them ATT&CK's techniques, a JSON array"),
		schema.Str("description", func(e *Alert) *string { return &e.Description }, "What the rule finds"),
		schema.Str("summary", func(e *Alert) *string { return &e.Summary }, "What happened, in a few words"),
		schema.Raw("evidence", func(e *Alert) *string { return &e.Evidence }, "Events that proved it, a JSON array of kind, table, eid and process_id"),
		schema.Raw("ancestors", func(e *Alert) *string { return &e.Ancestors }, "Parent, grandparent and so on, a JSON array of pid, path and cmdline"),
		schema.Int("suppressed", func(e *Alert) *uint64 { return &e.Suppressed }, "Alerts of this rule that were kept back since the last one"),
	),
})
