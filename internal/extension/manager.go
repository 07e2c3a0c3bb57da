// Package extension speaks osquery's extension API (osquery.thrift): it serves the socket on
// which extensions register their tables, and makes plugins of our tables for an osqueryd.
//
// It must never know what our tables are about, or who asks for an extension's. Whoever
// connects must be root or the agent's own user; what an extension sends is untrusted all
// the same, and bounded.
package extension

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apache/thrift/lib/go/thrift"
	"github.com/osquery/osquery-go/gen/osquery"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
)

// Flag is an option as extensions may ask for it.
type Flag struct{ Name, Type, Default, Value string }

// Options of a Manager.
type Options struct {
	// Socket is where to listen; extensions listen beside it, at Socket.UUID.
	Socket string
	// Version is that of osquery that the manager tells.
	Version string
	// Query answers SQL for extensions that ask.
	Query func(ctx context.Context, text string, r sql.Receiver) error
	// Flags returns the options in force.
	Flags func() []Flag
	// Ours reports whether a table of that name, in lower case, is not an extension's to have.
	Ours func(name string) bool
	// Changed is told when tables have come or gone, before who registered them is answered.
	Changed func()
	// Timeout is how long an extension may take to answer a query, Interval how often each is
	// asked whether it lives. Both are asked for anew each time.
	Timeout, Interval func() time.Duration
	Logger            *slog.Logger
}

// Extension is one that is registered.
type Extension struct {
	UUID                     int64
	Name, Version, SDK, Path string
	Tables                   []string // in order
}

// Manager serves the socket. It owns its goroutines: Close ends them all.
type Manager struct {
	o        Options
	listener *net.UnixListener
	running  sync.WaitGroup
	ctx      context.Context
	cancel   context.CancelFunc
	slots    chan struct{}

	mu         sync.Mutex
	extensions map[int64]*registered
}

type registered struct {
	Extension
	relations []*Table
	failures  int
}

const (
	maxConnections = 64
	maxExtensions  = 32
	maxTables      = 512      // of one extension
	maxColumns     = 1024     // of one table
	maxMessage     = 64 << 20 // bytes of one message, whoever sends it
	maxSocketPath  = 97       // osquery's: ".65535" is added, and a path has 107 bytes
	maxFailures    = 2        // to answer, in a row, before an extension is taken for dead
	idleTimeout    = 30 * time.Minute
)

// thriftConfig bounds messages.
func thriftConfig(timeout time.Duration) *thrift.TConfiguration {
	return &thrift.TConfiguration{
		MaxMessageSize: maxMessage, MaxFrameSize: maxMessage, SocketTimeout: timeout, ConnectTimeout: timeout,
		TBinaryStrictRead: thrift.BoolPtr(false), TBinaryStrictWrite: thrift.BoolPtr(true),
	}
}

// Listen opens the socket, for this user alone. What a dead process left there is replaced.
func Listen(o Options) (*Manager, error) {
	if len(o.Socket) > maxSocketPath {
		return nil, fmt.Errorf("listen on %q: the path is %d bytes long, %d are the most for extensions", o.Socket, len(o.Socket), maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(o.Socket), 0o700); err != nil {
		return nil, err
	}
	if conn, err := net.DialTimeout("unix", o.Socket, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("listen on %q: another process holds it", o.Socket)
	}
	if err := removeSocket(o.Socket); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: o.Socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for extensions: %w", err)
	}
	if err := os.Chmod(o.Socket, 0o600); err != nil { // earlier clients are checked by their credentials
		return nil, errors.Join(err, l.Close())
	}
	m := &Manager{o: o, listener: l, slots: make(chan struct{}, maxConnections), extensions: map[int64]*registered{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.running.Go(m.accept)
	m.running.Go(m.watch)
	return m, nil
}

// removeSocket removes a socket, but nothing else.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("listen on %q: something else than a socket is there", path)
	}
	return os.Remove(path)
}

// Close ends all connections. Extensions find the socket gone and end, too.
func (m *Manager) Close() error {
	m.cancel()
	err := m.listener.Close()
	m.running.Wait()
	return err
}

func (m *Manager) accept() {
	processor := osquery.NewExtensionManagerProcessor(&handler{m})
	for {
		conn, err := m.listener.AcceptUnix()
		if err != nil {
			if m.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			m.o.Logger.Warn(fmt.Sprintf("extensions: accept: %v", err))
			select {
			case <-time.After(time.Second):
			case <-m.ctx.Done():
			}
			continue
		}
		if err := allowed(conn); err != nil {
			m.o.Logger.Warn(fmt.Sprintf("extensions: %v", err))
			conn.Close()
			continue
		}
		select {
		case m.slots <- struct{}{}:
		default:
			m.o.Logger.Warn(fmt.Sprintf("extensions: more than %d connections: one is refused", maxConnections))
			conn.Close()
			continue
		}
		m.running.Go(func() {
			defer func() { <-m.slots }()
			m.serve(conn, processor)
		})
	}
}

// allowed checks who connected (unix(7), SO_PEERCRED).
func allowed(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) { peer, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, inner); err != nil {
		return err
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d (process %d) may not connect", peer.Uid, peer.Pid)
	}
	return nil
}

// serve answers one connection until it closes.
func (m *Manager) serve(conn *net.UnixConn, processor thrift.TProcessor) {
	defer conn.Close()
	defer context.AfterFunc(m.ctx, func() { conn.Close() })()
	config := thriftConfig(idleTimeout)
	transport := thrift.NewTBufferedTransport(thrift.NewTSocketFromConnConf(conn, config), 8<<10)
	protocol := thrift.NewTBinaryProtocolConf(transport, config)
	defer func() {
		// The library is trusted less than it trusts what it reads.
		if v := recover(); v != nil {
			m.o.Logger.Error(fmt.Sprintf("extensions: a message that cannot be: %v", v))
		}
	}()
	for {
		if ok, err := processor.Process(m.ctx, protocol, protocol); !ok || err != nil {
			return
		}
	}
}

// watch asks every extension again and again whether it lives.
func (m *Manager) watch() {
	for {
		wait := max(m.o.Interval(), 100*time.Millisecond)
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(wait):
		}
		m.mu.Lock()
		var list []*registered
		for _, e := range m.extensions {
			list = append(list, e)
		}
		m.mu.Unlock()
		for _, e := range list {
			err := e.ping(m.ctx, max(wait, time.Second))
			if m.ctx.Err() != nil {
				return
			}
			if err == nil {
				e.failures = 0 // of this goroutine alone
				continue
			}
			if e.failures++; e.failures >= maxFailures {
				m.o.Logger.Warn(fmt.Sprintf("extension %s (%d) does not answer and is taken off: %v", e.Name, e.UUID, err))
				m.remove(e.UUID)
			}
		}
	}
}

func (e *registered) ping(ctx context.Context, timeout time.Duration) error {
	return call(ctx, e.Path, timeout, func(ctx context.Context, c *osquery.ExtensionClient) error {
		status, err := c.Ping(ctx)
		if err == nil && status.Code != 0 {
			err = errors.New(status.Message)
		}
		return err
	})
}

// call connects to an extension's socket and calls f.
func call(ctx context.Context, path string, timeout time.Duration, f func(context.Context, *osquery.ExtensionClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	config := thriftConfig(timeout)
	transport := thrift.NewTBufferedTransport(thrift.NewTSocketFromConnConf(conn, config), 8<<10)
	protocol := thrift.NewTBinaryProtocolConf(transport, config)
	err = f(ctx, osquery.NewExtensionClientProtocol(transport, protocol, protocol))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// remove takes an extension off, and reports whether it was there.
func (m *Manager) remove(uuid int64) bool {
	m.mu.Lock()
	_, ok := m.extensions[uuid]
	delete(m.extensions, uuid)
	m.mu.Unlock()
	if ok {
		m.o.Changed()
	}
	return ok
}

// register takes an extension on, or says why not.
func (m *Manager) register(ctx context.Context, info *osquery.InternalExtensionInfo, registry osquery.ExtensionRegistry) (int64, error) {
	if info.Name == "" || len(info.Name) > 256 {
		return 0, errors.New("an extension needs a name of at most 256 bytes")
	}
	for name := range registry {
		if name != "table" && len(registry[name]) > 0 {
			m.o.Logger.Warn(fmt.Sprintf("extension %s: its plugins for %q are left out: only tables are supported", info.Name, name))
		}
	}
	tables := registry["table"]
	if len(tables) > maxTables {
		return 0, fmt.Errorf("%d tables are more than %d", len(tables), maxTables)
	}
	e := &registered{Extension: Extension{Name: info.Name, Version: info.Version, SDK: info.SdkVersion}}
	for name, routes := range tables {
		t, err := newTable(name, routes)
		if err != nil {
			return 0, err
		}
		e.relations = append(e.relations, t)
		e.Tables = append(e.Tables, name)
	}
	slices.Sort(e.Tables)
	slices.SortFunc(e.relations, func(x, y *Table) int { return strings.Compare(x.def.Name, y.def.Name) })

	// One that died and came back finds its old self: that one is asked first.
	m.mu.Lock()
	var old []*registered
	for _, o := range m.extensions {
		if o.Name == info.Name || overlaps(o.Tables, e.Tables) {
			old = append(old, o)
		}
	}
	m.mu.Unlock()
	for _, o := range old {
		if o.ping(ctx, time.Second) != nil {
			m.remove(o.UUID)
		}
	}

	m.mu.Lock()
	for _, o := range m.extensions {
		if o.Name == info.Name {
			m.mu.Unlock()
			return 0, fmt.Errorf("duplicate extension registered: %s", info.Name)
		}
		if overlaps(o.Tables, e.Tables) {
			m.mu.Unlock()
			return 0, fmt.Errorf("extension %s has a table of the same name", o.Name)
		}
	}
	for _, t := range e.Tables {
		if m.o.Ours(strings.ToLower(t)) {
			m.mu.Unlock()
			return 0, fmt.Errorf("a table is called %s already", t)
		}
	}
	if len(m.extensions) >= maxExtensions {
		m.mu.Unlock()
		return 0, fmt.Errorf("%d extensions are registered, which is the most", maxExtensions)
	}
	for e.UUID == 0 || m.extensions[e.UUID] != nil {
		e.UUID = rand.Int64N(65535) + 1 // sixteen bits, as in osquery: the path has no room for more
	}
	e.Path = fmt.Sprintf("%s.%d", m.o.Socket, e.UUID)
	for _, t := range e.relations {
		t.path, t.timeout = e.Path, m.o.Timeout
	}
	m.extensions[e.UUID] = e
	m.mu.Unlock()
	m.o.Changed()
	m.o.Logger.Info(fmt.Sprintf("extension %s (%d) registered: %s", e.Name, e.UUID, strings.Join(e.Tables, ", ")))
	return e.UUID, nil
}

func overlaps(a, b []string) bool {
	return slices.ContainsFunc(a, func(x string) bool {
		return slices.ContainsFunc(b, func(y string) bool { return strings.EqualFold(x, y) })
	})
}

// Extensions returns what is registered, by name.
func (m *Manager) Extensions() []Extension {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Extension, 0, len(m.extensions))
	for _, e := range m.extensions {
		out = append(out, e.Extension)
	}
	slices.SortFunc(out, func(x, y Extension) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// Relations returns the tables of all extensions, by name.
func (m *Manager) Relations() []schema.Relation {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []schema.Relation
	for _, e := range m.extensions {
		for _, t := range e.relations {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(x, y schema.Relation) int { return strings.Compare(x.Def().Name, y.Def().Name) })
	return out
}
