package agent

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// SourceStatus is one source as it is now.
type SourceStatus struct {
	Name   string
	Active bool
	Error  string // why it ended
}

// KindCount is how many events of a kind were taken in.
type KindCount struct {
	Kind event.ID
	N    uint64
}

// Usage is what this process has cost so far.
type Usage struct {
	CPU   time.Duration // user and system
	Peak  uint64        // resident bytes; 0 not known
	Since time.Duration // of its run
}

// Status is the agent at one moment.
type Status struct {
	Begun     time.Time
	Events    []KindCount
	Batches   uint64
	Sources   []SourceStatus
	Hooks     []event.Hook
	Counts    []event.Count
	Processes int   // known, running and lately exited
	TableSize int64 // bytes of the process table
	Usage     Usage
}

// Summary is what a run amounted to.
type Summary struct {
	Events []KindCount   // every kind that was seen, in the order of kinds
	Losses []event.Count // counters of lost events that are not zero
	Usage  Usage
}

// do runs f on the loop's goroutine, after the batches that wait there.
func (a *Agent) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case a.requests <- func() { f(); close(done) }:
	case <-a.stopped:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	<-done
	return nil
}

// Raise has alerts that somebody else has found go the way of those of rules.
func (a *Agent) Raise(ctx context.Context, alerts []*event.Alert) error {
	return a.do(ctx, func() {
		for _, x := range alerts {
			a.alerts = append(a.alerts, x)
		}
		a.alert()
	})
}

// Sync makes all that happened before the call visible to readers of the store: it waits
// for what sources hold back, and commits.
func (a *Agent) Sync(ctx context.Context) error {
	asked := event.BootNow()
	select {
	case <-time.After(a.wait):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := a.do(ctx, func() { a.order.pass(asked, a.take) }); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return a.opt.Store.Commit(ctx)
}

// TellLosses sends a loss event for each counter of lost events that has grown, now
// rather than with the next events.
func (a *Agent) TellLosses(ctx context.Context) error { return a.do(ctx, a.tellLosses) }

// Status returns the agent's present state.
func (a *Agent) Status(ctx context.Context) (Status, error) {
	var s Status
	err := a.do(ctx, func() {
		s = Status{
			Begun: a.begun, Events: a.events(), Batches: a.batches,
			Sources: append([]SourceStatus(nil), a.sources...), Counts: a.counts(),
			Processes: a.opt.Processes.Len(), TableSize: a.opt.Processes.Bytes(),
		}
	})
	if err != nil {
		return s, err
	}
	for i := range a.opt.Inputs {
		if f := a.opt.Inputs[i].Hooks; f != nil {
			s.Hooks = append(s.Hooks, f()...)
		}
	}
	s.Usage = a.usage()
	return s, nil
}

func (a *Agent) events() []KindCount {
	var out []KindCount
	for kind, n := range a.seen {
		if n > 0 {
			out = append(out, KindCount{event.ID(kind), n})
		}
	}
	return out
}

func (a *Agent) usage() Usage {
	u := Usage{Since: time.Since(a.begun)}
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) == nil {
		u.CPU = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	if a.opt.Peak != nil {
		if n, err := a.opt.Peak(); err == nil {
			u.Peak = n
		}
	}
	return u
}

func (a *Agent) summary() Summary {
	s := Summary{Events: a.events(), Usage: a.usage()}
	for _, c := range a.counts() {
		if c.What == event.Lost && c.N > 0 {
			s.Losses = append(s.Losses, c)
		}
	}
	return s
}
