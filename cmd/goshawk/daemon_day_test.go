package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/remotetest"
)

// dayClock is a clock that moves on to the next sleeper's hour as soon as all who sleep by it
// do. What takes real time, such as a request, stops it, but not for longer than stall: who
// waits for one that sleeps (for the lock of an enrolment that is tried again) does not sleep.
type dayClock struct {
	mu       sync.Mutex
	now      time.Time
	need     int // how many sleep by it
	moves    int // how often somebody fell asleep or was woken for want of that
	sleepers map[*sleeper]bool
}

type sleeper struct {
	until time.Time
	wake  chan struct{}
}

func (c *dayClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

const stall = 3 * time.Second // longer than a request may take

// move wakes the next sleeper when at least need sleep; c.mu is held.
func (c *dayClock) move(need int) {
	if len(c.sleepers) < max(need, 1) {
		return
	}
	var next *sleeper
	for s := range c.sleepers {
		if next == nil || s.until.Before(next.until) {
			next = s
		}
	}
	if next.until.After(c.now) {
		c.now = next.until
	}
	delete(c.sleepers, next)
	close(next.wake)
}

func (c *dayClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	s := &sleeper{c.now.Add(d), make(chan struct{})}
	c.sleepers[s] = true
	c.moves++
	c.move(c.need)
	moves := c.moves
	c.mu.Unlock()
	stalled := time.NewTicker(stall)
	defer stalled.Stop()
	for {
		select {
		case <-s.wake:
			return ctx.Err()
		case <-stalled.C:
			c.mu.Lock()
			if c.moves == moves {
				c.moves++
				c.move(1)
			}
			moves = c.moves
			c.mu.Unlock()
		case <-ctx.Done():
			c.mu.Lock()
			delete(c.sleepers, s)
			c.mu.Unlock()
			return ctx.Err()
		}
	}
}

// TestDaemonDay runs a day of a daemon's life under a server that fails one request in ten,
// in each way that servers have. No line is missing at the end, and each that came twice
// came whole and alike.
func TestDaemonDay(t *testing.T) {
	s := remotetest.Start(t)
	const conf = `{"options":{"distributed_interval":60,"logger_tls_period":30,"logger_tls_compress":true,"logger_tls_backoff_max":120},
		"schedule":{"tick":{"query":"SELECT executions FROM osquery_schedule WHERE name='tick'","interval":60},
			"snap":{"query":"SELECT 1 AS one","interval":600,"snapshot":true}%s},
		"packs":{"p":{"discovery":["SELECT 1"],"queries":{"hourly":{"query":"SELECT executions FROM osquery_schedule WHERE name LIKE '%%hourly'","interval":3600}}}},
		"decorators":{"load":["SELECT 'd' AS deco"],"interval":{"3600":["SELECT count(*) AS n FROM osquery_schedule"]}}}`
	s.Config = fmt.Sprintf(conf, "")
	r := rand.New(rand.NewPCG(1, 2))
	faults := map[string]int{}
	awake := false // nothing fails, and so nobody waits, before all who sleep by the clock are there
	s.Fault = func(w http.ResponseWriter, req *http.Request, body []byte) bool {
		if !awake || r.IntN(10) > 0 {
			return false
		}
		kinds := []string{"500", "502 without a word", "error", "forgotten", "closed", "cut", "slow", "html", "done and closed", "gzip refused"}
		kind := kinds[r.IntN(len(kinds))]
		faults[kind]++
		switch kind {
		case "500":
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, "{}")
		case "502 without a word":
			w.WriteHeader(http.StatusBadGateway)
		case "error":
			io.WriteString(w, `{"error":"not now"}`)
		case "forgotten":
			clear(s.Keys)
			return false
		case "closed":
			closeConnection(w)
		case "cut":
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"node_inv`)
		case "slow":
			time.Sleep(60 * time.Millisecond)
			closeConnection(w)
		case "html":
			io.WriteString(w, "<html>maintenance</html>")
		case "gzip refused":
			if req.Header.Get("Content-Encoding") != "gzip" {
				return false
			}
			w.WriteHeader(http.StatusUnsupportedMediaType)
		case "done and closed": // what was sent has arrived, but the agent cannot know
			if req.URL.Path == remotetest.Log {
				var q struct {
					Type string            `json:"log_type"`
					Data []json.RawMessage `json:"data"`
				}
				if err := json.Unmarshal(body, &q); err != nil {
					t.Error(err)
				}
				if q.Type == "result" {
					s.Results = append(s.Results, q.Data...)
				}
			}
			closeConnection(w)
		}
		return true
	}

	flags, problems, err := config.Parse([]string{
		"--root_dir=" + t.TempDir(), "--disable_events", "--schedule_splay_percent=0", "--logger_stderr=false",
		"--tls_hostname=" + s.Host, "--tls_server_certs=" + s.CA, "--config_plugin=tls", "--logger_plugin=tls",
		"--enroll_tls_endpoint=" + remotetest.Enroll, "--config_tls_endpoint=" + remotetest.Config, "--enroll_secret_path=" + s.SecretFile(),
		"--disable_distributed=false", "--config_refresh=300", "--config_accelerated_refresh=60", "--tls_enroll_max_attempts=0",
		"--logger_tls_endpoint=" + remotetest.Log, "--distributed_tls_read_endpoint=" + remotetest.Read, "--distributed_tls_write_endpoint=" + remotetest.Write,
	})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	// The scheduler, two drains, the relay of statuses, the refresh and distributed queries.
	clock := &dayClock{now: begin, need: 6, sleepers: map[*sleeper]bool{}}
	out := &said{}
	d, err := newDaemonRun(flags, problems, out)
	if err != nil {
		t.Fatal(err)
	}
	d.now, d.sleep, d.timeout = clock.Now, clock.Sleep, 2*time.Second
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.run(ctx, out, out) }()
	waitFor := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(4 * time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
			select {
			case err := <-done:
				t.Fatalf("%s: the daemon has ended: %v\n%s", what, err, out)
			default:
			}
			if time.Now().After(end) {
				t.Fatalf("%s: not in four minutes; it is %v", what, clock.Now())
			}
		}
	}
	waitFor("ready", func() bool { return strings.Contains(out.String(), "ready:") })
	s.Do(func() { awake = true })
	asked := 0
	for hour := range 24 {
		waitFor(fmt.Sprintf("hour %d", hour), func() bool { return clock.Now().After(begin.Add(time.Duration(hour) * time.Hour)) })
		s.Do(func() {
			s.Queries[fmt.Sprintf("q%d", hour)] = fmt.Sprintf("SELECT %d AS hour", hour)
			asked++
			if hour == 12 {
				s.Config = fmt.Sprintf(conf, `,"noon":{"query":"SELECT 'noon' AS t","interval":60}`)
			}
		})
	}
	waitFor("midnight", func() bool { return clock.Now().After(begin.Add(24 * time.Hour)) })
	s.Do(func() { s.Fault = nil })
	waitFor("the last lines", func() bool { return clock.Now().After(begin.Add(24*time.Hour + 20*time.Minute)) })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}

	s.Do(func() {
		counters := map[string]map[int]string{"tick": {}, "pack_p_hourly": {}, "noon": {}, "snap": {}}
		lines, twice := 0, 0
		whole := map[string]bool{}
		for _, line := range s.Results {
			var l struct {
				Name        string
				Counter     int
				UnixTime    int64
				Action      string
				Columns     map[string]string
				Decorations map[string]string
			}
			if err := json.Unmarshal(line, &l); err != nil || counters[l.Name] == nil || l.Decorations["deco"] != "d" {
				t.Fatalf("line %s: %v", line, err)
			}
			lines++
			if whole[string(line)] {
				twice++
			}
			whole[string(line)] = true
			number := l.Counter
			if l.Name == "snap" {
				number = int(l.UnixTime-begin.Unix()) / 600
			}
			key := fmt.Sprint(l.Action, l.Columns)
			if have := counters[l.Name][number]; l.Action == "added" && have != "" && have != key {
				t.Fatalf("%s: counter %d is %s and %s", l.Name, number, have, key)
			}
			if l.Action != "removed" {
				counters[l.Name][number] = key
			}
		}
		// The schedule's first second is at the start, which enrolment may have delayed.
		for name, least := range map[string]int{"tick": 1435, "pack_p_hourly": 23, "noon": 1, "snap": 143} {
			seen := counters[name]
			last := 0
			for n := range seen {
				last = max(last, n)
			}
			if len(seen) < least {
				t.Errorf("%s: %d runs", name, len(seen))
			}
			for n := 1; n <= last; n++ {
				if seen[n] == "" {
					t.Errorf("%s: run %d of %d is missing", name, n, last)
				}
			}
		}
		answered := map[string]bool{}
		for _, w := range s.Written {
			for id, rows := range w.Queries {
				if w.Statuses[id] != 0 || len(rows) != 1 || "q"+rows[0]["hour"] != id {
					t.Errorf("%s: %v, status %d", id, rows, w.Statuses[id])
				}
				answered[id] = true
			}
		}
		// A query whose request was answered into a closed connection is the server's to repeat;
		// but here the server gives it out only when it answers.
		if len(answered) != asked {
			t.Errorf("%d of %d queries answered", len(answered), asked)
		}
		t.Logf("%d lines, %d of them twice, %d enrolments, %d requests, faults %v", lines, twice, len(s.Enrolled), len(s.Requests), faults)
	})
}

// closeConnection ends a request without an answer.
func closeConnection(w http.ResponseWriter) {
	if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
		c.Close()
	}
}
