package sink

import (
	"context"
	"fmt"
	"time"

	"github.com/goshawk-project/goshawk/internal/state"
)

// Drain carries log lines from the queue of a stream to where they go. A line leaves the
// queue when it has been taken; until then it is tried again, also by the next process.
type Drain struct {
	State  *state.DB
	Stream string
	// Limits are the most lines and bytes of one write.
	Limits func() (lines, bytes int)
	// Write takes a batch: all of it, but for so many lines that are too long for ever, or
	// none. It returns what is to be remembered with that, "" for nothing.
	Write func(ctx context.Context, b state.Batch, mark string) (tooLong int, next string, err error)
	// Period is how long to wait between looks at the queue; 0: no longer than until
	// there are lines.
	Period func() time.Duration
	// Backoff is how long to wait after so many failures in a row.
	Backoff func(failures int) time.Duration
	Sleep   func(ctx context.Context, d time.Duration) error
	// Failed is told the first of failures in a row; it may be nil.
	Failed func(error)
}

const domainMark = "mark" // by stream: how far its logger is

// Remember keeps a mark at once, for a Write that must not be done twice.
func (d *Drain) Remember(mark string) error { return d.State.Put(domainMark, d.Stream, mark) }

// Run carries lines until ctx ends.
func (d *Drain) Run(ctx context.Context) {
	ready := d.State.Ready(d.Stream)
	failures := 0
	for ctx.Err() == nil {
		if d.Period == nil {
			select {
			case <-ready:
			case <-ctx.Done():
				return
			}
		}
		wait := time.Duration(0)
		if d.Period != nil {
			wait = d.Period()
		}
		switch err := d.empty(ctx); {
		case err == nil:
			failures = 0
		case ctx.Err() != nil:
			return
		default:
			if failures++; failures == 1 && d.Failed != nil {
				d.Failed(err)
			}
			wait = max(wait, d.Backoff(failures))
			select { // there are lines, even if none is added
			case d.State.Again(d.Stream) <- struct{}{}:
			default:
			}
		}
		if wait > 0 && d.Sleep(ctx, wait) != nil {
			return
		}
	}
}

// Flush carries what waits now, and stops at the first failure.
func (d *Drain) Flush(ctx context.Context) error { return d.empty(ctx) }

// empty carries all that waits.
func (d *Drain) empty(ctx context.Context) error {
	for ctx.Err() == nil {
		lines, size := d.Limits()
		b, err := d.State.Take(d.Stream, max(1, lines), max(1, size))
		if err != nil {
			return err
		}
		if b.Count == 0 {
			return nil
		}
		mark, _, err := d.State.Get(domainMark, d.Stream)
		if err != nil {
			return err
		}
		tooLong, next, err := d.Write(ctx, b, mark)
		if err != nil {
			return fmt.Errorf("log to %s: %w", d.Stream, err)
		}
		err = d.State.Done(b, tooLong, func(tx *state.Tx) error {
			if next == "" || next == mark {
				return nil
			}
			return tx.Put(domainMark, d.Stream, next)
		})
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}
