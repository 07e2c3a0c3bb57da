package ctl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
)

// Handler is what clients ask. Calls come from several goroutines at a time.
type Handler interface {
	// Query is as of sql.Engine.
	Query(ctx context.Context, text string, r sql.Receiver) error
	// Status is one JSON value about the agent.
	Status(ctx context.Context) ([]byte, error)
}

// Options are the limits of a Server. The zero value means the defaults.
type Options struct {
	// Clients is how many may be connected at a time, further ones are turned away;
	// 8 when zero. As long as the Handler answers that many at a time, no client
	// makes another one wait.
	Clients int
	// Limit is how long one query may take; 10 minutes when zero.
	Limit time.Duration
	// Stall is how long a client may take no byte before it is cut off, and how long
	// it may take for its request; 1 minute when zero.
	Stall time.Duration
	// Log takes refusals; nothing is logged when nil.
	Log *slog.Logger
}

// Server answers clients on one socket until it is closed.
type Server struct {
	socket  *socket
	handler Handler
	options Options

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	slots  chan struct{}

	mu    sync.Mutex
	conns map[*net.UnixConn]bool // nil once closed
}

var errServerClosed = errors.New("the agent is shutting down")

// Listen makes the socket at path, with mode 0600, in a directory that it makes with mode
// 0700 when there is none, and answers clients from then on. Only root and the user who
// runs this process may connect. A socket that a live process listens on is *ErrInUse, a
// stale one is replaced.
func Listen(path string, h Handler, o Options) (*Server, error) {
	if o.Clients == 0 {
		o.Clients = 8
	}
	if o.Limit == 0 {
		o.Limit = 10 * time.Minute
	}
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	sock, err := listen(path)
	if err != nil {
		return nil, err
	}
	s := &Server{
		socket: sock, handler: h, options: o,
		slots: make(chan struct{}, o.Clients),
		conns: map[*net.UnixConn]bool{},
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.wg.Go(s.accept)
	return s, nil
}

// Close ends all queries, hangs up on all clients, removes the socket, and returns when
// every goroutine of the server has ended. Only the first call does anything.
func (s *Server) Close() error {
	s.cancel(errServerClosed)
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	if conns == nil {
		return nil
	}
	err := s.socket.stop()
	for c := range conns {
		_ = c.CloseRead() // none will ask for anything more
	}
	// A client that reads gets the reason; one that does not must not hold us up.
	late := time.AfterFunc(time.Second, func() {
		for c := range conns {
			_ = c.Close()
		}
	})
	s.wg.Wait()
	late.Stop()
	return errors.Join(err, s.socket.unlock())
}

// keep remembers a connection for Close, unless the server has closed.
func (s *Server) keep(c *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[c] = true
	return true
}

func (s *Server) forget(c *net.UnixConn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	_ = c.Close()
}

func (s *Server) accept() {
	for {
		c, err := s.socket.AcceptUnix()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely: others may be returned.
			s.options.Log.Warn("accept on the control socket", "error", err)
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if !s.keep(c) {
			_ = c.Close()
			return
		}
		select {
		case s.slots <- struct{}{}:
			s.wg.Go(func() {
				defer func() { <-s.slots }()
				defer s.forget(c)
				s.serve(c)
			})
		default:
			s.refuse(c, fmt.Sprintf("the agent has %d clients already", s.options.Clients))
			s.forget(c)
		}
	}
}

// refuse sends the reason if the socket's buffer, which is empty, takes it.
func (s *Server) refuse(c *net.UnixConn, reason string) {
	s.options.Log.Warn("refuse a client of the control socket", "reason", reason)
	_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = c.Write(appendFault(appendHello(nil), reason, ""))
}

// serve answers the one request of a client.
func (s *Server) serve(c *net.UnixConn) {
	peer, err := credentials(c)
	if err != nil {
		s.refuse(c, "the agent cannot tell who you are: "+err.Error())
		return
	}
	if !trusted(peer.Uid) {
		s.refuse(c, fmt.Sprintf("user %d may not talk to this agent", peer.Uid))
		return
	}
	out := &stream{conn: c, stall: s.options.Stall, sent: time.Now()}
	out.buf = appendHello(out.buf)
	if out.flush() != nil || c.SetReadDeadline(time.Now().Add(s.options.Stall)) != nil {
		return
	}
	kind, body, err := readFrame(c, maxRequest)
	if err != nil {
		if errors.Is(err, errFrame) {
			out.finish(err)
		}
		return
	}
	q, err := parseRequest(kind, body)
	if err != nil {
		out.finish(err)
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	limit := s.options.Limit
	if q.limit > 0 {
		limit = min(limit, q.limit)
	}
	ctx, cancel := context.WithTimeoutCause(s.ctx, limit, fmt.Errorf("it took longer than %v", limit))
	defer cancel()
	// Whatever the client sends now, or its end, ends the query.
	ctx, hangup := context.WithCancelCause(ctx)
	defer hangup(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		var b [1]byte
		_, _ = c.Read(b[:])
		hangup(errors.New("the client hung up"))
	}()
	if q.status {
		body, err := s.handler.Status(ctx)
		if err == nil {
			out.buf = endFrame(append(appendFrame(out.buf, kindStatus), body...), 0)
			_ = out.flush()
		} else {
			out.finish(err)
		}
	} else {
		out.finish(s.handler.Query(ctx, q.text, out))
	}
	_ = c.CloseRead() // wakes the watcher
	<-watched
}

// stream is the receiver that writes to a client.
type stream struct {
	conn  *net.UnixConn
	stall time.Duration

	buf     []byte // whole frames
	columns int
	rows    uint64 // that wait in pending
	pending []byte
	sent    time.Time
	err     error // of the connection
}

func (s *stream) Columns(names, types []string) error {
	s.endRows()
	s.columns = len(names)
	s.buf = appendColumns(s.buf, names, types)
	return s.flush()
}

func (s *stream) Row(values []schema.Value) error {
	if len(values) != s.columns {
		return fmt.Errorf("BUG: a row of %d values for %d columns", len(values), s.columns)
	}
	before := len(s.pending)
	for _, v := range values {
		s.pending = appendValue(s.pending, v)
	}
	if len(s.pending)-before > maxRow {
		s.pending = s.pending[:before]
		return &sql.Error{Text: fmt.Sprintf("a row is larger than %d MiB", maxRow>>20), Hint: "select fewer columns"}
	}
	s.rows++
	if len(s.pending) >= batch || time.Since(s.sent) > batchTime {
		return s.flush()
	}
	return s.err
}

func (s *stream) Warning(sentence string) {
	s.endRows()
	start := len(s.buf)
	s.buf = endFrame(append(appendFrame(s.buf, kindWarning), sentence...), start)
}

// finish sends the last frame: done, or why not.
func (s *stream) finish(err error) {
	s.endRows()
	var fault *sql.Error
	switch {
	case err == nil:
		s.buf = endFrame(appendFrame(s.buf, kindDone), len(s.buf))
	case errors.As(err, &fault):
		s.buf = appendFault(s.buf, fault.Text, fault.Hint)
	default:
		s.buf = appendFault(s.buf, err.Error(), "")
	}
	_ = s.flush()
}

// endRows turns the rows that wait into a frame.
func (s *stream) endRows() {
	if s.rows == 0 {
		return
	}
	start := len(s.buf)
	s.buf = appendFrame(s.buf, kindRows)
	s.buf = binary.AppendUvarint(s.buf, s.rows)
	s.buf = endFrame(append(s.buf, s.pending...), start)
	s.rows, s.pending = 0, s.pending[:0]
}

// flush writes everything. A client has the stall time for each piece of a batch's size,
// so that a large answer over a slow pipe is no stall.
func (s *stream) flush() error {
	s.endRows()
	for rest := s.buf; len(rest) > 0 && s.err == nil; {
		n := min(len(rest), batch)
		_ = s.conn.SetWriteDeadline(time.Now().Add(s.stall))
		_, s.err = s.conn.Write(rest[:n])
		rest = rest[n:]
	}
	if s.buf = s.buf[:0]; cap(s.buf) > 16*batch {
		s.buf, s.pending = nil, nil
	}
	s.sent = time.Now()
	return s.err
}
