package sensor

import (
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/goshawk-project/goshawk/internal/event"
	"golang.org/x/sys/unix"
)

func datagrams(t *testing.T, l *live) {
	t.Run("connect", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			a, b := s.socket(unix.AF_INET, unix.SOCK_DGRAM), s.socket(unix.AF_INET6, unix.SOCK_DGRAM)
			s.must(unix.Connect(a, &unix.SockaddrInet4{Addr: loop4, Port: 514}))
			s.must(unix.Connect(b, &unix.SockaddrInet6{Addr: loop6, Port: 514}))
			aport, bport := port(t, a), port(t, b)
			_, err := unix.Write(a, []byte("told by the connect"))
			s.must(err)
			// Taking the peer away is no connect.
			var none unix.RawSockaddrAny
			if _, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(b), uintptr(unsafe.Pointer(&none)), unix.SizeofSockaddrAny); e != 0 {
				t.Errorf("connect to AF_UNSPEC: %v", e)
			}
			s.close(a, b)
			s.expect(
				tcp(event.KindConnect, "127.0.0.1", aport, "127.0.0.1", 514, fd(a), udp),
				tcp(event.KindConnect, "::1", bport, "::1", 514, fd(b), udp, inet6),
			)
		})
	})
	t.Run("unreachable", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			a := s.socket(unix.AF_INET, unix.SOCK_DGRAM)
			if err := unix.Connect(a, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 514}); err != unix.ENETUNREACH {
				t.Errorf("connect: %v", err)
			}
			aport := port(t, a)
			s.close(a)
			s.expect(tcp(event.KindConnect, "0.0.0.0", aport, "192.0.2.1", 514, fd(a), udp, result("ENETUNREACH"), fidelity("user")))
		})
	})
	t.Run("first datagram to each peer", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			a, b, m := s.socket(unix.AF_INET, unix.SOCK_DGRAM), s.socket(unix.AF_INET6, unix.SOCK_DGRAM), s.socket(unix.AF_INET6, unix.SOCK_DGRAM)
			for range 3 {
				s.must(unix.Sendto(a, []byte("x"), 0, &unix.SockaddrInet4{Addr: loop4, Port: 514}))
				s.must(unix.Sendto(a, []byte("x"), 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 2}, Port: 514}))
				_, err := unix.SendmsgN(a, []byte("x"), nil, &unix.SockaddrInet4{Addr: loop4, Port: 515}, 0)
				s.must(err)
				s.must(unix.Sendto(b, []byte("x"), 0, &unix.SockaddrInet6{Addr: loop6, Port: 514}))
				s.must(unix.Sendto(m, []byte("x"), 0, &unix.SockaddrInet6{Addr: loop46, Port: 516}))
			}
			aport, bport, mport := port(t, a), port(t, b), port(t, m)
			s.close(a, b, m)
			again := s.socket(unix.AF_INET, unix.SOCK_DGRAM)
			s.must(unix.Bind(again, &unix.SockaddrInet4{Addr: loop4, Port: 7777}))
			s.must(unix.Sendto(again, []byte("x"), 0, &unix.SockaddrInet4{Addr: loop4, Port: 514}))
			s.close(again)
			s.expect(
				tcp(event.KindConnect, "0.0.0.0", aport, "127.0.0.1", 514, udp),
				tcp(event.KindConnect, "0.0.0.0", aport, "127.0.0.2", 514, udp),
				tcp(event.KindConnect, "0.0.0.0", aport, "127.0.0.1", 515, udp),
				tcp(event.KindConnect, "::", bport, "::1", 514, udp, inet6),
				tcp(event.KindConnect, "0.0.0.0", mport, "127.0.0.1", 516, udp),
				tcp(event.KindBind, "127.0.0.1", 7777, "", 0, fd(again), udp),
				tcp(event.KindConnect, "127.0.0.1", 7777, "127.0.0.1", 514, udp),
			)
		})
	})
	t.Run("of a socket from another namespace", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			a := s.socket(unix.AF_INET, unix.SOCK_DGRAM)
			s.must(unix.Unshare(unix.CLONE_NEWNET)) // the socket stays where it was made
			s.must(unix.Sendto(a, []byte("x"), 0, &unix.SockaddrInet4{Addr: loop4, Port: 514}))
			aport := port(t, a)
			s.close(a)
			s.expect(tcp(event.KindConnect, "0.0.0.0", aport, "127.0.0.1", 514, udp))
		})
	})
}

func local(kind event.ID, name string, typ int, change ...func(*event.Socket)) *event.Socket {
	e := &event.Socket{Header: event.Header{Kind: kind}, Family: "unix", Protocol: unixType(uint16(typ)),
		FamilyNumber: unix.AF_UNIX, Type: uint16(typ), FD: -1, SocketPath: name, Result: "ok"}
	for _, c := range change {
		c(e)
	}
	return e
}

func unixSockets(t *testing.T, l *live) {
	dir := t.TempDir()
	long := filepath.Join(dir, strings.Repeat("l", 107-len(dir)-1)) // sun_path has 108 bytes
	for _, tt := range []struct {
		name, at, told string
		typ            int
	}{
		{"path", filepath.Join(dir, "a.sock"), filepath.Join(dir, "a.sock"), unix.SOCK_STREAM},
		{"path of 107 bytes", long, long, unix.SOCK_SEQPACKET},
		{"name that is not UTF-8", filepath.Join(dir, "\xff\n"), filepath.Join(dir, "\xff\n"), unix.SOCK_STREAM},
		{"abstract", "@goshawk/test", "@goshawk/test", unix.SOCK_STREAM},
		{"abstract with zeros", "@go\x00shawk\x00", "@go\x00shawk\x00", unix.SOCK_SEQPACKET},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inNetwork(t, l, func(s *side) {
				lfd := s.socket(unix.AF_UNIX, tt.typ)
				s.must(unix.Bind(lfd, &unix.SockaddrUnix{Name: tt.at}))
				s.must(unix.Listen(lfd, 4))
				cfd := s.socket(unix.AF_UNIX, tt.typ)
				s.must(unix.Connect(cfd, &unix.SockaddrUnix{Name: tt.at}))
				afd, _, err := unix.Accept(lfd)
				s.must(err)
				s.close(cfd, afd, lfd)
				s.expect(
					local(event.KindBind, tt.told, tt.typ, fd(lfd)),
					local(event.KindListen, tt.told, tt.typ, fd(lfd)),
					local(event.KindConnect, tt.told, tt.typ, fd(cfd)),
					local(event.KindAccept, tt.told, tt.typ, fd(afd)),
				)
			})
		})
	}
	t.Run("failing", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			c := s.socket(unix.AF_UNIX, unix.SOCK_STREAM)
			gone, stale := filepath.Join(dir, "gone.sock"), filepath.Join(dir, "a.sock")
			if err := unix.Connect(c, &unix.SockaddrUnix{Name: gone}); err != unix.ENOENT {
				t.Errorf("connect: %v", err)
			}
			if err := unix.Connect(c, &unix.SockaddrUnix{Name: "@goshawk/none"}); err != unix.ECONNREFUSED {
				t.Errorf("connect: %v", err)
			}
			if err := unix.Bind(c, &unix.SockaddrUnix{Name: stale}); err != unix.EADDRINUSE {
				t.Errorf("bind: %v", err)
			}
			s.close(c)
			s.expect(
				local(event.KindConnect, gone, unix.SOCK_STREAM, fd(c), result("ENOENT"), fidelity("user")),
				local(event.KindConnect, "@goshawk/none", unix.SOCK_STREAM, fd(c), result("ECONNREFUSED"), fidelity("user")),
				local(event.KindBind, stale, unix.SOCK_STREAM, fd(c), result("EADDRINUSE"), fidelity("user")),
			)
		})
	})
	t.Run("datagrams", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			log := filepath.Join(dir, "log")
			a, c := s.socket(unix.AF_UNIX, unix.SOCK_DGRAM), s.socket(unix.AF_UNIX, unix.SOCK_DGRAM)
			s.must(unix.Bind(a, &unix.SockaddrUnix{Name: log}))
			s.must(unix.Connect(c, &unix.SockaddrUnix{Name: log}))
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			s.must(err)
			s.close(a, c, pair[0], pair[1])
			s.expect(
				local(event.KindBind, log, unix.SOCK_DGRAM, fd(a)),
				local(event.KindConnect, log, unix.SOCK_DGRAM, fd(c)),
			)
		})
	})
}
