package rule

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

const (
	// maxAlerts is how many alerts a rule raises in a minute, whatever happens: the others
	// are counted, and told with the next.
	maxAlerts = 1000
	// maxLimits bounds what is remembered of alerts raised.
	maxLimits = 16_384
	// maxEvidence bounds the events that an alert names.
	maxEvidence = 64
)

// limit is what was raised of a rule with some values.
type limit struct {
	since      time.Duration
	raised     uint64
	suppressed uint64
}

// counts are of alerts.
type counts struct {
	raised, throttled, silenced, evicted uint64

	others atomic.Uint64 // silenced, of those that the engine does not raise
}

// Counts says how many alerts were raised and suppressed. It belongs to Match's goroutine.
func (en *Engine) Counts() []event.Count {
	silenced := en.counts.silenced + en.counts.others.Load()
	return []event.Count{
		{Source: "rules", Kind: event.KindAlert, What: event.Generated, N: en.counts.raised + en.counts.throttled + silenced},
		{Source: "rules", Kind: event.KindAlert, What: event.Delivered, N: en.counts.raised},
		{Source: "rules", Kind: event.KindAlert, What: event.Filtered, N: en.counts.throttled + silenced},
		{Source: "rules", Kind: event.KindAlert, What: event.Evicted, N: en.counts.evicted},
	}
}

// raise has a rule's finding become an alert, and hands it to correlations.
func (en *Engine) raise(r *Rule, e event.Event) {
	for _, c := range en.now.of[r] {
		en.correlate(c, r, e)
	}
	if r.silent {
		return
	}
	en.evidence = appendEvidence(append(en.evidence[:0], '['), e)
	en.alert(r, e, append(en.evidence, ']'), e.Head().EID)
}

// alert makes an alert, unless it is to be kept back.
func (en *Engine) alert(r *Rule, e event.Event, evidence []byte, proof ...int64) {
	if en.now.silent(r, e.Head().Time) {
		en.counts.silenced++
		return
	}
	suppressed, ok := en.allow(r, e)
	if !ok {
		en.counts.throttled++
		return
	}
	en.counts.raised++
	a := &event.Alert{
		Header: *e.Head(), RuleID: r.ID, RuleName: r.Title, Level: r.Level, Description: r.Description,
		Tags: list(r.Tags), Evidence: string(evidence), Suppressed: suppressed, Proof: proof,
	}
	a.Kind, a.EID = event.KindAlert, 0
	switch x := e.(type) {
	case *event.Exec:
		a.Summary, a.Ancestors = string(appendWords(nil, x.Args)), x.Ancestors
	case *event.Socket:
		a.Summary = x.Kind.String() + " " + x.RemoteAddress
		if x.Kind == event.KindBind || x.Kind == event.KindListen {
			a.Summary = x.Kind.String() + " " + x.LocalAddress
		}
	default:
		a.Summary = e.Head().Kind.String()
	}
	en.alerts = append(en.alerts, a)
}

// list joins texts as a column of strings keeps them.
func list(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return strings.Join(s, "\x00") + "\x00"
}

// appendEvidence appends the keys of an event: kind, table, eid and process.
func appendEvidence(dst []byte, e event.Event) []byte {
	h := e.Head()
	dst = append(dst, `{"kind":`...)
	dst = schema.AppendString(dst, h.Kind.String())
	if k := event.ByID(h.Kind); k != nil {
		dst = append(dst, `,"table":`...)
		dst = schema.AppendString(dst, k.Table)
	}
	dst = append(dst, `,"eid":`...)
	dst = strconv.AppendInt(dst, h.EID, 10)
	if h.Start != 0 && h.PID != 0 {
		dst = append(dst, `,"process_id":`...)
		dst = schema.AppendString(dst, event.ProcessID(h.BootID, h.PID, h.Start))
	}
	return append(dst, '}')
}

// Silenced reports whether n alerts of what is called so are to be kept back at a time, in unix ns,
// as a rule's would be, and counts them then. It may be called by any goroutine.
func (en *Engine) Silenced(id string, at int64, n uint64) bool {
	if !en.set.Load().silent(&Rule{ID: id}, at) {
		return false
	}
	en.counts.others.Add(n)
	return true
}

// silent reports whether a rule is to be silent at a time, in unix ns.
func (set *Set) silent(r *Rule, at int64) bool {
	t := time.Unix(0, at)
	for _, s := range set.silences {
		if !t.Before(s.from) && t.Before(s.until) && r.named(s.rules) {
			return true
		}
	}
	return false
}

// named reports whether a list of rules has this one in it.
func (r *Rule) named(rules []string) bool {
	for _, name := range rules {
		if name == "any" || name == r.ID || name == r.Name && name != "" {
			return true
		}
	}
	return false
}

// allow reports whether a rule may raise an alert for e now, and how many it may not since
// the last.
func (en *Engine) allow(r *Rule, e event.Event) (suppressed uint64, ok bool) {
	every, most := time.Minute, uint64(maxAlerts)
	key := r.ID
	if r.throttle.every > 0 {
		every, most = r.throttle.every, 1
		key = string(en.throttleKey(r, e))
	}
	now := timeOf(e)
	l := en.limits[key]
	if l == nil {
		if len(en.order) == maxLimits {
			delete(en.limits, en.order[0])
			en.order = append(en.order[:0], en.order[1:]...)
			en.counts.evicted++
		}
		l = &limit{since: now}
		en.limits[key] = l
		en.order = append(en.order, key)
	}
	if now-l.since >= every {
		l.since, l.raised = now, 0
	}
	if l.raised >= most {
		l.suppressed++
		return 0, false
	}
	l.raised++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}

// throttleKey is what alerts that are alike have in common.
func (en *Engine) throttleKey(r *Rule, e event.Event) []byte {
	key := append([]byte(r.ID), 0)
	for _, name := range r.throttle.by {
		text, _ := en.now.fieldOf(r, e, name, en)
		key = append(append(key, text...), 0)
	}
	return key
}
