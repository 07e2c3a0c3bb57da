package agent

import (
	"cmp"
	"slices"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

// losses remembers counters, to tell what was lost since it last looked.
type losses struct {
	last  map[lossKey]uint64
	since int64 // unix ns
}

type lossKey struct {
	source string
	kind   event.ID
	reason string
}

// tellLosses sends a loss event for each counter of lost events that has grown. Loss
// events that a sink loses are counted but make no further ones: a stuck sink would keep
// an idle agent busy for ever.
func (a *Agent) tellLosses() {
	now := time.Now().UnixNano()
	var grown []event.Loss
	for _, c := range a.counts() {
		if c.What != event.Lost || c.Kind == event.KindLoss {
			continue
		}
		key := lossKey{c.Source, c.Kind, c.Reason}
		n := c.N - a.losses.last[key]
		if c.N <= a.losses.last[key] {
			continue
		}
		a.losses.last[key] = c.N
		kind := "unknown"
		if c.Kind != 0 {
			kind = c.Kind.String()
		}
		grown = append(grown, event.Loss{
			Header: event.Header{
				Kind: event.KindLoss, Time: now, NTime: event.BootNow(), Source: c.Source,
				BootID: a.opt.BootID, AUID: unset, Session: unset,
			},
			KindLost: kind, Reason: c.Reason, Count: n, WindowStart: a.losses.since, WindowEnd: now,
		})
	}
	slices.SortFunc(grown, func(x, y event.Loss) int {
		return cmp.Or(cmp.Compare(x.Source, y.Source), cmp.Compare(x.KindLost, y.KindLost), cmp.Compare(x.Reason, y.Reason))
	})
	for i := range grown {
		a.emit(&grown[i])
	}
	a.losses.since = now
}

// unset is the kernel's (uid_t)-1 for "no login" and "no session".
const unset = 1<<32 - 1

// counts gathers the counters of everything.
func (a *Agent) counts() []event.Count {
	var all []event.Count
	for i := range a.opt.Inputs {
		if f := a.opt.Inputs[i].Counts; f != nil {
			all = append(all, f()...)
		}
	}
	for kind, n := range a.repeated {
		if n > 0 {
			all = append(all, event.Count{Source: "agent", Kind: event.ID(kind), What: event.Filtered, Reason: "duplicate", N: n})
		}
	}
	for kind, n := range a.ours {
		if n > 0 {
			all = append(all, event.Count{Source: "agent", Kind: event.ID(kind), What: event.Filtered, Reason: "canary", N: n})
		}
	}
	for kind, n := range a.passed {
		if n > 0 {
			all = append(all, event.Count{Source: "agent", Kind: event.ID(kind), What: event.Filtered, Reason: "no_container", N: n})
		}
	}
	for kind, n := range a.helped {
		if n > 0 {
			all = append(all, event.Count{Source: "agent", Kind: event.ID(kind), What: event.Filtered, Reason: "not_asked", N: n})
		}
	}
	if n := a.unselected; n > 0 {
		all = append(all, event.Count{Source: "agent", Kind: event.KindFile, What: event.Filtered, Reason: "not_watched", N: n})
	}
	if a.opt.Containers != nil {
		all = append(all, a.opt.Containers.Counts()...)
	}
	if a.opt.RuleCounts != nil {
		all = append(all, a.opt.RuleCounts()...)
	}
	all = a.order.counts(all)
	all = append(all, a.opt.Processes.Counts()...)
	if a.opt.StoreCounts != nil {
		all = append(all, a.opt.StoreCounts()...)
	}
	for i := range a.opt.Outputs {
		if f := a.opt.Outputs[i].Counts; f != nil {
			all = append(all, f()...)
		}
	}
	return all
}
