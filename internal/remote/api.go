package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/goshawk-project/goshawk/internal/state"
)

// keyed returns a body that begins with the node's key.
func keyed(fill func(*object)) func(key string) []byte {
	return func(key string) []byte {
		o := &object{}
		o.text("node_key", key)
		if fill != nil {
			fill(o)
		}
		return o.bytes()
	}
}

// Config asks for the configuration, up to attempts times.
func (n *Node) Config(ctx context.Context, endpoint string, attempts int) (text []byte, err error) {
	err = n.again(ctx, attempts, func() error {
		var err error
		_, text, err = n.call(ctx, endpoint, keyed(nil), false, maxConfig)
		return err
	})
	if err == nil && len(bytes.TrimSpace(text)) == 0 {
		err = errors.New("the answer is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("fetch configuration: %w", err)
	}
	return text, nil
}

// Kinds of log lines.
const (
	Results  = "result" // snapshots too
	Statuses = "status"
)

// maxPost bounds the lines of one log request in bytes: osquery's bound is by lines alone,
// and may so come to a gigabyte.
const maxPost = 8 << 20

// Logs sends log lines. Its functions give what the flags say at the moment.
type Logs struct {
	Node     *Node
	Kind     string
	Endpoint func() string
	MaxLines func() int // in one request
	MaxSize  func() int // of a line; longer ones are dropped, with a warning
	Compress func() bool
	Disabled func() bool // lines are dropped unsent

	refused atomic.Bool // the server does not take compressed requests
}

// Limits are the most lines and bytes of one request.
func (l *Logs) Limits() (lines, size int) { return l.MaxLines(), maxPost }

// Write sends a batch of lines, each of which is a JSON object.
func (l *Logs) Write(ctx context.Context, b state.Batch, _ string) (tooLong int, next string, err error) {
	if l.Disabled != nil && l.Disabled() {
		return 0, "", nil
	}
	data := make([]byte, 0, len(b.Lines)+2)
	data = append(data, '[')
	for line := range bytes.Lines(b.Lines) {
		line = bytes.TrimSuffix(line, []byte{'\n'})
		if len(line) > l.MaxSize() {
			l.Node.Logger.Warn(fmt.Sprintf("Linesize exceeds TLS logger maximum: %d", len(line)))
			tooLong++
			continue
		}
		if len(data) > 1 {
			data = append(data, ',')
		}
		data = append(data, line...)
	}
	if len(data) == 1 {
		return tooLong, "", nil
	}
	data = append(data, ']')
	body := keyed(func(o *object) {
		o.text("log_type", l.Kind)
		o.raw("data", data)
	})
	compress := l.Compress() && !l.refused.Load()
	_, _, err = l.Node.call(ctx, l.Endpoint(), body, compress, maxAnswer)
	if errors.Is(err, errGzip) {
		if _, _, err = l.Node.call(ctx, l.Endpoint(), body, false, maxAnswer); err == nil {
			l.refused.Store(true)
			l.Node.Logger.Warn("The server refuses compressed logs: they are sent as they are")
		}
	}
	return tooLong, "", err
}

// Backoff returns how long to wait after failures in a row: period times their square, at
// most the longest.
func Backoff(period, longest time.Duration, failures int) time.Duration {
	if failures > 1<<15 || period > longest {
		return longest
	}
	return min(period*time.Duration(failures*failures), longest)
}
