package sensor

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"golang.org/x/sys/unix"
)

// wire is a cable to another network namespace whose far end, 10.7.0.2, does not answer
// until its address is made known: what is sent to it waits that long, up to so many seconds.
func (s *side) wire(seconds int) (answer func()) {
	s.t.Helper()
	far := make(chan int)
	done := make(chan struct{})
	s.t.Cleanup(func() { close(done) })
	ready := make(chan struct{})
	go inNetwork(s.t, s.l, func(f *side) {
		far <- f.tid
		<-far
		// Both ends have the same hardware address, and none asks for the other's.
		f.ip("addr", "add", "10.7.0.2/24", "dev", "v1")
		f.ip("link", "set", "v1", "arp", "off", "up")
		close(ready)
		<-done
	})
	tid := <-far
	s.ip("link", "add", "v0", "address", "02:00:00:00:00:07", "type", "veth",
		"peer", "name", "v1", "address", "02:00:00:00:00:07", "netns", fmt.Sprint(tid))
	// Each second it is asked once (arp(7)).
	s.must(os.WriteFile("/proc/sys/net/ipv4/neigh/v0/mcast_solicit", []byte(fmt.Sprint(seconds)), 0))
	s.ip("addr", "add", "10.7.0.1/24", "dev", "v0")
	s.ip("link", "set", "v0", "up")
	far <- 0
	<-ready
	return func() {
		s.ip("neigh", "replace", "10.7.0.2", "lladdr", "02:00:00:00:00:07", "dev", "v0", "nud", "permanent")
	}
}

// outcome expects one event, and before it the same as under way if that took so long.
func (s *side) outcome(late bool, want *event.Socket) {
	s.t.Helper()
	got := s.told()
	if late && len(got) == 2 && got[0].Result == "in_progress" {
		got = got[1:]
	}
	s.compare(got, []*event.Socket{want})
}

// ready waits until the outcome of a connect is there.
func (s *side) ready(c int) {
	s.t.Helper()
	fds := []unix.PollFd{{Fd: int32(c), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(fds, int(patience/time.Millisecond))
		if err == unix.EINTR {
			continue
		}
		if n != 1 || err != nil {
			s.t.Fatalf("poll: %d, %v", n, err)
		}
		return
	}
}

var farAway = [4]byte{10, 7, 0, 2}

// slowConnects asks for connections that take their time. They run side by side.
func slowConnects(t *testing.T, l *live) {
	// pending asks without blocking and returns the socket and its port.
	pending := func(s *side) (int, int) {
		c := s.socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
		if err := unix.Connect(c, &unix.SockaddrInet4{Addr: farAway, Port: 443}); err != unix.EINPROGRESS {
			s.t.Fatalf("connect: %v", err)
		}
		return c, port(s.t, c)
	}
	t.Run("refused soon", func(t *testing.T) {
		t.Parallel()
		inNetwork(t, l, func(s *side) {
			answer := s.wire(60)
			began := time.Now()
			c, cport := pending(s)
			time.Sleep(100 * time.Millisecond)
			if got := s.told(); len(got) != 0 && time.Since(began) < time.Second {
				t.Errorf("got %d events before the outcome", len(got))
			}
			answer()
			s.ready(c)
			late := time.Since(began) > 900*time.Millisecond
			if n, err := unix.GetsockoptInt(c, unix.SOL_SOCKET, unix.SO_ERROR); n != int(unix.ECONNREFUSED) {
				t.Errorf("SO_ERROR: %d, %v", n, err)
			}
			s.close(c)
			s.outcome(late, tcp(event.KindConnect, "10.7.0.1", cport, "10.7.0.2", 443, result("ECONNREFUSED")))
		})
	})
	t.Run("refused soon, and asked for the outcome by connecting again", func(t *testing.T) {
		t.Parallel()
		inNetwork(t, l, func(s *side) {
			answer := s.wire(60)
			began := time.Now()
			c, cport := pending(s)
			if err := unix.Connect(c, &unix.SockaddrInet4{Addr: farAway, Port: 443}); err != unix.EALREADY {
				t.Errorf("connect: %v", err)
			}
			answer()
			s.ready(c)
			late := time.Since(began) > 900*time.Millisecond
			if err := unix.Connect(c, &unix.SockaddrInet4{Addr: farAway, Port: 443}); err != unix.ECONNREFUSED {
				t.Errorf("connect: %v", err)
			}
			s.close(c)
			s.outcome(late, tcp(event.KindConnect, "10.7.0.1", cport, "10.7.0.2", 443, result("ECONNREFUSED")))
		})
	})
	t.Run("blocking, refused in the end", func(t *testing.T) {
		t.Parallel()
		inNetwork(t, l, func(s *side) {
			answer := s.wire(60)
			c := s.socket(unix.AF_INET, unix.SOCK_STREAM)
			s.must(unix.Bind(c, &unix.SockaddrInet4{Port: 4445}))
			go func() {
				time.Sleep(1500 * time.Millisecond)
				onThread(t, func() {
					ns, err := unix.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", s.tid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
					s.must(err)
					defer unix.Close(ns)
					s.must(unix.Setns(ns, unix.CLONE_NEWNET))
					answer()
				})
			}()
			if err := unix.Connect(c, &unix.SockaddrInet4{Addr: farAway, Port: 443}); err != unix.ECONNREFUSED {
				t.Errorf("connect: %v", err)
			}
			s.close(c)
			got := s.told()
			s.compare(got, []*event.Socket{
				tcp(event.KindBind, "0.0.0.0", 4445, "", 0, fd(c)),
				tcp(event.KindConnect, "10.7.0.1", 4445, "10.7.0.2", 443, result("ECONNREFUSED")),
			})
			for _, e := range got {
				if e.Kind == event.KindConnect && e.DurationNs < 1_400_000_000 {
					t.Errorf("it took %v", time.Duration(e.DurationNs))
				}
			}
		})
	})
	t.Run("unreachable after three seconds", func(t *testing.T) {
		t.Parallel()
		inNetwork(t, l, func(s *side) {
			s.wire(3)
			began := time.Now()
			c, cport := pending(s)
			for len(s.sofar()) == 0 && time.Since(began) < patience {
				time.Sleep(10 * time.Millisecond)
			}
			if d := time.Since(began); d < time.Second || d > 2500*time.Millisecond && !testing.Short() {
				t.Errorf("told as in progress after %v, want little more than 1 s", d)
			}
			s.ready(c)
			s.close(c)
			s.expect(
				tcp(event.KindConnect, "10.7.0.1", cport, "10.7.0.2", 443, result("in_progress")),
				tcp(event.KindConnect, "10.7.0.1", cport, "10.7.0.2", 443, result("EHOSTUNREACH")),
			)
		})
	})
	t.Run("closed undecided", func(t *testing.T) {
		t.Parallel()
		inNetwork(t, l, func(s *side) {
			s.wire(60)
			c, cport := pending(s)
			s.close(c)
			for range 300 {
				if len(s.sofar()) > 0 {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			s.expect(tcp(event.KindConnect, "10.7.0.1", cport, "10.7.0.2", 443, result("in_progress")))
		})
	})
	t.Run("blocking, given up after a time limit", func(t *testing.T) {
		t.Parallel()
		inNetwork(t, l, func(s *side) {
			answer := s.wire(60)
			c := s.socket(unix.AF_INET, unix.SOCK_STREAM)
			s.must(unix.SetsockoptTimeval(c, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 100_000}))
			began := time.Now()
			if err := unix.Connect(c, &unix.SockaddrInet4{Addr: farAway, Port: 443}); err != unix.EINPROGRESS {
				t.Errorf("connect: %v", err)
			}
			cport := port(t, c)
			answer()
			s.ready(c)
			late := time.Since(began) > 900*time.Millisecond
			s.close(c)
			s.outcome(late, tcp(event.KindConnect, "10.7.0.1", cport, "10.7.0.2", 443, result("ECONNREFUSED")))
		})
	})
	t.Run("until the listener has room", func(t *testing.T) {
		t.Parallel()
		inNetwork(t, l, func(s *side) {
			lfd, lport := s.listener(unix.AF_INET, &unix.SockaddrInet4{Addr: loop4}, 0)
			to := &unix.SockaddrInet4{Addr: loop4, Port: lport}
			first := s.socket(unix.AF_INET, unix.SOCK_STREAM)
			s.must(unix.Connect(first, to)) // fills the queue: what follows is dropped, and sent again after 1 s
			c := s.socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
			began := time.Now()
			if err := unix.Connect(c, to); err != unix.EINPROGRESS {
				t.Fatalf("connect: %v", err)
			}
			fport, cport := port(t, first), port(t, c)
			for len(s.sofar()) < 4 && time.Since(began) < patience {
				time.Sleep(10 * time.Millisecond)
			}
			afd, _, err := unix.Accept(lfd)
			s.must(err)
			s.ready(c)
			if n, err := unix.GetsockoptInt(c, unix.SOL_SOCKET, unix.SO_ERROR); n != 0 || err != nil {
				t.Errorf("SO_ERROR: %d, %v", n, err)
			}
			s.expect(
				tcp(event.KindBind, "127.0.0.1", lport, "", 0, fd(lfd)),
				tcp(event.KindListen, "127.0.0.1", lport, "", 0, fd(lfd)),
				tcp(event.KindConnect, "127.0.0.1", fport, "127.0.0.1", lport),
				tcp(event.KindAccept, "127.0.0.1", lport, "127.0.0.1", fport, fd(afd)),
				tcp(event.KindConnect, "127.0.0.1", cport, "127.0.0.1", lport, result("in_progress")),
				tcp(event.KindConnect, "127.0.0.1", cport, "127.0.0.1", lport),
			)
			s.close(c, first, afd, lfd)
		})
	})
}
