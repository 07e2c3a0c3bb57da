package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/goshawk-project/goshawk/internal/canary"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/sensor"
)

// selfTest is what became of one thing of each kind, done on purpose.
type selfTest struct {
	Trials  []trialText   `json:"trials"`
	Balance []balanceText `json:"balance"`
}

type trialText struct {
	Hook    string  `json:"hook"`
	Kind    string  `json:"kind"`
	What    string  `json:"what"`
	Latency float64 `json:"latency_ms"` // from doing it until it was told
	OK      bool    `json:"ok"`
	Skipped string  `json:"skipped,omitempty"` // why it was not tried
	Problem string  `json:"problem,omitempty"`
}

// balanceText is what the source counted of one kind while the test ran, of all processes.
type balanceText struct {
	Kind      string `json:"kind"`
	Generated uint64 `json:"generated"`
	Delivered uint64 `json:"delivered"`
	Filtered  uint64 `json:"filtered"`
	Lost      uint64 `json:"lost"`
	OK        bool   `json:"ok"` // generated = delivered + filtered + lost
}

// testHooks runs the sensor for as long as a round of the canary lasts. Afterwards the
// sensor only wants to be closed.
func testHooks(ctx context.Context, s *sensor.Sensor) (*selfTest, error) {
	c := canary.New(s.Hooks, s.Counts)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	batches := make(chan *event.Batch)
	var reading sync.WaitGroup
	reading.Go(func() {
		for b := range batches {
			for _, e := range b.Events {
				c.Own(e)
			}
			b.Release()
		}
	})
	var err error
	var running sync.WaitGroup
	running.Go(func() {
		err = s.Run(ctx, batches)
		close(batches)
	})
	t := &selfTest{}
	for _, r := range c.Once() {
		t.Trials = append(t.Trials, trialText{
			Hook: r.Hook, Kind: r.Kind.String(), What: r.What, Latency: float64(r.Latency.Round(time.Microsecond)) / 1e6,
			OK: r.OK(), Skipped: r.Skipped, Problem: r.Problem,
		})
	}
	stop()
	running.Wait()
	reading.Wait()
	t.balance(s.Counts())
	return t, err
}

// balance sums counters by kind. Records that no kind could be told of were lost by all.
func (t *selfTest) balance(counts []event.Count) {
	for _, k := range event.Kinds {
		b := balanceText{Kind: k.Name}
		for _, c := range counts {
			if c.Kind != k.ID {
				continue
			}
			switch c.What {
			case event.Generated:
				b.Generated += c.N
			case event.Delivered:
				b.Delivered += c.N
			case event.Filtered:
				b.Filtered += c.N
			case event.Lost:
				b.Lost += c.N
			}
		}
		if b.OK = b.Generated == b.Delivered+b.Filtered+b.Lost; b.Generated > 0 || !b.OK {
			t.Balance = append(t.Balance, b)
		}
	}
}

// failures says what is wrong, and how many trials there were.
func (t *selfTest) failures() (wrong []string, tried int) {
	for _, x := range t.Trials {
		switch {
		case x.Skipped != "":
			continue
		case !x.OK:
			wrong = append(wrong, fmt.Sprintf("%s (%s) %s", x.What, x.Hook, x.Problem))
		}
		tried++
	}
	for _, b := range t.Balance {
		if !b.OK {
			wrong = append(wrong, fmt.Sprintf("%s: %d generated, but %d delivered, %d filtered and %d lost",
				b.Kind, b.Generated, b.Delivered, b.Filtered, b.Lost))
		}
	}
	return wrong, tried
}

// concludeTest adds to the last line what the self-test found, and returns the exit code.
func (r *report) concludeTest(err error) int {
	if err != nil {
		r.Result += "; self-test failed: " + oneLine(err)
		return exitFailed
	}
	if r.SelfTest == nil {
		return exitOK
	}
	wrong, tried := r.SelfTest.failures()
	if len(wrong) > 0 {
		r.Result += "; self-test failed: " + strings.Join(wrong, "; ")
		return exitFailed
	}
	r.Result += fmt.Sprintf("; self-test passed: %d of %d things done were told", tried, tried)
	if skipped := len(r.SelfTest.Trials) - tried; skipped > 0 {
		r.Result += fmt.Sprintf(", %d were not tried", skipped)
	}
	return exitOK
}

func (t *selfTest) text(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SELF-TEST\tKIND\tLATENCY\tRESULT\tDONE")
	for _, x := range t.Trials {
		hook, latency, result := x.Hook, fmt.Sprintf("%.1f ms", x.Latency), "ok"
		switch {
		case x.Skipped != "":
			latency, result = "-", "not tried: "+x.Skipped
		case x.Latency == 0:
			latency, result = "-", x.Problem
		case !x.OK:
			result = x.Problem
		}
		if hook == "" {
			hook = "-"
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t%s\n", hook, x.Kind, latency, safe(result), x.What)
	}
	fmt.Fprintln(tw, "BALANCE\tGENERATED\tDELIVERED\tFILTERED\tLOST")
	for _, b := range t.Balance {
		ok := ""
		if !b.OK {
			ok = " does not balance"
		}
		fmt.Fprintf(tw, "  %s\t%d\t%d\t%d\t%d%s\n", b.Kind, b.Generated, b.Delivered, b.Filtered, b.Lost, ok)
	}
	return tw.Flush()
}
