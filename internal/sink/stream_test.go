package sink

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
)

// line encodes an event as its kind and a newline.
func line(dst []byte, e event.Event) []byte {
	return append(append(dst, e.Head().Kind.String()...), '\n')
}

func events(kinds ...event.ID) []event.Event {
	var out []event.Event
	for _, k := range kinds {
		e := event.ByID(k).New()
		e.Head().Kind = k
		out = append(out, e)
	}
	return out
}

func closeWithin(t *testing.T, s *Stream, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return s.Close(ctx)
}

func wantCounts(t *testing.T, s *Stream, want ...event.Count) {
	t.Helper()
	if d := cmp.Diff(want, s.Counts()); d != "" {
		t.Errorf("counts (-want +got):\n%s", d)
	}
}

func TestStreamToAFileLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := NewStream(f, Options{Name: "stdout", Encode: NewJSON().Append})
	batch := make([]event.Event, 0, event.BatchSize)
	for range event.BatchSize {
		batch = append(batch, &event.Exec{Header: head(event.KindExec), Args: "curl\x00-s\x00http://example.com/\x00"})
	}
	for range 80 {
		s.Offer(batch)
		time.Sleep(time.Millisecond)
	}
	if err := closeWithin(t, s, time.Minute); err != nil {
		t.Fatal(err)
	}
	wantCounts(t, s, event.Count{Source: "stdout", Kind: event.KindExec, What: event.Delivered, N: 80 * 256})

	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lines := 0
	for scan := bufio.NewScanner(r); scan.Scan(); lines++ {
	}
	if lines != 80*256 {
		t.Errorf("%d lines, want %d", lines, 80*256)
	}
}

func TestSlowReaderCostsEventsNotTime(t *testing.T) {
	r, w := io.Pipe()
	s := NewStream(w, Options{Name: "stdout", Encode: line, Queue: 20})
	s.Offer(events(event.KindExec)) // 5 bytes, and the writer is stuck with them
	for stuck := false; !stuck; {
		s.mu.Lock()
		stuck = len(s.queue) == 0 && s.bytes > 0
		s.mu.Unlock()
	}
	s.Offer(events(event.KindExit, event.KindExec, event.KindConnect, event.KindExec, event.KindExec))
	read := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		read <- string(b)
	}()
	if err := closeWithin(t, s, time.Minute); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if d := cmp.Diff("exec\nexit\nexec\nexec\n", <-read); d != "" {
		t.Errorf("written (-want +got):\n%s", d)
	}
	wantCounts(t, s,
		event.Count{Source: "stdout", Kind: event.KindExec, What: event.Delivered, N: 3},
		event.Count{Source: "stdout", Kind: event.KindExec, What: event.Lost, Reason: "sink_full", N: 1},
		event.Count{Source: "stdout", Kind: event.KindExit, What: event.Delivered, N: 1},
		event.Count{Source: "stdout", Kind: event.KindConnect, What: event.Lost, Reason: "sink_full", N: 1},
	)
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestReaderGone(t *testing.T) {
	s := NewStream(failing{}, Options{Name: "stdout", Encode: line})
	s.Offer(events(event.KindExec))
	<-s.Failed()
	s.Offer(events(event.KindExit))
	err := closeWithin(t, s, time.Minute)
	if err == nil || err.Error() != "write stdout: broken pipe" {
		t.Errorf("error %v", err)
	}
	wantCounts(t, s,
		event.Count{Source: "stdout", Kind: event.KindExec, What: event.Lost, Reason: "sink_failed", N: 1},
		event.Count{Source: "stdout", Kind: event.KindExit, What: event.Lost, Reason: "sink_failed", N: 1},
	)
}

func TestCloseDoesNotWaitForEver(t *testing.T) {
	r, w := io.Pipe()
	s := NewStream(w, Options{Name: "stdout", Encode: line})
	s.Offer(events(event.KindExec, event.KindExit))
	err := closeWithin(t, s, 20*time.Millisecond)
	if err == nil || err.Error() != "write stdout: the reader is too slow" {
		t.Errorf("error %v", err)
	}
	wantCounts(t, s,
		event.Count{Source: "stdout", Kind: event.KindExec, What: event.Lost, Reason: "sink_failed", N: 1},
		event.Count{Source: "stdout", Kind: event.KindExit, What: event.Lost, Reason: "sink_failed", N: 1},
	)
	r.Close()
	<-s.done
}

func TestFilterLetsLossesThrough(t *testing.T) {
	r, w := io.Pipe()
	s := NewStream(w, Options{Name: "stdout", Encode: line, Filter: func(e event.Event) bool {
		return e.Head().Kind == event.KindExit
	}})
	read := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		read <- string(b)
	}()
	s.Offer(events(event.KindExec, event.KindExit, event.KindLoss))
	if err := closeWithin(t, s, time.Minute); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if d := cmp.Diff("exit\nloss\n", <-read); d != "" {
		t.Errorf("written (-want +got):\n%s", d)
	}
	wantCounts(t, s,
		event.Count{Source: "stdout", Kind: event.KindExec, What: event.Filtered, Reason: "where", N: 1},
		event.Count{Source: "stdout", Kind: event.KindExit, What: event.Delivered, N: 1},
		event.Count{Source: "stdout", Kind: event.KindLoss, What: event.Delivered, N: 1},
	)
}

func BenchmarkOffer(b *testing.B) {
	e := &event.Exec{Header: head(event.KindExec), Args: "curl\x00-s\x00http://example.com/\x00", Cwd: "/home/ana"}
	batch := []event.Event{e}
	for _, c := range []struct {
		name   string
		encode Encoder
	}{{"json", NewJSON().Append}, {"text", text().Append}} {
		b.Run(c.name, func(b *testing.B) {
			s := NewStream(io.Discard, Options{Name: "stdout", Encode: c.encode})
			b.ReportAllocs()
			for b.Loop() {
				s.Offer(batch)
			}
			if err := s.Close(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// TestStreamOfManySizes writes events from a byte to several chunks' worth, and asks for
// each back, in order.
func TestStreamOfManySizes(t *testing.T) {
	var want, got bytes.Buffer
	var size int
	s := NewStream(&got, Options{Name: "x", Queue: 64 << 20, Encode: func(dst []byte, e event.Event) []byte {
		for range size {
			dst = append(dst, byte('a'+size%26))
		}
		return append(dst, '\n')
	}})
	n := uint64(0)
	for _, size = range []int{0, 1, 8 << 10, 40 << 10, 20 << 10, 200 << 10, 3, 57 << 10, 7, 64 << 10, 9} {
		for range 3 {
			s.Offer(events(event.KindExec))
			want.Write(s.opt.Encode(nil, nil))
			n++
		}
		time.Sleep(time.Millisecond)
	}
	if err := closeWithin(t, s, time.Minute); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want.Bytes(), got.Bytes()) {
		t.Errorf("%d bytes were written, and not those of %d offered", got.Len(), want.Len())
	}
	wantCounts(t, s, event.Count{Source: "x", Kind: event.KindExec, What: event.Delivered, N: n})
	if s.bytes != 0 || len(s.free) > keepChunks {
		t.Errorf("%d bytes are queued, %d chunks kept", s.bytes, len(s.free))
	}
	for _, c := range s.free {
		if cap(c) != chunkSize {
			t.Errorf("a chunk of %d bytes is kept", cap(c))
		}
	}
}

// TestStreamAllocatesNothing offers what a flood brings, again and again.
func TestStreamAllocatesNothing(t *testing.T) {
	s := NewStream(io.Discard, Options{Name: "x", Encode: NewJSON().Append})
	all := traffic()
	round := func() {
		for b := all; len(b) > 0; b = b[min(len(b), event.BatchSize):] {
			s.Offer(b[:min(len(b), event.BatchSize)])
		}
		for wait := true; wait; {
			s.mu.Lock()
			wait = s.bytes > 0
			s.mu.Unlock()
			runtime.Gosched()
		}
	}
	for range 20 {
		round()
	}
	if n := testing.AllocsPerRun(100, round); n > 1 { // the scheduler's, now and then
		t.Errorf("%v allocations for %d events", n, len(all))
	}
	if err := closeWithin(t, s, time.Minute); err != nil {
		t.Fatal(err)
	}
}
