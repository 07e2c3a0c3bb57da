// Package ctl is the unix socket between a running agent and its command line: a query
// in, rows out, or the agent's status.
//
// It knows how rows look on the wire and who may connect. It must never know what a query
// means, where rows come from, or how they are shown. A Server owns its socket, its lock
// file and one goroutine for each client (and one more that watches for the client's
// end); a Client owns one connection for as long as a call lasts.
//
// The wire. Either side sends frames: a length in 4 bytes, little-endian, then as many
// bytes, the first of which says what they are. The server begins with a hello, the
// client sends one request, the server answers with any number of frames and ends with
// done, status or fault. The client's hanging up cancels its query.
package ctl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// What a frame is.
const (
	kindHello   = 'H' // magic, version
	kindQuery   = 'Q' // milliseconds it may take (0 for the server's limit), text
	kindStatus  = 'S' // request: empty; answer: JSON
	kindColumns = 'C' // count, names, types
	kindRows    = 'R' // count, rows of as many values as there are columns
	kindWarning = 'W' // text
	kindFault   = 'E' // text, hint
	kindDone    = 'D' // empty
)

const (
	magic   = "goshawk"
	version = 1

	// maxRequest is beyond any query that the SQL engine takes.
	maxRequest = 1 << 20
	// maxRow is two of the longest cells that the SQL engine makes.
	maxRow = 32 << 20
	// maxReply is a row after rows that did not fill a batch yet.
	maxReply = maxRow + 2*batch
	// batch is when rows are sent: about as much as a socket's buffer takes.
	batch = 64 << 10
	// batchTime is when rows are sent although they are few.
	batchTime = 100 * time.Millisecond
	// maxColumns is SQLite's SQLITE_MAX_COLUMN.
	maxColumns = 32767
)

// errFrame is the cause of all errors about bytes that are no frame of ours.
var errFrame = errors.New("not understood")

func malformed(what string) error { return fmt.Errorf("read %s: %w", what, errFrame) }

// appendFrame begins a frame in dst; endFrame sets its length.
func appendFrame(dst []byte, kind byte) []byte { return append(dst, 0, 0, 0, 0, kind) }

// endFrame completes the frame that starts at offset start.
func endFrame(dst []byte, start int) []byte {
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

// readFrame reads one frame of at most limit bytes. Memory grows with the bytes that
// arrive, not with the length that was promised.
func readFrame(r io.Reader, limit int) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.LittleEndian.Uint32(head[:])) - 1
	if n < 0 || n > limit {
		return 0, nil, malformed("the length of a frame")
	}
	for len(body) < n {
		old := len(body)
		step := min(n-old, max(old, batch))
		body = append(body, make([]byte, step)...)
		if _, err := io.ReadFull(r, body[old:]); err != nil {
			return 0, nil, noEOF(err)
		}
	}
	return head[4], body, nil
}

// noEOF makes the end of input in the middle of something an error like any other.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// reader takes apart the body of a frame; text is cut out of it without copying.
type reader struct {
	s   string
	bad bool
}

func (r *reader) uvarint() uint64 {
	var n uint64
	for i := 0; i < len(r.s) && i < binary.MaxVarintLen64; i++ {
		b := r.s[i]
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			r.s = r.s[i+1:]
			return n
		}
	}
	r.bad, r.s = true, ""
	return 0
}

func (r *reader) text() string {
	n := r.uvarint()
	if n > uint64(len(r.s)) {
		r.bad, r.s = true, ""
		return ""
	}
	s := r.s[:n]
	r.s = r.s[n:]
	return s
}

// end reports whether everything was read and understood.
func (r *reader) end() bool { return !r.bad && r.s == "" }

// request is what a client asks for: its status, or a query.
type request struct {
	status bool
	limit  time.Duration // zero for the server's own
	text   string
}

func (q *request) append(dst []byte) []byte {
	start := len(dst)
	if q.status {
		return endFrame(appendFrame(dst, kindStatus), start)
	}
	dst = appendFrame(dst, kindQuery)
	dst = binary.AppendUvarint(dst, uint64(q.limit.Milliseconds()))
	return endFrame(append(dst, q.text...), start)
}

func parseRequest(kind byte, body []byte) (request, error) {
	switch kind {
	case kindStatus:
		if len(body) == 0 {
			return request{status: true}, nil
		}
	case kindQuery:
		r := reader{s: string(body)}
		ms := r.uvarint()
		if !r.bad && ms <= math.MaxInt64/uint64(time.Millisecond) {
			return request{limit: time.Duration(ms) * time.Millisecond, text: r.s}, nil
		}
	}
	return request{}, malformed("a request")
}

func appendHello(dst []byte) []byte {
	start := len(dst)
	dst = append(appendFrame(dst, kindHello), magic...)
	return endFrame(append(dst, version), start)
}

func parseHello(kind byte, body []byte) error {
	if kind != kindHello || len(body) < len(magic)+1 || string(body[:len(magic)]) != magic {
		return malformed("the agent's greeting")
	}
	if v := body[len(magic)]; v != version {
		return fmt.Errorf("the agent speaks version %d of the socket's protocol, this program version %d: use the program the agent was started from", v, version)
	}
	return nil
}

func appendColumns(dst []byte, names, types []string) []byte {
	start := len(dst)
	dst = appendFrame(dst, kindColumns)
	dst = binary.AppendUvarint(dst, uint64(len(names)))
	for _, s := range names {
		dst = appendText(dst, s)
	}
	for _, s := range types {
		dst = appendText(dst, s)
	}
	return endFrame(dst, start)
}

func parseColumns(body []byte) (names, types []string, err error) {
	r := reader{s: string(body)}
	n := r.uvarint()
	// Each name and type takes a byte at least.
	if r.bad || n == 0 || n > maxColumns || 2*n > uint64(len(r.s)) {
		return nil, nil, malformed("columns")
	}
	names, types = make([]string, n), make([]string, n)
	for i := range names {
		names[i] = r.text()
	}
	for i := range types {
		types[i] = r.text()
	}
	if !r.end() {
		return nil, nil, malformed("columns")
	}
	return names, types, nil
}

func appendValue(dst []byte, v schema.Value) []byte {
	dst = append(dst, byte(v.Kind()))
	switch v.Kind() {
	case schema.KindInt:
		dst = binary.AppendVarint(dst, v.Int())
	case schema.KindFloat:
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v.Float()))
	case schema.KindText:
		dst = appendText(dst, v.Text())
	}
	return dst
}

func (r *reader) value() schema.Value {
	if r.s == "" {
		r.bad = true
		return schema.Null
	}
	kind := schema.Kind(r.s[0])
	r.s = r.s[1:]
	switch kind {
	case schema.KindNull:
	case schema.KindInt:
		n := r.uvarint()
		return schema.IntValue(int64(n>>1) ^ -int64(n&1))
	case schema.KindFloat:
		if len(r.s) >= 8 {
			n := binary.LittleEndian.Uint64([]byte(r.s[:8]))
			r.s = r.s[8:]
			return schema.FloatValue(math.Float64frombits(n))
		}
		r.bad, r.s = true, ""
	case schema.KindText:
		return schema.TextValue(r.text())
	default:
		r.bad, r.s = true, ""
	}
	return schema.Null
}

// parseRows calls row for each of a batch of rows; row owns its argument until it
// returns. Its error ends the batch and comes back unchanged.
func parseRows(body []byte, values []schema.Value, row func([]schema.Value) error) error {
	r := reader{s: string(body)}
	n := r.uvarint()
	if r.bad || len(values) == 0 {
		return malformed("rows")
	}
	for ; n > 0; n-- {
		for i := range values {
			values[i] = r.value()
		}
		if r.bad {
			return malformed("rows")
		}
		if err := row(values); err != nil {
			return err
		}
	}
	if !r.end() {
		return malformed("rows")
	}
	return nil
}

func appendFault(dst []byte, text, hint string) []byte {
	start := len(dst)
	dst = appendText(appendFrame(dst, kindFault), text)
	return endFrame(appendText(dst, hint), start)
}

func parseFault(body []byte) (text, hint string, err error) {
	r := reader{s: string(body)}
	text, hint = r.text(), r.text()
	if !r.end() {
		return "", "", malformed("an error")
	}
	return text, hint, nil
}
