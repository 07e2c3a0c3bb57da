package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	progressAfter = time.Second
	progressEvery = 250 * time.Millisecond
)

// progress is the line on a terminal that says that a query is still running: rows so
// far, and the time. It is gone before anything else is written there. It owns one
// goroutine, from startProgress to stop.
type progress struct {
	mu    sync.Mutex
	to    io.Writer // the terminal; nil when there is none to write to
	begun time.Time
	rows  int
	shown bool
	quiet bool // the answer itself shows the progress

	end  chan struct{}
	done chan struct{}
}

func startProgress(to io.Writer) *progress {
	p := &progress{to: to, begun: time.Now(), end: make(chan struct{}), done: make(chan struct{})}
	if to == nil {
		close(p.done)
		return p
	}
	go func() {
		defer close(p.done)
		next := time.NewTimer(progressAfter)
		defer next.Stop()
		for {
			select {
			case <-p.end:
				return
			case <-next.C:
				p.show()
				next.Reset(progressEvery)
			}
		}
	}()
	return p
}

// row counts a row.
func (p *progress) row() {
	p.mu.Lock()
	p.rows++
	p.mu.Unlock()
}

func (p *progress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quiet {
		return
	}
	p.shown = true
	rows := "rows"
	if p.rows == 1 {
		rows = "row"
	}
	fmt.Fprintf(p.to, "\r%d %s, %.0f s (Ctrl-C stops the query)\x1b[K", p.rows, rows, time.Since(p.begun).Seconds())
}

// erase removes the line; p.mu is held.
func (p *progress) erase() {
	if p.shown {
		p.shown = false
		io.WriteString(p.to, "\r\x1b[K")
	}
}

// stop removes the line for good and ends the goroutine.
func (p *progress) stop() {
	close(p.end)
	<-p.done
	p.mu.Lock()
	p.erase()
	p.mu.Unlock()
}

// over returns a writer to w that erases the line first. When w is the same screen, what
// is written there takes the line's place from then on.
func (p *progress) over(w io.Writer, sameScreen bool) io.Writer {
	return writerFunc(func(b []byte) (int, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.erase()
		p.quiet = p.quiet || sameScreen
		return w.Write(b)
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
