package canary

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// sockets does things to sockets until one fails; then the rest is not done.
type sockets struct {
	r    *round
	open []int
	err  error
	all  []*trial
	done time.Time // when the last thing was done
}

func (s *sockets) close() {
	for _, fd := range s.open {
		unix.Close(fd)
	}
	s.open = nil
}

// do remembers when something was done, and that it failed.
func (s *sockets) do(what string, act func() error) {
	if s.err != nil {
		return
	}
	s.done = time.Now()
	if err := act(); err != nil {
		s.err = fmt.Errorf("%s: %w", what, err)
	}
}

// socket makes a socket that blocks, but no longer than anybody waits for it.
func (s *sockets) socket(family, typ int) (fd int) {
	fd = -1
	s.do("make a socket", func() (err error) {
		if fd, err = unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		s.open = append(s.open, fd)
		patience := unix.NsecToTimeval(int64(Patience))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience)
	})
	return fd
}

// name is the address that a socket has got.
func (s *sockets) name(fd int) (at unix.Sockaddr) {
	s.do("read the address", func() (err error) {
		at, err = unix.Getsockname(fd)
		return err
	})
	return at
}

// expect adds a trial: what was done last is to be told as an event of kind with the
// socket's other fields as in want.
func (s *sockets) expect(kind event.ID, what string, want event.Socket, hooks ...string) {
	t := &trial{Result: Result{Kind: kind, What: what}, hooks: hooks, done: s.done}
	if s.err != nil {
		t.Skipped = s.err.Error()
	}
	t.match = func(e event.Event) bool {
		x, ok := e.(*event.Socket)
		return ok && x.Kind == kind && x.LocalPort == want.LocalPort && x.RemotePort == want.RemotePort &&
			x.SocketPath == want.SocketPath && x.Protocol == want.Protocol && x.Family == want.Family
	}
	t.check = func(e event.Event) string {
		x := e.(*event.Socket)
		if kind == event.KindClose {
			return wrong("bytes_sent", x.BytesSent == uint64(len(greeting))) + wrong("bytes_received", x.BytesReceived == 0)
		}
		return wrong("local_address", x.LocalAddress == want.LocalAddress) +
			wrong("remote_address", x.RemoteAddress == want.RemoteAddress) + wrong("result", x.Result == "ok")
	}
	s.all = append(s.all, t)
}

// greeting is what is sent over each connection.
const greeting = "goshawk"

func tcp4(r *round) []*trial {
	return tcp(r, unix.AF_INET, "inet", " TCP over IPv4", "127.0.0.1", &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
}

func tcp6(r *round) []*trial {
	return tcp(r, unix.AF_INET6, "inet6", " TCP over IPv6", "::1", &unix.SockaddrInet6{Addr: [16]byte{15: 1}})
}

// tcp makes a connection to itself over loopback, and ends it.
func tcp(r *round, family int, familyName, over, address string, at unix.Sockaddr) []*trial {
	s := &sockets{r: r}
	defer s.close()
	want := event.Socket{Family: familyName, Protocol: "tcp", LocalAddress: address}
	server := s.socket(family, unix.SOCK_STREAM)
	s.do("bind", func() error { return unix.Bind(server, at) })
	bound := s.done
	here := s.name(server)
	s.done = bound
	want.LocalPort = port(here)
	r.ports = append(r.ports, port(here))
	s.expect(event.KindBind, "bind"+over, want, "bind")
	s.do("listen", func() error { return unix.Listen(server, 1) })
	s.expect(event.KindListen, "listen"+over, want, "listen")

	client := s.socket(family, unix.SOCK_STREAM)
	s.do("connect", func() error { return unix.Connect(client, here) })
	connected := s.done
	there := s.name(client)
	s.done = connected
	r.ports = append(r.ports, port(there))
	want.RemoteAddress, want.LocalPort, want.RemotePort = address, port(there), port(here)
	s.expect(event.KindConnect, "connect"+over, want, "tcp_state", "connect")
	ours := want
	want.LocalPort, want.RemotePort = port(here), port(there)
	peer := -1
	s.do("accept", func() (err error) {
		if peer, _, err = unix.Accept4(server, unix.SOCK_CLOEXEC); err == nil {
			s.open = append(s.open, peer)
		}
		return err
	})
	s.expect(event.KindAccept, "accept"+over, want, "accept")
	s.do("send", func() error { _, err := unix.Write(client, []byte(greeting)); return err })
	s.do("receive", func() error { _, err := unix.Read(peer, make([]byte, len(greeting))); return err })
	s.done = time.Now()
	s.close()
	// The accepted end is told only where accept is observed.
	s.expect(event.KindClose, "close"+over, ours, "tcp_state")
	return s.all
}

func port(at unix.Sockaddr) uint16 {
	switch at := at.(type) {
	case *unix.SockaddrInet4:
		return uint16(at.Port)
	case *unix.SockaddrInet6:
		return uint16(at.Port)
	}
	return 0
}

// local makes a connection to itself over a unix socket without a file.
func local(r *round) []*trial {
	r.path = "@goshawk-canary-" + r.nonce
	s := &sockets{r: r}
	defer s.close()
	want := event.Socket{Family: "unix", Protocol: "stream", SocketPath: r.path}
	at := &unix.SockaddrUnix{Name: r.path}
	server := s.socket(unix.AF_UNIX, unix.SOCK_STREAM)
	s.do("bind", func() error { return unix.Bind(server, at) })
	s.expect(event.KindBind, "bind a unix socket", want, "bind")
	s.do("listen", func() error { return unix.Listen(server, 1) })
	s.expect(event.KindListen, "listen on a unix socket", want, "listen")
	client := s.socket(unix.AF_UNIX, unix.SOCK_STREAM)
	s.do("connect", func() error { return unix.Connect(client, at) })
	s.expect(event.KindConnect, "connect to a unix socket", want, "connect")
	s.do("accept", func() error {
		fd, _, err := unix.Accept4(server, unix.SOCK_CLOEXEC)
		if err == nil {
			s.open = append(s.open, fd)
		}
		return err
	})
	s.expect(event.KindAccept, "accept on a unix socket", want, "accept")
	return s.all
}

// loopback reports whether an address, or none, stays on this host.
func loopback(address string) bool {
	if address == "" || address == "127.0.0.1" || address == "::1" {
		return true
	}
	a, err := netip.ParseAddr(address)
	return err == nil && a.IsLoopback()
}
