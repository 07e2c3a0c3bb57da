// Package agent is the loop that owns everything at run time: it takes batches of events
// from the sources' one channel, completes them from the process table, keeps them in the
// store, offers them to sinks, and turns what was lost on the way into events of its own.
//
// It meets sources, the store and sinks through small interfaces and must never know what
// they are. The goroutine that runs Run owns the process table and the store's tail; what
// others want of these, it does for them.
package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/process"
)

// Source is where batches come from.
type Source interface {
	// Run sends batches until ctx ends, then those under way, and returns. It may block
	// on out: until it returns, somebody receives.
	Run(ctx context.Context, out chan<- *event.Batch) error
}

// Store is where events are kept. Append is called by the agent's goroutine alone.
type Store interface {
	// Append numbers e and takes a copy of it. It never waits for the disk.
	Append(e event.Event)
	// Commit makes durable, and visible to readers, what was appended.
	Commit(ctx context.Context) error
	// Pin has events outlive others that were appended when they were.
	Pin(eids ...int64)
}

// Containers says which container each event belongs to. It is called by the agent's
// goroutine alone.
type Containers interface {
	// Complete fills in the container of e, and reports whether e is to be kept.
	Complete(e event.Event) bool
	// Derived returns the events that followed from those completed since the last call.
	Derived() []event.Event
	Counts() []event.Count
}

// Rules says which events are worth an alert. It is called by the agent's goroutine alone.
type Rules interface {
	// Match returns the alerts that e raises, valid until the next call.
	Match(e event.Event) []event.Event
}

// Contents finds out what is in files, aside from the way of events.
type Contents interface {
	// Ask takes a copy of e, which comes back by Done, and reports whether it did. It never blocks.
	Ask(e *event.File) bool
	Done() <-chan *event.File
	// Close gives back what it still has, and closes Done.
	Close()
}

// Sink is where events go to.
type Sink interface {
	// Offer takes a copy of events. It never blocks.
	Offer(events []event.Event)
}

// Input is a source with what it can tell about itself. Its functions may be called from
// any goroutine.
type Input struct {
	Name   string
	Source Source
	Hooks  func() []event.Hook  // nil: none
	Counts func() []event.Count // nil: none
	// Lag is how long after they happened its events may come; 0: gather.
	Lag time.Duration
	// Slow is how far its clock may be behind: an event may have happened so much later than
	// it says, or at any time between.
	Slow time.Duration
	// Aside: it tells what is known rather than what happened. Its events are put in no
	// order of time, and with it alone the agent has nothing to wait for.
	Aside bool
}

// Output is a sink with what it can tell about itself.
type Output struct {
	Name   string
	Sink   Sink
	Counts func() []event.Count // nil: none
	// Close writes what is queued and ends the sink; nil: nothing to do.
	Close func(ctx context.Context) error
}

// Options of an agent.
type Options struct {
	Inputs      []Input
	Processes   *process.Table
	Containers  Containers           // nil: none are looked for
	Rules       Rules                // nil: there are none
	RuleCounts  func() []event.Count // nil: none
	Store       Store
	StoreCounts func() []event.Count // nil: none
	Outputs     []Output
	BootID      string
	// Peak returns the peak resident memory of this process in bytes; nil: not known.
	Peak func() (uint64, error)
	// Own reports whether an event is of the agent's own making, to try its hooks: such are
	// learnt from, but neither kept nor shown. Nil: none is.
	Own func(event.Event) bool
	// Helping are kinds that are sensed to complete others, and asked for by nobody: learnt
	// from, and neither kept nor shown.
	Helping []event.ID
	// Contents is closed by Run. Nil: nobody looks into files.
	Contents Contents
	// Modules does the same for the files of kernel modules, and for nothing else, so that these
	// never wait for others. It is closed by Run. Nil: nobody does.
	Modules Contents
	// Select puts an event on a file under its category, and reports whether somebody asked for
	// that file. Nil: all were asked for.
	Select func(*event.File) bool
	// Warn takes a sentence for the operator; nil: nobody listens.
	Warn func(string)
}

const (
	// queued batches may wait for the loop: about 2,000 events, 10 ms of a flood.
	queued = 8
	// pollEvery is how often counters are read while events come, and so the window that
	// a loss event covers. With no events no timer runs.
	pollEvery = time.Second
	// gather is how long a source may hold records back before it hands them over, unless
	// it says otherwise.
	gather = 30 * time.Millisecond

	stopSources = 10 * time.Second
	stopStore   = 10 * time.Second
	stopSinks   = 5 * time.Second
)

// ErrStopped is the answer of an agent that has ended.
var ErrStopped = errors.New("the agent has stopped")

// Agent is one run of the loop.
type Agent struct {
	opt      Options
	in       chan *event.Batch
	requests chan func()
	stopped  chan struct{} // closed when requests are no longer served
	begun    time.Time
	wait     time.Duration // how late events may come

	// What follows belongs to the loop.
	seen     [event.MaxKind + 1]uint64 // events by kind, taken in
	repeated [event.MaxKind + 1]uint64 // exits reported twice
	ours     [event.MaxKind + 1]uint64 // of our own making
	passed   [event.MaxKind + 1]uint64 // cgroups that are no containers'
	helped   [event.MaxKind + 1]uint64 // of Options.Helping
	helping  [event.MaxKind + 1]bool

	unselected uint64             // files that no pattern names
	alerts     []event.Event      // of a batch, to follow it
	contents   <-chan *event.File // what comes back of Options.Contents
	modules    modules
	batches    uint64
	sources    []SourceStatus
	losses     losses
	order      order
	own        [1]event.Event // scratch
}

// New returns an agent that Run starts.
func New(opt Options) *Agent {
	if opt.Own == nil {
		opt.Own = func(event.Event) bool { return false }
	}
	if opt.Warn == nil {
		opt.Warn = func(string) {}
	}
	a := &Agent{
		opt: opt, in: make(chan *event.Batch, queued), requests: make(chan func()),
		stopped: make(chan struct{}), begun: time.Now(), losses: losses{last: make(map[lossKey]uint64)},
		order: order{slow: make(map[string]uint64)},
	}
	for _, in := range opt.Inputs {
		a.sources = append(a.sources, SourceStatus{Name: in.Name, Active: true})
		a.wait = max(a.wait, in.lag())
		if in.Slow > 0 {
			a.order.slow[in.Name] = uint64(in.Slow)
		}
	}
	for _, k := range opt.Helping {
		a.helping[k] = true
	}
	a.setLag()
	return a
}

func (in *Input) lag() time.Duration {
	if in.Lag > 0 {
		return in.Lag
	}
	return gather
}

// setLag sets how long events are held to put those of several sources in order.
func (a *Agent) setLag() {
	active := 0
	var longest time.Duration
	for i, in := range a.opt.Inputs {
		if a.sources[i].Active && !in.Aside {
			active++
			longest = max(longest, in.lag())
		}
	}
	a.order.lag = 0
	if active > 1 {
		a.order.lag = uint64(longest)
	}
}

// telling reports whether a source still tells what happens.
func (a *Agent) telling() bool {
	for i, in := range a.opt.Inputs {
		if a.sources[i].Active && !in.Aside {
			return true
		}
	}
	return false
}

// ended is a source that has returned.
type ended struct {
	source int
	err    error
}

// Run runs the loop until ctx ends or every source has, then drains what is under way,
// commits it and closes the sinks. The summary is valid whatever the error says.
func (a *Agent) Run(ctx context.Context) (Summary, error) {
	sourceCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	a.losses.since = time.Now().UnixNano()
	ends := make(chan ended, len(a.opt.Inputs))
	var running sync.WaitGroup
	for i := range a.opt.Inputs {
		running.Go(func() { ends <- ended{i, a.opt.Inputs[i].Source.Run(sourceCtx, a.in)} })
	}
	if a.opt.Contents != nil {
		a.contents = a.opt.Contents.Done()
	}
	if a.opt.Modules != nil {
		a.modules.back = a.opt.Modules.Done()
	}
	drained := make(chan struct{})
	go func() { // ends with the last source
		running.Wait()
		close(drained)
	}()

	err := a.loop(ctx, stop, ends, drained)
	drain(a.opt.Contents, func(f *event.File) { a.tell(f) })
	drain(a.opt.Modules, a.hashed)
	err = errors.Join(err, a.finish())
	close(a.stopped)
	return a.summary(), err
}

// loop takes batches until the sources are done.
func (a *Agent) loop(ctx context.Context, stop func(), ends <-chan ended, drained <-chan struct{}) error {
	poll := time.NewTimer(pollEvery)
	poll.Stop()
	defer poll.Stop()
	hold := time.NewTimer(holdStep)
	hold.Stop()
	defer hold.Stop()
	a.modules.late = time.NewTimer(moduleWait)
	a.modules.late.Stop()
	defer a.modules.late.Stop()
	armed, active, holding := false, false, false
	done := ctx.Done()
	var tooLate <-chan time.Time
	var errs []error
	for {
		select {
		case b := <-a.in:
			a.receive(b)
			active = true
			if !armed {
				poll.Reset(pollEvery)
				armed = true
			}
			if !holding {
				holding = a.holdOn(hold)
			}
		case <-hold.C:
			a.order.pass(event.BootNow()-a.order.lag, a.take)
			holding = a.holdOn(hold)
		case <-poll.C:
			a.tellLosses()
			// Once more after the last batch: what came with it may have been counted late.
			if armed = active; armed {
				poll.Reset(pollEvery)
			}
			active = false
		case f := <-a.contents:
			a.tell(f)
			active = true
			if !armed {
				poll.Reset(pollEvery)
				armed = true
			}
		case f := <-a.modules.back:
			a.hashed(f)
		case now := <-a.modules.late.C:
			a.overdue(now)
		case request := <-a.requests:
			a.takeQueued()
			request()
		case e := <-ends:
			s := &a.sources[e.source]
			s.Active = false
			a.setLag()
			if !a.telling() {
				stop() // those that stand aside have nothing to wait for
			}
			if e.err != nil && !errors.Is(e.err, context.Canceled) {
				s.Error = e.err.Error()
				errs = append(errs, fmt.Errorf("source %s: %w", s.Name, e.err))
				a.opt.Warn(fmt.Sprintf("source %s: %v", s.Name, e.err))
			}
		case <-done:
			done = nil
			stop()
			tooLate = time.After(stopSources)
		case <-drained:
			a.takeQueued()
			a.passAll()
			for len(ends) > 0 {
				if e := <-ends; e.err != nil && !errors.Is(e.err, context.Canceled) {
					errs = append(errs, fmt.Errorf("source %s: %w", a.sources[e.source].Name, e.err))
				}
			}
			return errors.Join(errs...)
		case <-tooLate:
			a.takeQueued()
			a.passAll()
			errs = append(errs, fmt.Errorf("stop sources: not done within %v", stopSources))
			return errors.Join(errs...)
		}
	}
}

// takeQueued takes the batches that wait now.
func (a *Agent) takeQueued() {
	for {
		select {
		case b := <-a.in:
			a.receive(b)
		default:
			return
		}
	}
}

// receive takes a batch over: at once, or by way of the order.
func (a *Agent) receive(b *event.Batch) {
	a.batches++
	if a.order.lag == 0 && len(a.order.held) == 0 {
		b.Events = a.take(b.Events)
		b.Release()
		return
	}
	a.order.add(b)
	a.order.pass(event.BootNow()-a.order.lag, a.take)
}

// holdOn arms the timer by which held events are passed on; false when none are held.
func (a *Agent) holdOn(t *time.Timer) bool {
	wait, ok := a.order.due(event.BootNow())
	if ok {
		t.Reset(wait)
	}
	return ok
}

// passAll passes on all that is held.
func (a *Agent) passAll() { a.order.pass(^uint64(0), a.take) }

// take is the way of every event. It overwrites the slice, and returns what is left.
func (a *Agent) take(events []event.Event) []event.Event {
	news := events[:0]
	for _, e := range events {
		kind := e.Head().Kind
		if !a.helping[kind] {
			a.seen[kind]++
		}
		if !a.opt.Processes.Complete(e) {
			a.repeated[kind]++
			continue
		}
		keep := a.opt.Containers == nil || a.opt.Containers.Complete(e)
		if a.opt.Own(e) {
			a.ours[kind]++
			continue
		}
		if !keep {
			a.passed[kind]++
			continue
		}
		if a.helping[kind] {
			a.helped[kind]++
			continue
		}
		if f, ok := e.(*event.File); ok && a.opt.Select != nil && !a.opt.Select(f) {
			a.unselected++
			continue
		} else if ok && a.opt.Contents != nil && a.opt.Contents.Ask(f) {
			continue // it comes back to keep
		}
		if m, ok := e.(*event.Module); ok && a.hold(m) {
			continue
		}
		a.opt.Store.Append(e)
		if x, ok := e.(*event.Exec); ok {
			a.opt.Processes.Numbered(x)
		}
		news = append(news, e)
		if a.opt.Rules != nil {
			a.alerts = append(a.alerts, a.opt.Rules.Match(e)...)
		}
	}
	for i := range a.opt.Outputs {
		a.opt.Outputs[i].Sink.Offer(news)
	}
	a.alert()
	if a.opt.Containers != nil {
		for _, e := range a.opt.Containers.Derived() {
			a.emit(e)
		}
	}
	return news
}

// emit sends an event of the agent's own.
func (a *Agent) emit(e event.Event) {
	a.seen[e.Head().Kind]++
	a.keep(e)
}

// alert sends the alerts that are due.
func (a *Agent) alert() {
	for _, e := range a.alerts {
		if x, ok := e.(*event.Alert); ok {
			if x.Ancestors == "" {
				x.Ancestors = a.opt.Processes.Ancestors(&x.Header)
			}
			a.opt.Store.Pin(a.opt.Processes.AppendExecs(x.Proof, &x.Header)...)
		}
		a.emit(e)
	}
	clear(a.alerts)
	a.alerts = a.alerts[:0]
}

// drain closes contents and takes what still comes back of them; nil: nothing does.
func drain(c Contents, take func(*event.File)) {
	if c == nil {
		return
	}
	back := c.Done()
	go c.Close() // ends with the last that comes back
	for f := range back {
		take(f)
	}
}

// tell takes an event that stood aside until the contents of a file were known.
func (a *Agent) tell(e event.Event) {
	a.keep(e)
	if a.opt.Rules != nil {
		a.alerts = append(a.alerts, a.opt.Rules.Match(e)...)
	}
	a.alert()
}

// keep stores and shows one event by itself.
func (a *Agent) keep(e event.Event) {
	a.opt.Store.Append(e)
	a.own[0] = e
	for i := range a.opt.Outputs {
		a.opt.Outputs[i].Sink.Offer(a.own[:])
	}
}

// finish commits, says what was lost last, and closes the sinks.
func (a *Agent) finish() error {
	a.tellLosses()
	ctx, cancel := context.WithTimeout(context.Background(), stopStore)
	defer cancel()
	errs := []error{a.opt.Store.Commit(ctx)}
	ctx, cancel = context.WithTimeout(context.Background(), stopSinks)
	defer cancel()
	for _, o := range a.opt.Outputs {
		if o.Close != nil {
			errs = append(errs, o.Close(ctx))
		}
	}
	return errors.Join(errs...)
}
