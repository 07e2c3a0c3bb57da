package canary

import (
	"context"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Reason is why events count as lost that a silent hook did not tell.
const Reason = "hook_silent"

// missed is what silent hooks did not tell, since the start and in the last round.
type missed struct {
	counts []event.Count
	silent []event.Hook
}

// Run tries every hook each interval until ctx ends. When a hook has gone silent, or tells
// again, changed is called: with what was not told, once for each hook at least, or nothing.
// A hook is silent when it fails twice in a row: a machine may be too busy for a second.
func (c *Canary) Run(ctx context.Context, interval time.Duration, changed func(silent []Result)) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		silent := c.failing()
		if ctx.Err() != nil {
			return // what the sources were stopped for
		}
		if before := c.note(silent); len(silent) > 0 || before > 0 {
			changed(silent)
		}
	}
}

// failing are the trials that were not told in two rounds.
func (c *Canary) failing() []Result {
	first := silent(c.Once())
	if len(first) == 0 {
		return nil
	}
	var both []Result
	for _, r := range silent(c.Once()) {
		for _, f := range first {
			if f.What == r.What && f.Kind == r.Kind {
				both = append(both, r)
				break
			}
		}
	}
	return both
}

func silent(all []Result) []Result {
	var out []Result
	for _, r := range all {
		if r.Silent {
			out = append(out, r)
		}
	}
	return out
}

// note counts what was not told, and returns how many hooks were silent before.
func (c *Canary) note(silent []Result) (before int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before = len(c.missed.silent)
	c.missed.silent = nil
next:
	for _, r := range silent {
		c.missed.silent = append(c.missed.silent, event.Hook{Source: r.Source, Name: r.Hook})
		for i := range c.missed.counts {
			if n := &c.missed.counts[i]; n.Source == r.Source && n.Kind == r.Kind {
				n.N++
				continue next
			}
		}
		c.missed.counts = append(c.missed.counts,
			event.Count{Source: r.Source, Kind: r.Kind, What: event.Lost, Reason: Reason, N: 1})
	}
	return before
}

// Counts is what the source lost by silent hooks, as counters to add to the source's own:
// each was generated, and lost.
func (c *Canary) Counts(source string) []event.Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []event.Count
	for _, n := range c.missed.counts {
		if n.Source != source {
			continue
		}
		out = append(out, n)
		n.What, n.Reason = event.Generated, ""
		out = append(out, n)
	}
	return out
}

// Mark says of each hook whether it was silent in the last round.
func (c *Canary) Mark(hooks []event.Hook) []event.Hook {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range hooks {
		for _, s := range c.missed.silent {
			if s.Source == hooks[i].Source && s.Name == hooks[i].Name {
				hooks[i].Silent = true
			}
		}
	}
	return hooks
}
