package sensor

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
	"golang.org/x/sys/unix"
)

var socketKinds = []event.ID{event.KindExit, event.KindConnect, event.KindAccept, event.KindBind, event.KindListen, event.KindClose}

func TestLiveSocket(t *testing.T) {
	t.Parallel()
	eachTier(t, Options{Kinds: socketKinds}, sockets)
}

// A connection that was there before is told of when it ends, by whoever ends it.
func TestLiveSocketBefore(t *testing.T) {
	needRoot(t)
	inNetwork(t, nil, func(s *side) {
		lfd, lport := s.listener(unix.AF_INET, &unix.SockaddrInet4{Addr: loop4}, 8)
		cfd := s.socket(unix.AF_INET, unix.SOCK_STREAM)
		s.must(unix.Connect(cfd, &unix.SockaddrInet4{Addr: loop4, Port: lport}))
		cport := port(t, cfd)
		afd, _, err := unix.Accept(lfd)
		s.must(err)
		_, err = unix.Write(cfd, make([]byte, 100))
		s.must(err)
		s.l, s.late = watch(t, Options{Kinds: socketKinds}), true
		_, err = unix.Write(afd, make([]byte, 20))
		s.must(err)
		s.must(unix.Shutdown(cfd, unix.SHUT_WR))
		if n := s.readAll(afd); n != 100 {
			t.Fatalf("read %d bytes", n)
		}
		s.close(afd)
		s.readAll(cfd)
		s.close(cfd, lfd)
		s.expect(
			tcp(event.KindClose, "127.0.0.1", lport, "127.0.0.1", cport, bytes2(20, 100)),
			tcp(event.KindClose, "127.0.0.1", cport, "127.0.0.1", lport, bytes2(100, 20)),
		)
	})
}

// below says whether a tier sees calls below the system call: without their descriptor, over
// the kernel's own copy of the address.
func below(tier string) bool { return tier == "fexit" || tier == "kprobe" }

// side is a thread in a network namespace of its own, with a loopback device.
type side struct {
	t     *testing.T
	l     *live
	tid   int
	began uint64 // threads before may have had this tid
	ns    uint32
	late  bool // connections were there before anybody watched
}

func newSide(t *testing.T, l *live) *side {
	return &side{t: t, l: l, tid: unix.Gettid(), began: event.BootNow()}
}

// mine selects what this thread did.
func (s *side) mine(e event.Event) bool {
	h := e.Head()
	return h.TID == uint32(s.tid) && h.PID == uint32(os.Getpid()) && h.NTime >= s.began
}

// inNetwork runs f on a thread of its own in a new network namespace.
func inNetwork(t *testing.T, l *live, f func(s *side)) {
	t.Helper()
	onThread(t, func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		s := newSide(t, l)
		s.ip("link", "set", "lo", "up")
		var st unix.Stat_t
		s.must(unix.Stat(fmt.Sprintf("/proc/self/task/%d/ns/net", s.tid), &st))
		s.ns = uint32(st.Ino)
		f(s)
	})
}

func (s *side) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// ip runs ip(8) in the thread's network namespace.
func (s *side) ip(args ...string) {
	s.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		s.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (s *side) socket(family, typ int) int {
	s.t.Helper()
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
	s.must(err)
	return fd
}

// told waits until all that was done has arrived, and returns what this thread did.
func (s *side) told() []*event.Socket {
	s.t.Helper()
	s.l.settle(s.t)
	// A mark on the bulk ring too, by another thread: records of one ring keep their order.
	name := fmt.Sprintf("@goshawk-mark-%d", marks.Add(1))
	onThread(s.t, func() {
		fd := s.socket(unix.AF_UNIX, unix.SOCK_DGRAM)
		s.must(unix.Bind(fd, &unix.SockaddrUnix{Name: name}))
		s.close(fd)
	})
	s.l.wait(s.t, 1, "bind of the mark", func(e event.Event) bool {
		b, ok := e.(*event.Socket)
		return ok && b.SocketPath == name
	})
	return s.sofar()
}

var marks atomic.Int64

func (s *side) sofar() []*event.Socket {
	var out []*event.Socket
	for _, e := range s.l.snapshot(func(e event.Event) bool {
		_, ok := e.(*event.Socket)
		return ok && s.mine(e)
	}) {
		out = append(out, e.(*event.Socket))
	}
	return out
}

// expect compares what this thread did with want, whose headers, cookies and durations are
// taken from what came once they were checked. Both are sorted: closes come as they come.
func (s *side) expect(want ...*event.Socket) {
	s.t.Helper()
	s.compare(s.told(), want)
}

func (s *side) compare(got, want []*event.Socket) {
	s.t.Helper()
	order := func(a, b *event.Socket) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.LocalPort, b.LocalPort), cmp.Compare(a.SocketPath, b.SocketPath))
	}
	got = slices.Clone(got)
	slices.SortStableFunc(got, order)
	slices.SortStableFunc(want, order)
	if len(got) != len(want) {
		var list []string
		for _, e := range got {
			list = append(list, fmt.Sprintf("%v %s %s:%d %s:%d %s", e.Kind, e.SocketPath, e.LocalAddress, e.LocalPort, e.RemoteAddress, e.RemotePort, e.Result))
		}
		s.t.Fatalf("got %d events, want %d\n%s\n%s", len(got), len(want), strings.Join(list, "\n"), s.l.counts())
	}
	for i, g := range got {
		w := *want[i]
		kind, fidelity := w.Kind, w.Fidelity
		w.Header = ours(s.t, &g.Header, os.Getpid())
		w.TID, w.PPID, w.Kind = uint32(s.tid), uint32(os.Getppid()), kind
		w.Comm = g.Comm // Go names its threads as it likes
		if fidelity != "" {
			w.Fidelity = fidelity
		}
		w.NetNS, w.Cookie, w.DurationNs = s.ns, g.Cookie, g.DurationNs
		if below(s.l.tiers[kind.String()]) {
			w.FD, w.Fidelity = -1, event.FidelityKernel
		}
		if g.Kind == event.KindClose && (g.DurationNs == 0) != s.late {
			s.t.Errorf("close with a duration of %d", g.DurationNs)
		}
		compare(s.t, &w, g)
	}
}

// inet is an event of an IPv4 or IPv6 stream socket; change makes it particular.
func tcp(kind event.ID, local string, lport int, remote string, rport int, change ...func(*event.Socket)) *event.Socket {
	e := &event.Socket{Header: event.Header{Kind: kind}, Family: "inet", Protocol: "tcp", FamilyNumber: unix.AF_INET,
		Type: unix.SOCK_STREAM, ProtoNumber: unix.IPPROTO_TCP, FD: -1, LocalAddress: local, LocalPort: uint16(lport),
		RemoteAddress: remote, RemotePort: uint16(rport), Result: "ok"}
	for _, c := range change {
		c(e)
	}
	return e
}

func fd(n int) func(*event.Socket)          { return func(e *event.Socket) { e.FD = int32(n) } }
func result(r string) func(*event.Socket)   { return func(e *event.Socket) { e.Result = r } }
func fidelity(f string) func(*event.Socket) { return func(e *event.Socket) { e.Fidelity = f } }
func bytes2(sent, received int) func(*event.Socket) {
	return func(e *event.Socket) { e.BytesSent, e.BytesReceived = uint64(sent), uint64(received) }
}
func inet6(e *event.Socket)    { e.Family, e.FamilyNumber = "inet6", unix.AF_INET6 }
func through6(e *event.Socket) { e.FamilyNumber = unix.AF_INET6 }
func udp(e *event.Socket) {
	e.Protocol, e.Type, e.ProtoNumber = "udp", unix.SOCK_DGRAM, unix.IPPROTO_UDP
}

func port(t testing.TB, fd int) int {
	t.Helper()
	a, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return a.Port
	case *unix.SockaddrInet6:
		return a.Port
	}
	return 0
}

var (
	loop4  = [4]byte{127, 0, 0, 1}
	loop6  = [16]byte{15: 1}
	loop46 = [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}
)

// listener binds and listens, and returns the socket and its port.
func (s *side) listener(family int, at unix.Sockaddr, backlog int) (int, int) {
	s.t.Helper()
	fd := s.socket(family, unix.SOCK_STREAM)
	s.must(unix.Bind(fd, at))
	s.must(unix.Listen(fd, backlog))
	return fd, port(s.t, fd)
}

func (s *side) close(fds ...int) {
	s.t.Helper()
	for _, fd := range fds {
		s.must(unix.Close(fd))
	}
}

// readAll reads to the end of the stream.
func (s *side) readAll(fd int) int {
	s.t.Helper()
	b := make([]byte, 65536)
	total := 0
	for {
		n, err := unix.Read(fd, b)
		s.must(err)
		if n == 0 {
			return total
		}
		total += n
	}
}

func sockets(t *testing.T, l *live) {
	t.Run("tcp", func(t *testing.T) { tcpSockets(t, l) })
	t.Run("connect", func(t *testing.T) { connects(t, l) })
	t.Run("slow", func(t *testing.T) { slowConnects(t, l) })
	t.Run("udp", func(t *testing.T) { datagrams(t, l) })
	t.Run("unix", func(t *testing.T) { unixSockets(t, l) })
}

// tcpSockets has connections come to be and end, with bytes each way.
func tcpSockets(t *testing.T, l *live) {
	for _, tt := range []struct {
		name           string
		family, client int
		at, to         func(port int) unix.Sockaddr
		address, bound string
		as, clientAs   func(*event.Socket)
	}{
		{"IPv4", unix.AF_INET, unix.AF_INET,
			func(p int) unix.Sockaddr { return &unix.SockaddrInet4{Addr: loop4, Port: p} },
			func(p int) unix.Sockaddr { return &unix.SockaddrInet4{Addr: loop4, Port: p} },
			"127.0.0.1", "127.0.0.1", func(*event.Socket) {}, func(*event.Socket) {}},
		{"IPv6", unix.AF_INET6, unix.AF_INET6,
			func(p int) unix.Sockaddr { return &unix.SockaddrInet6{Addr: loop6, Port: p} },
			func(p int) unix.Sockaddr { return &unix.SockaddrInet6{Addr: loop6, Port: p} },
			"::1", "::1", inet6, inet6},
		{"IPv4 to a socket of both", unix.AF_INET6, unix.AF_INET,
			func(p int) unix.Sockaddr { return &unix.SockaddrInet6{Port: p} },
			func(p int) unix.Sockaddr { return &unix.SockaddrInet4{Addr: loop4, Port: p} },
			"127.0.0.1", "::", through6, func(*event.Socket) {}},
		{"IPv4 through IPv6 sockets", unix.AF_INET6, unix.AF_INET6,
			func(p int) unix.Sockaddr { return &unix.SockaddrInet6{Port: p} },
			func(p int) unix.Sockaddr { return &unix.SockaddrInet6{Addr: loop46, Port: p} },
			"127.0.0.1", "::", through6, through6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inNetwork(t, l, func(s *side) {
				lfd, lport := s.listener(tt.family, tt.at(0), 8)
				cfd := s.socket(tt.client, unix.SOCK_STREAM)
				s.must(unix.Connect(cfd, tt.to(lport)))
				cport := port(t, cfd)
				afd, _, err := unix.Accept(lfd)
				s.must(err)
				// The client ends its half first, the server answers after that.
				_, err = unix.Write(cfd, make([]byte, 1000))
				s.must(err)
				s.must(unix.Shutdown(cfd, unix.SHUT_WR))
				if n := s.readAll(afd); n != 1000 {
					t.Fatalf("read %d bytes", n)
				}
				_, err = unix.Write(afd, make([]byte, 40000))
				s.must(err)
				s.close(afd)
				if n := s.readAll(cfd); n != 40000 {
					t.Fatalf("read %d bytes", n)
				}
				s.close(cfd, lfd)
				listening := tt.as
				if tt.bound == "::" {
					listening = inet6
				}
				s.expect(
					tcp(event.KindBind, tt.bound, lport, "", 0, fd(lfd), listening),
					tcp(event.KindListen, tt.bound, lport, "", 0, fd(lfd), listening),
					tcp(event.KindConnect, tt.address, cport, tt.address, lport, tt.clientAs),
					tcp(event.KindAccept, tt.address, lport, tt.address, cport, fd(afd), tt.as),
					tcp(event.KindClose, tt.address, lport, tt.address, cport, bytes2(40000, 1000), tt.as),
					tcp(event.KindClose, tt.address, cport, tt.address, lport, bytes2(1000, 40000), tt.clientAs),
				)
			})
		})
	}
	t.Run("accept4, nothing sent, closed by the client", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			lfd, lport := s.listener(unix.AF_INET, &unix.SockaddrInet4{Addr: loop4}, 8)
			cfd := s.socket(unix.AF_INET, unix.SOCK_STREAM)
			s.must(unix.Connect(cfd, &unix.SockaddrInet4{Addr: loop4, Port: lport}))
			cport := port(t, cfd)
			afd, _, err := unix.Accept4(lfd, unix.SOCK_CLOEXEC)
			s.must(err)
			s.close(cfd, afd, lfd)
			s.expect(
				tcp(event.KindBind, "127.0.0.1", lport, "", 0, fd(lfd)),
				tcp(event.KindListen, "127.0.0.1", lport, "", 0, fd(lfd)),
				tcp(event.KindConnect, "127.0.0.1", cport, "127.0.0.1", lport),
				tcp(event.KindAccept, "127.0.0.1", lport, "127.0.0.1", cport, fd(afd)),
				tcp(event.KindClose, "127.0.0.1", lport, "127.0.0.1", cport),
				tcp(event.KindClose, "127.0.0.1", cport, "127.0.0.1", lport),
			)
		})
	})
	t.Run("reset before accept", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			lfd, lport := s.listener(unix.AF_INET, &unix.SockaddrInet4{Addr: loop4}, 8)
			cfd := s.socket(unix.AF_INET, unix.SOCK_STREAM)
			s.must(unix.Connect(cfd, &unix.SockaddrInet4{Addr: loop4, Port: lport}))
			cport := port(t, cfd)
			_, err := unix.Write(cfd, []byte("abc"))
			s.must(err)
			s.must(unix.SetsockoptLinger(cfd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
			s.close(cfd)
			afd, _, err := unix.Accept4(lfd, unix.SOCK_CLOEXEC)
			s.must(err)
			s.close(afd, lfd)
			s.expect(
				tcp(event.KindBind, "127.0.0.1", lport, "", 0, fd(lfd)),
				tcp(event.KindListen, "127.0.0.1", lport, "", 0, fd(lfd)),
				tcp(event.KindConnect, "127.0.0.1", cport, "127.0.0.1", lport),
				tcp(event.KindAccept, "127.0.0.1", lport, "127.0.0.1", cport, fd(afd)),
				tcp(event.KindClose, "127.0.0.1", lport, "127.0.0.1", cport, bytes2(0, 3), result("ECONNRESET")),
				tcp(event.KindClose, "127.0.0.1", cport, "127.0.0.1", lport, bytes2(3, 0)),
			)
		})
	})
	t.Run("never accepted", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			lfd, lport := s.listener(unix.AF_INET, &unix.SockaddrInet4{Addr: loop4}, 8)
			cfd := s.socket(unix.AF_INET, unix.SOCK_STREAM)
			s.must(unix.Connect(cfd, &unix.SockaddrInet4{Addr: loop4, Port: lport}))
			cport := port(t, cfd)
			s.close(lfd) // resets the connection in its queue
			s.close(cfd)
			s.expect(
				tcp(event.KindBind, "127.0.0.1", lport, "", 0, fd(lfd)),
				tcp(event.KindListen, "127.0.0.1", lport, "", 0, fd(lfd)),
				tcp(event.KindConnect, "127.0.0.1", cport, "127.0.0.1", lport),
				tcp(event.KindClose, "127.0.0.1", cport, "127.0.0.1", lport, result("ECONNRESET")),
			)
		})
	})
	t.Run("accept that finds nobody or cannot", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			lfd := s.socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
			if _, _, err := unix.Accept(lfd); err != unix.EINVAL {
				t.Errorf("accept: %v", err)
			}
			s.must(unix.Listen(lfd, 1)) // takes a port
			lport := port(t, lfd)
			if _, _, err := unix.Accept(lfd); err != unix.EAGAIN {
				t.Errorf("accept: %v", err)
			}
			s.close(lfd)
			want := []*event.Socket{tcp(event.KindListen, "0.0.0.0", lport, "", 0, fd(lfd))}
			if !below(l.tiers["accept"]) { // which see what was accepted
				want = append(want, tcp(event.KindAccept, "0.0.0.0", 0, "0.0.0.0", 0, fd(lfd), result("EINVAL")))
			}
			s.expect(want...)
		})
	})
	t.Run("bind", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			a, b, c := s.socket(unix.AF_INET, unix.SOCK_STREAM), s.socket(unix.AF_INET, unix.SOCK_STREAM), s.socket(unix.AF_INET6, unix.SOCK_DGRAM)
			s.must(unix.Bind(a, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 9}, Port: 8080}))
			s.must(unix.Listen(a, 1))
			if err := unix.Bind(b, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 9}, Port: 8080}); err != unix.EADDRINUSE {
				t.Errorf("bind: %v", err)
			}
			if err := unix.Bind(b, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 8081}); err != unix.EADDRNOTAVAIL {
				t.Errorf("bind: %v", err)
			}
			s.must(unix.Bind(c, &unix.SockaddrInet6{Addr: loop6, Port: 8082}))
			s.close(a, b, c)
			s.expect(
				tcp(event.KindBind, "127.0.0.9", 8080, "", 0, fd(a)),
				tcp(event.KindBind, "127.0.0.9", 8080, "", 0, fd(b), result("EADDRINUSE"), fidelity("user")),
				tcp(event.KindBind, "192.0.2.1", 8081, "", 0, fd(b), result("EADDRNOTAVAIL"), fidelity("user")),
				tcp(event.KindBind, "::1", 8082, "", 0, fd(c), inet6, udp),
				tcp(event.KindListen, "127.0.0.9", 8080, "", 0, fd(a)),
			)
		})
	})
	t.Run("outside of any namespace", func(t *testing.T) {
		onThread(t, func() {
			s := newSide(t, l)
			s.ns = uint32(inode(t, "/proc/thread-self/ns/net"))
			lfd, lport := s.listener(unix.AF_INET, &unix.SockaddrInet4{Addr: loop4}, 1)
			s.close(lfd)
			s.expect(
				tcp(event.KindBind, "127.0.0.1", lport, "", 0, fd(lfd)),
				tcp(event.KindListen, "127.0.0.1", lport, "", 0, fd(lfd)),
			)
		})
	})
}

// connects asks for connections whose outcome is known at once.
func connects(t *testing.T, l *live) {
	for _, tt := range []struct {
		name  string
		flags int
	}{{"blocking", 0}, {"nonblocking", unix.SOCK_NONBLOCK}} {
		t.Run(tt.name+" refused", func(t *testing.T) {
			inNetwork(t, l, func(s *side) {
				c := s.socket(unix.AF_INET, unix.SOCK_STREAM|tt.flags)
				err := unix.Connect(c, &unix.SockaddrInet4{Addr: loop4, Port: 9})
				if err == unix.EINPROGRESS && tt.flags != 0 { // a busy machine refuses a little later
					s.ready(c)
				} else if err != unix.ECONNREFUSED {
					t.Errorf("connect: %v", err)
				}
				got := s.told()
				s.close(c)
				want := tcp(event.KindConnect, "127.0.0.1", 0, "127.0.0.1", 9, result("ECONNREFUSED"))
				if len(got) == 1 { // the port of our side went back when the connection failed
					want.LocalPort = got[0].LocalPort
				}
				s.compare(got, []*event.Socket{want})
			})
		})
		t.Run(tt.name+" unreachable", func(t *testing.T) {
			inNetwork(t, l, func(s *side) {
				c := s.socket(unix.AF_INET, unix.SOCK_STREAM|tt.flags)
				if err := unix.Connect(c, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 443}); err != unix.ENETUNREACH {
					t.Errorf("connect: %v", err)
				}
				six := s.socket(unix.AF_INET6, unix.SOCK_STREAM|tt.flags)
				if err := unix.Connect(six, &unix.SockaddrInet6{Addr: [16]byte{0x20, 1, 0xd, 0xb8, 15: 1}, Port: 443}); err != unix.ENETUNREACH {
					t.Errorf("connect: %v", err)
				}
				s.close(c, six)
				s.expect(
					tcp(event.KindConnect, "0.0.0.0", 0, "192.0.2.1", 443, fd(c), result("ENETUNREACH"), fidelity("user")),
					tcp(event.KindConnect, "::", 0, "2001:db8::1", 443, fd(six), inet6, result("ENETUNREACH"), fidelity("user")),
				)
			})
		})
	}
	t.Run("no local address left", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			a, aport := s.listener(unix.AF_INET, &unix.SockaddrInet4{Addr: loop4}, 1)
			c := s.socket(unix.AF_INET, unix.SOCK_STREAM)
			d := s.socket(unix.AF_INET, unix.SOCK_STREAM)
			for _, fd := range []int{c, d} {
				s.must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
				s.must(unix.Bind(fd, &unix.SockaddrInet4{Addr: loop4, Port: 4444}))
			}
			s.must(unix.Connect(c, &unix.SockaddrInet4{Addr: loop4, Port: aport}))
			// The same four numbers again: fails after SYN_SENT, within the call.
			if err := unix.Connect(d, &unix.SockaddrInet4{Addr: loop4, Port: aport}); err != unix.EADDRNOTAVAIL {
				t.Errorf("connect: %v", err)
			}
			s.close(d)
			s.expect(
				tcp(event.KindBind, "127.0.0.1", aport, "", 0, fd(a)),
				tcp(event.KindListen, "127.0.0.1", aport, "", 0, fd(a)),
				tcp(event.KindBind, "127.0.0.1", 4444, "", 0, fd(c)),
				tcp(event.KindBind, "127.0.0.1", 4444, "", 0, fd(d)),
				tcp(event.KindConnect, "127.0.0.1", 4444, "127.0.0.1", aport),
				tcp(event.KindConnect, "127.0.0.1", 4444, "127.0.0.1", aport, fd(d), result("EADDRNOTAVAIL"), fidelity("user")),
			)
			s.close(c, a)
		})
	})
	t.Run("over several paths", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
			if err != nil {
				t.Skipf("this kernel has no MPTCP: %v", err)
			}
			a, aport := s.listener(unix.AF_INET, &unix.SockaddrInet4{Addr: loop4}, 1)
			s.must(unix.Connect(c, &unix.SockaddrInet4{Addr: loop4, Port: aport}))
			cport := port(t, c)
			d, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
			s.must(err)
			s.must(unix.Bind(d, &unix.SockaddrInet4{Addr: loop4, Port: 4446}))
			if err := unix.Connect(d, &unix.SockaddrInet4{Addr: loop4, Port: 9}); err != unix.ECONNREFUSED {
				t.Errorf("connect: %v", err)
			}
			if err := unix.Connect(d, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 9}); err != unix.ENETUNREACH {
				t.Errorf("connect: %v", err)
			}
			mptcp := func(e *event.Socket) { e.Protocol, e.ProtoNumber = "mptcp", unix.IPPROTO_MPTCP }
			s.expect( // the connections are told by their TCP sockets
				tcp(event.KindBind, "127.0.0.1", aport, "", 0, fd(a)),
				tcp(event.KindListen, "127.0.0.1", aport, "", 0, fd(a)),
				tcp(event.KindConnect, "127.0.0.1", cport, "127.0.0.1", aport),
				tcp(event.KindBind, "127.0.0.1", 4446, "", 0, fd(d), mptcp),
				tcp(event.KindConnect, "127.0.0.1", 4446, "127.0.0.1", 9, result("ECONNREFUSED")),
				tcp(event.KindConnect, "127.0.0.1", 4446, "192.0.2.1", 9, fd(d), mptcp, result("ENETUNREACH"), fidelity("user")),
			)
			s.close(c, d, a)
		})
	})
	t.Run("connected already", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			a, aport := s.listener(unix.AF_INET, &unix.SockaddrInet4{Addr: loop4}, 1)
			c := s.socket(unix.AF_INET, unix.SOCK_STREAM)
			s.must(unix.Connect(c, &unix.SockaddrInet4{Addr: loop4, Port: aport}))
			cport := port(t, c)
			if err := unix.Connect(c, &unix.SockaddrInet4{Addr: loop4, Port: aport}); err != unix.EISCONN {
				t.Errorf("connect: %v", err)
			}
			s.expect(
				tcp(event.KindBind, "127.0.0.1", aport, "", 0, fd(a)),
				tcp(event.KindListen, "127.0.0.1", aport, "", 0, fd(a)),
				tcp(event.KindConnect, "127.0.0.1", cport, "127.0.0.1", aport),
			)
			s.close(c, a)
		})
	})
}
