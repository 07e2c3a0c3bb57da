package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
)

// ErrNotRunning is the cause of an error that means: no agent listens there.
var ErrNotRunning = errors.New("no agent is running")

const (
	// greetingTime is how long an agent may take to greet; it is the only thing that
	// it does not have to work for.
	greetingTime = 5 * time.Second
	// maxAhead is how much of an answer a client keeps for a slow receiver (a pager, say)
	// so that the agent need not.
	maxAhead = 64 << 20
)

// Client asks the agent behind one socket. It is safe for concurrent use and holds nothing
// between calls.
type Client struct {
	path string
}

// Dial returns a Client after the agent at path has greeted. Without an agent the error
// is ErrNotRunning.
func Dial(path string) (*Client, error) {
	c := &Client{path}
	conn, err := c.connect()
	if err != nil {
		return nil, err
	}
	return c, conn.Close()
}

func (c *Client) connect() (*net.UnixConn, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.path, Net: "unix"})
	if err != nil {
		err = cause(err)
		if err == unix.ENOENT || err == unix.ECONNREFUSED || err == unix.ENOTDIR {
			err = ErrNotRunning
		}
		return nil, fmt.Errorf("connect to the agent at %q: %w", c.path, err)
	}
	if err := c.greet(conn); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to the agent at %q: %w", c.path, err)
	}
	return conn, nil
}

// greet checks who listens before anything is believed, and reads the greeting.
func (c *Client) greet(conn *net.UnixConn) error {
	peer, err := credentials(conn)
	if err != nil {
		return err
	}
	if !trusted(peer.Uid) {
		return fmt.Errorf("its process %d belongs to user %d", peer.Pid, peer.Uid)
	}
	_ = conn.SetReadDeadline(time.Now().Add(greetingTime))
	kind, body, err := readFrame(conn, maxRequest)
	if err != nil {
		return noEOF(err)
	}
	if err := parseHello(kind, body); err != nil {
		return err
	}
	return conn.SetReadDeadline(time.Time{})
}

// Query has the agent run text and hands its answer to r, as sql.Engine's Query does: an
// error of the agent's is an *sql.Error, one of r's comes back unchanged. When ctx ends,
// so does the query.
func (c *Client) Query(ctx context.Context, text string, r sql.Receiver) error {
	q := request{text: text}
	if len(text) > maxRequest-16 {
		return &sql.Error{Text: "the query is too long"}
	}
	if deadline, ok := ctx.Deadline(); ok {
		// A second more, so that it is ctx which ends the query while we live.
		q.limit = max(time.Until(deadline), 0) + time.Second
	}
	var values []schema.Value
	return c.call(ctx, q, func(kind byte, body []byte) (done bool, err error) {
		switch kind {
		case kindColumns:
			names, types, err := parseColumns(body)
			if err != nil {
				return false, err
			}
			values = make([]schema.Value, len(names))
			return false, r.Columns(names, types)
		case kindRows:
			return false, parseRows(body, values, r.Row)
		case kindWarning:
			r.Warning(string(body))
			return false, nil
		case kindDone:
			return true, nil
		}
		return false, malformed("the agent's answer")
	})
}

// Status returns the agent's status, one JSON value.
func (c *Client) Status(ctx context.Context) (status []byte, err error) {
	err = c.call(ctx, request{status: true}, func(kind byte, body []byte) (bool, error) {
		if kind != kindStatus {
			return false, malformed("the agent's answer")
		}
		status = body
		return true, nil
	})
	return status, err
}

// call sends a request and passes the frames of the answer to take until that is done.
func (c *Client) call(ctx context.Context, q request, take func(kind byte, body []byte) (done bool, err error)) error {
	stopped := func() error {
		return fmt.Errorf("query stopped: %w", context.Cause(ctx))
	}
	if ctx.Err() != nil {
		return stopped()
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	var queue frames
	queue.change.L = &queue.mu
	ended := make(chan struct{})
	defer func() {
		_ = conn.Close()
		queue.abandon()
		<-ended
	}()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	// A server that turns us away answers before it reads; so errors of writing do
	// not matter.
	_ = conn.SetWriteDeadline(time.Now().Add(greetingTime))
	_, _ = conn.Write(q.append(nil))
	go func() {
		defer close(ended)
		queue.fill(conn)
	}()
	for {
		kind, body, err := queue.next()
		if err == nil && kind == kindFault {
			var text, hint string
			if text, hint, err = parseFault(body); err == nil {
				if ctx.Err() != nil { // the agent's reason is ours
					return stopped()
				}
				return &sql.Error{Text: text, Hint: hint}
			}
		}
		if err == nil {
			var done bool
			if done, err = take(kind, body); done && err == nil {
				return nil
			} else if err != nil && !errors.Is(err, errFrame) {
				return err // the receiver's
			}
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return stopped()
		case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET):
			return errors.New("the agent ended the connection before the answer was complete")
		default:
			return err
		}
	}
}

// frames are what has arrived and was not taken yet. One goroutine fills it, another takes.
type frames struct {
	mu     sync.Mutex
	change sync.Cond
	list   []frame
	size   int
	err    error // after the list; set once
	left   bool  // nobody takes any more
}

type frame struct {
	kind byte
	body []byte
}

// fill reads frames until reading fails or nobody takes them any more.
func (q *frames) fill(r io.Reader) {
	for {
		kind, body, err := readFrame(r, maxReply)
		q.mu.Lock()
		for err == nil && q.size > maxAhead && !q.left {
			q.change.Wait()
		}
		if err != nil || q.left {
			q.err = err
			q.change.Signal()
			q.mu.Unlock()
			return
		}
		q.list = append(q.list, frame{kind, body})
		q.size += len(body)
		q.change.Signal()
		q.mu.Unlock()
	}
}

// next takes the next frame.
func (q *frames) next() (byte, []byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.list) == 0 && q.err == nil {
		q.change.Wait()
	}
	if len(q.list) == 0 {
		return 0, nil, q.err
	}
	f := q.list[0]
	q.list[0] = frame{}
	q.list = q.list[1:]
	q.size -= len(f.body)
	q.change.Signal()
	return f.kind, f.body, nil
}

// abandon makes fill end.
func (q *frames) abandon() {
	q.mu.Lock()
	q.left = true
	q.change.Signal()
	q.mu.Unlock()
}
