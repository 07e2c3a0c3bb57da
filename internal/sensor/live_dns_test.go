package sensor

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// serveDNS answers questions on port 53 of both loopback addresses of the thread's network
// namespace until the test ends: from zone, NXDOMAIN for other names, and nothing at all for
// silence.
func (s *side) serveDNS(zone map[string][]dnsmessage.ResourceBody) {
	s.t.Helper()
	for _, at := range []string{"127.0.0.1:53", "[::1]:53"} {
		pc, err := net.ListenPacket("udp", at)
		s.must(err)
		done := make(chan struct{})
		s.t.Cleanup(func() { pc.Close(); <-done })
		go func() {
			defer close(done)
			b := make([]byte, 4096)
			for {
				n, from, err := pc.ReadFrom(b)
				if err != nil {
					return
				}
				var m dnsmessage.Message
				if m.Unpack(b[:n]) != nil || len(m.Questions) == 0 {
					s.t.Errorf("a question that does not parse: %q", b[:n])
					continue
				}
				q := m.Questions[0]
				name := q.Name.String()
				if name == "silence." {
					continue
				}
				code := dnsmessage.RCodeSuccess
				if _, ok := zone[name]; !ok {
					code = dnsmessage.RCodeNameError
				}
				pc.WriteTo([]byte(reply(s.t, m.ID, code, name, q.Type, zone[name]...)), from)
			}
		}()
	}
}

// ask sends a question and, when one comes, takes the answer.
func (s *side) ask(fd int, to unix.Sockaddr, question string, answered bool) {
	s.t.Helper()
	if to != nil {
		s.must(unix.Sendto(fd, []byte(question), 0, to))
	} else {
		_, err := unix.Write(fd, []byte(question))
		s.must(err)
	}
	if !answered {
		return
	}
	s.must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience / time.Second)}))
	_, _, err := unix.Recvfrom(fd, make([]byte, 65536), 0)
	s.must(err)
}

func TestLiveDNS(t *testing.T) {
	t.Parallel()
	eachTier(t, Options{Kinds: []event.ID{event.KindExit, event.KindDNS}}, questions)
}

// questions are asked and answered, or not; l is stopped at the end.
func questions(t *testing.T, l *live) {
	name := dnsmessage.MustNewName
	zone := map[string][]dnsmessage.ResourceBody{
		"www.example.": {&dnsmessage.CNAMEResource{CNAME: name("web.example.")},
			&dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}, &dnsmessage.AResource{A: [4]byte{192, 0, 2, 2}}},
		"six.example.":            {&dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::53").As16()}},
		"example.":                {&dnsmessage.MXResource{Pref: 5, MX: name("mail.example.")}},
		"1.2.0.192.in-addr.arpa.": {&dnsmessage.PTRResource{PTR: name("www.example.")}},
		"_sip._udp.example.":      {&dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 5060, Target: name("sip.example.")}},
		"txt.example.":            {&dnsmessage.TXTResource{TXT: []string{"v=spf1", " -all"}}},
		"big.example.":            {&dnsmessage.TXTResource{TXT: []string{strings.Repeat("b", 250), strings.Repeat("c", 250), strings.Repeat("d", 250)}}},
		"huge.example.": {&dnsmessage.AResource{A: [4]byte{192, 0, 2, 3}}, &dnsmessage.TXTResource{TXT: []string{
			strings.Repeat("e", 250), strings.Repeat("f", 250), strings.Repeat("g", 250), strings.Repeat("h", 250),
			strings.Repeat("i", 250), strings.Repeat("j", 250), strings.Repeat("k", 250), strings.Repeat("l", 250),
			strings.Repeat("m", 250), strings.Repeat("n", 250), strings.Repeat("o", 250), strings.Repeat("p", 250),
			strings.Repeat("q", 250), strings.Repeat("r", 250), strings.Repeat("s", 250), strings.Repeat("t", 250),
			strings.Repeat("u", 250)}}},
	}
	four := &unix.SockaddrInet4{Addr: loop4, Port: 53}
	six := &unix.SockaddrInet6{Addr: loop6, Port: 53}
	asMapped := &unix.SockaddrInet6{Addr: loop46, Port: 53}
	for _, tt := range []struct {
		name      string
		to        unix.Sockaddr
		connected bool
		question  string // as sent; with a dot at its end
		typ       dnsmessage.Type
		want      event.DNS
	}{
		{"A", four, false, "www.example.", dnsmessage.TypeA, event.DNS{QueryType: "A",
			Answers: "web.example\x00192.0.2.1\x00192.0.2.2\x00", ResponseCode: "NOERROR", Server: "127.0.0.1"}},
		{"A, connected", four, true, "www.example.", dnsmessage.TypeA, event.DNS{QueryType: "A",
			Answers: "web.example\x00192.0.2.1\x00192.0.2.2\x00", ResponseCode: "NOERROR", Server: "127.0.0.1"}},
		{"AAAA over IPv6", six, false, "six.example.", dnsmessage.TypeAAAA, event.DNS{QueryType: "AAAA",
			Answers: "2001:db8::53\x00", ResponseCode: "NOERROR", Server: "::1"}},
		{"MX over IPv6, connected", six, true, "example.", dnsmessage.TypeMX, event.DNS{QueryType: "MX",
			Answers: "5 mail.example\x00", ResponseCode: "NOERROR", Server: "::1"}},
		{"PTR over IPv4 from an IPv6 socket", asMapped, false, "1.2.0.192.in-addr.arpa.", dnsmessage.TypePTR, event.DNS{QueryType: "PTR",
			Answers: "www.example\x00", ResponseCode: "NOERROR", Server: "127.0.0.1"}},
		{"SRV over IPv4 from an IPv6 socket, connected", asMapped, true, "_sip._udp.example.", dnsmessage.TypeSRV, event.DNS{QueryType: "SRV",
			Answers: "1 2 5060 sip.example\x00", ResponseCode: "NOERROR", Server: "127.0.0.1"}},
		{"TXT", four, false, "txt.example.", dnsmessage.TypeTXT, event.DNS{QueryType: "TXT",
			Answers: "v=spf1 -all\x00", ResponseCode: "NOERROR", Server: "127.0.0.1"}},
		{"NXDOMAIN", four, true, "no.such.name.", dnsmessage.TypeA, event.DNS{QueryType: "A",
			ResponseCode: "NXDOMAIN", Server: "127.0.0.1"}},
		{"answer of 800 bytes", four, false, "big.example.", dnsmessage.TypeTXT, event.DNS{QueryType: "TXT",
			Answers:      strings.Repeat("b", 250) + strings.Repeat("c", 250) + strings.Repeat("d", 250) + "\x00",
			ResponseCode: "NOERROR", Server: "127.0.0.1"}},
		{"answer longer than is kept", six, true, "huge.example.", dnsmessage.TypeALL, event.DNS{QueryType: "ANY",
			Answers: "192.0.2.3\x00", ResponseCode: "NOERROR", Server: "::1", Truncated: true}},
		{"hostile name", four, true, "a\nb\x1b[31m\xff.example.", dnsmessage.TypeA, event.DNS{QueryType: "A",
			Question: `a\010b\027[31m\255.example`, ResponseCode: "NXDOMAIN", Server: "127.0.0.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inNetwork(t, l, func(s *side) {
				s.serveDNS(zone)
				family := unix.AF_INET
				if _, ok := tt.to.(*unix.SockaddrInet6); ok {
					family = unix.AF_INET6
				}
				c := s.socket(family, unix.SOCK_DGRAM)
				to := tt.to
				if tt.connected {
					s.must(unix.Connect(c, to))
					to = nil
				}
				s.ask(c, to, query(t, 4711, tt.question, tt.typ), true)
				cport := port(t, c)
				s.close(c)
				want := tt.want
				want.ServerPort, want.ClientPort, want.QueryID = 53, uint16(cport), 4711
				if want.Question == "" {
					want.Question = strings.TrimSuffix(tt.question, ".")
				}
				s.expectDNS(&want)
			})
		})
	}
	t.Run("two questions at once", func(t *testing.T) {
		// As the C library asks for both families.
		inNetwork(t, l, func(s *side) {
			s.serveDNS(zone)
			c := s.socket(unix.AF_INET, unix.SOCK_DGRAM)
			s.must(unix.Connect(c, four))
			s.ask(c, nil, query(t, 1, "www.example.", dnsmessage.TypeA), false)
			s.ask(c, nil, query(t, 2, "six.example.", dnsmessage.TypeAAAA), true)
			s.ask(c, nil, query(t, 3, "no.", dnsmessage.TypeA), true)
			cport := uint16(port(t, c))
			want := []*event.DNS{
				{Question: "www.example", QueryType: "A", Answers: "web.example\x00192.0.2.1\x00192.0.2.2\x00", QueryID: 1},
				{Question: "six.example", QueryType: "AAAA", Answers: "2001:db8::53\x00", QueryID: 2},
				{Question: "no", QueryType: "A", QueryID: 3},
			}
			for _, w := range want {
				w.Server, w.ServerPort, w.ClientPort, w.ResponseCode = "127.0.0.1", 53, cport, "NOERROR"
			}
			want[2].ResponseCode = "NXDOMAIN"
			_, _, err := unix.Recvfrom(c, make([]byte, 512), 0)
			s.must(err)
			s.close(c)
			s.expectDNS(want...)
		})
	})
	t.Run("unanswered", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			s.serveDNS(zone)
			c := s.socket(unix.AF_INET, unix.SOCK_DGRAM)
			began := time.Now()
			s.ask(c, four, query(t, 99, "silence.", dnsmessage.TypeA), false)
			cport := uint16(port(t, c))
			s.close(c)
			s.expectDNS(&event.DNS{Question: "silence", QueryType: "A", Server: "127.0.0.1", ServerPort: 53, ClientPort: cport, QueryID: 99})
			if d := time.Since(began); d < 5*time.Second || d > 8*time.Second {
				t.Errorf("told after %v, want little more than 5 s", d)
			}
		})
	})
	t.Run("other datagrams", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			s.serveDNS(zone)
			c := s.socket(unix.AF_INET, unix.SOCK_DGRAM)
			s.must(unix.Sendto(c, []byte("x"), 0, &unix.SockaddrInet4{Addr: loop4, Port: 54}))
			s.ask(c, four, query(t, 5, "www.example.", dnsmessage.TypeA), true)
			cport := uint16(port(t, c))
			s.close(c)
			s.expectDNS(&event.DNS{Question: "www.example", QueryType: "A", Answers: "web.example\x00192.0.2.1\x00192.0.2.2\x00",
				ResponseCode: "NOERROR", Server: "127.0.0.1", ServerPort: 53, ClientPort: cport, QueryID: 5})
		})
	})
	t.Run("open at the end", func(t *testing.T) {
		inNetwork(t, l, func(s *side) {
			s.serveDNS(zone)
			c := s.socket(unix.AF_INET, unix.SOCK_DGRAM)
			s.ask(c, four, query(t, 100, "silence.", dnsmessage.TypeA), false)
			cport := uint16(port(t, c))
			s.close(c)
			l.stop()
			s.expectDNS(&event.DNS{Question: "silence", QueryType: "A", Server: "127.0.0.1", ServerPort: 53, ClientPort: cport, QueryID: 100})
		})
	})
	balanced(t, l)
}

// expectDNS waits for as many questions of this thread as are wanted, and compares them.
func (s *side) expectDNS(want ...*event.DNS) {
	s.t.Helper()
	of := func(e event.Event) bool {
		_, ok := e.(*event.DNS)
		return ok && s.mine(e)
	}
	got := s.l.wait(s.t, len(want), "questions", of)
	for i, g := range got {
		g := g.(*event.DNS)
		w := *want[i]
		w.Header = ours(s.t, &g.Header, os.Getpid())
		w.TID, w.PPID, w.Comm = uint32(s.tid), uint32(os.Getppid()), g.Comm
		if w.DurationNs = g.DurationNs; (g.DurationNs == 0) != (w.ResponseCode == "") {
			s.t.Errorf("duration = %d with response code %q", g.DurationNs, w.ResponseCode)
		}
		compare(s.t, &w, g)
	}
	if n := len(s.l.snapshot(of)); n != len(want) {
		s.t.Errorf("got %d questions, want %d", n, len(want))
	}
}
