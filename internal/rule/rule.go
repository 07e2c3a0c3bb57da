// Package rule compiles detection rules in Sigma's language over the columns of events, and
// matches them as events happen: what goes in is an event, what comes out are alerts. It
// knows events and their columns; it must never know where events come from, who keeps them,
// or where alerts go. An Engine belongs to the goroutine that calls Match, and only the rules
// it follows may be changed by others.
//
// The language is that of https://github.com/SigmaHQ/sigma-specification, version 2: rules,
// correlations and filters.
package rule

import (
	"fmt"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Rule is what a rule says of itself.
type Rule struct {
	ID             string // as the rule has it; else its name or title
	Name           string
	Title          string
	Status         string
	Level          string // informational, low, medium, high or critical
	Description    string
	Author         string
	Tags           []string // attack.t1059.004 and so on
	References     []string
	FalsePositives []string
	File           string
	Line           int
	Category       string // where its events come from, as the rule has it
	// Kinds are the kinds of event that it looks at; of a correlation none.
	Kinds []event.ID
	// Of are the rules that a correlation is over.
	Of []string

	throttle throttle
	silent   bool // a correlation speaks for it
}

// Correlation reports whether the rule is over what other rules found.
func (r *Rule) Correlation() bool { return len(r.Of) > 0 }

// Problem is why a rule is not used, or, when Partly is set, not in all it says.
type Problem struct {
	File   string
	Line   int
	Rule   string // title, as far as it could be read
	Reason string
	Partly bool
}

// String is the problem on one line: file:line: rule: reason.
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: ", p.File, p.Line)
	if p.Rule != "" {
		fmt.Fprintf(&b, "%s: ", p.Rule)
	}
	b.WriteString(p.Reason)
	return b.String()
}

// fault is an error at a line of a rule.
type fault struct {
	line   int
	reason string
}

func (f *fault) Error() string { return fmt.Sprintf("line %d: %s", f.line, f.reason) }

func faultf(line int, format string, args ...any) error {
	return &fault{line, fmt.Sprintf(format, args...)}
}
