package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goshawk-project/goshawk/internal/state"
)

// ErrInvalid says that the server does not know this node any longer, which then enrols anew.
var ErrInvalid = errors.New("Request failed: Invalid node key")

const (
	domainNode = "node" // "key": given by the server; "key_time": when it was asked for
	maxKey     = 4 << 10
	hidden     = "(secret)"
)

// Node is this host as the server knows it. It is safe for concurrent use.
type Node struct {
	Client *Client
	State  *state.DB
	Logger *slog.Logger

	EnrollEndpoint string
	// Secret returns the enrolment secret, read when it is needed.
	Secret func() (string, error)
	// SecretName is its name in the request (tls_enroll_override).
	SecretName string
	// Details returns the identifier of the host, and host_details as JSON.
	Details     func(ctx context.Context) (identifier string, details []byte, err error)
	MaxAttempts int           // 0: for ever
	MaxInterval time.Duration // between attempts
	// NoEnrollment sends requests without a key; NoReenrollment keeps one that the server
	// calls invalid.
	NoEnrollment, NoReenrollment bool

	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration) error

	mu     sync.Mutex             // held while enrolling: one does it, the others wait
	secret atomic.Pointer[string] // last read, to be kept out of messages
}

// Key returns the node's key, enrolling when there is none.
func (n *Node) Key(ctx context.Context) (string, error) {
	if n.NoEnrollment {
		return "", nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	key, ok, err := n.State.Get(domainNode, "key")
	if err != nil || ok && key != "" {
		return key, err
	}
	return n.enroll(ctx)
}

// Forget makes the next request enrol, unless the key is another meanwhile; key may be "".
func (n *Node) Forget(key string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.State.Update(true, func(tx *state.Tx) error {
		have, _, err := tx.Get(domainNode, "key")
		if err != nil || key != "" && have != key {
			return err
		}
		return tx.Delete(domainNode, "key")
	})
}

// enroll asks for a key until it gets one, with longer and longer waits: osquery's, of
// attempt² seconds (plugins/remote/enroll/tls_enroll.cpp).
func (n *Node) enroll(ctx context.Context) (string, error) {
	step := 1
	for attempt := 1; ; attempt++ {
		asked := n.Now()
		key, err := n.request(ctx)
		if err == nil {
			err = n.State.Update(true, func(tx *state.Tx) error {
				if err := tx.Put(domainNode, "key", key); err != nil {
					return err
				}
				return tx.Put(domainNode, "key_time", strconv.FormatInt(asked.Unix(), 10))
			})
			if err != nil {
				return "", fmt.Errorf("enroll: %w", err)
			}
			n.Logger.Info("Enrolled at " + n.Client.o.Hostname)
			return key, nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if n.MaxAttempts > 0 && attempt >= n.MaxAttempts {
			return "", fmt.Errorf("enroll: %w (%d attempts)", err, attempt)
		}
		n.Logger.Warn(fmt.Sprintf("Failed enrollment request to %s (%v) retrying...", n.Client.o.Hostname, err))
		wait := min(time.Duration(step*step)*time.Second, n.MaxInterval)
		if wait < n.MaxInterval {
			step++
		}
		if err := n.Sleep(ctx, wait); err != nil {
			return "", err
		}
	}
}

// request asks for a key once.
func (n *Node) request(ctx context.Context) (string, error) {
	secret, err := n.Secret()
	if err != nil {
		return "", fmt.Errorf("read enrollment secret: %w", err)
	}
	n.secret.Store(&secret)
	identifier, details, err := n.Details(ctx)
	if err != nil {
		return "", fmt.Errorf("describe this host: %w", err)
	}
	body := &object{}
	body.text(n.SecretName, secret)
	body.text("host_identifier", identifier)
	body.text("platform_type", "9")
	body.raw("host_details", details)
	status, text, err := n.Client.post(ctx, n.EnrollEndpoint, body.bytes(), "", false, maxAnswer)
	if err != nil {
		return "", err
	}
	a, err := n.read(status, text, "")
	if err != nil {
		return "", err
	}
	key := a.string("node_key")
	if key == "" {
		key = a.string("id")
	}
	switch {
	case key == "":
		return "", errors.New("no node key returned from TLS enroll plugin")
	case len(key) > maxKey || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", errors.New("the server's node key cannot be sent in a header")
	}
	return key, nil
}

// answer is a JSON object from the server.
type answer map[string]json.RawMessage

func (a answer) string(name string) string {
	var s string
	if json.Unmarshal(a[name], &s) != nil {
		return ""
	}
	return s
}

// read judges an answer. Its text decides, whatever its status; but a status that speaks of
// failure is not taken for success, or what was sent would be lost. key is the one that was
// sent.
func (n *Node) read(status int, text []byte, key string) (answer, error) {
	var a answer
	if len(bytes.TrimSpace(text)) > 0 { // servers that have nothing to say may say nothing
		if err := json.Unmarshal(text, &a); err != nil {
			return nil, fmt.Errorf("status %d, and the answer is no JSON object", status)
		}
	}
	said := ""
	if e, ok := a["error"]; ok && !bytes.Equal(e, []byte("null")) {
		if said = a.string("error"); said == "" {
			said = "<unknown>"
		}
		said = n.scrub(oneLine(said), key)
	}
	switch {
	case bytes.Equal(a["node_invalid"], []byte("true")):
		err := ErrInvalid
		if said != "" {
			err = fmt.Errorf("%w: %s", ErrInvalid, said)
		}
		return nil, err
	case said != "":
		return nil, errors.New("Request failed: " + said)
	case status >= http.StatusBadRequest:
		return nil, fmt.Errorf("Request failed: status %d", status)
	}
	return a, nil
}

// scrub takes secrets out of what a server said.
func (n *Node) scrub(text string, key string) string {
	secrets := []string{key}
	if s := n.secret.Load(); s != nil {
		secrets = append(secrets, *s)
	}
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, hidden)
		}
	}
	return text
}

func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "..."
	}
	return s
}

// call is a request with the node's key, which body gets first. A key that the server calls
// invalid is given up.
func (n *Node) call(ctx context.Context, endpoint string, body func(key string) []byte, compress bool, limit int64) (answer, []byte, error) {
	key, err := n.Key(ctx)
	if err != nil {
		return nil, nil, err
	}
	status, text, err := n.Client.post(ctx, endpoint, body(key), key, compress, limit)
	if err != nil {
		return nil, nil, err
	}
	if compress && (status == http.StatusUnsupportedMediaType || status == http.StatusBadRequest) {
		if a, err := n.read(status, text, key); !errors.Is(err, ErrInvalid) {
			return a, nil, errGzip
		}
	}
	a, err := n.read(status, text, key)
	if errors.Is(err, ErrInvalid) && !n.NoReenrollment {
		if err := n.Forget(key); err != nil {
			return nil, nil, err
		}
	}
	return a, text, err
}

// errGzip says that the server does not take compressed requests.
var errGzip = errors.New("the server refuses compressed requests")

// again calls f up to attempts times, waiting attempt² seconds after a failure.
func (n *Node) again(ctx context.Context, attempts int, f func() error) error {
	for i := 1; ; i++ {
		err := f()
		if err == nil || i >= max(attempts, 1) || ctx.Err() != nil {
			return err
		}
		if err := n.Sleep(ctx, time.Duration(i*i)*time.Second); err != nil {
			return err
		}
	}
}

// object is a JSON object being written, in the order of its keys.
type object struct{ b []byte }

func (o *object) raw(name string, value []byte) {
	if len(o.b) == 0 {
		o.b = append(o.b, '{')
	} else {
		o.b = append(o.b, ',')
	}
	o.b = append(append(append(o.b, quote(name)...), ':'), value...)
}

func (o *object) text(name, value string)     { o.raw(name, quote(value)) }
func (o *object) number(name string, n int64) { o.raw(name, strconv.AppendInt(nil, n, 10)) }

func (o *object) bytes() []byte {
	if len(o.b) == 0 {
		return []byte("{}")
	}
	return append(o.b, '}')
}

func quote(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return b
}
