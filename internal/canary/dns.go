package canary

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// answer is an address that nobody has (RFC 5737).
var answer = [4]byte{192, 0, 2, 1}

// names asks a name server of its own, on a loopback address that nobody else is likely to
// have taken, for a name that cannot be (RFC 6761). The datagram that carries the question
// is a connect by the way.
func names(r *round) []*trial {
	s := &sockets{r: r}
	defer s.close()
	r.name = r.nonce + ".goshawk-canary.invalid"
	at := &unix.SockaddrInet4{Port: 53, Addr: [4]byte{127, 53, 0, 1}}
	if b, err := hex.DecodeString(r.nonce); err == nil {
		copy(at.Addr[2:], b)
	}
	address := fmt.Sprintf("127.53.%d.%d", at.Addr[2], at.Addr[3])
	r.server = address
	server := s.socket(unix.AF_INET, unix.SOCK_DGRAM)
	s.do("bind "+address+", port 53", func() error { return unix.Bind(server, at) })
	client := s.socket(unix.AF_INET, unix.SOCK_DGRAM)
	s.do("bind a client", func() error { return unix.Bind(client, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}) })
	own := port(s.name(client))
	r.ports = append(r.ports, own)

	question, reply, err := messages(r.name)
	s.do("write a question", func() error { return err })
	s.do("ask", func() error { return unix.Sendto(client, question, 0, at) })
	asked := s.done
	buf := make([]byte, 512)
	var from unix.Sockaddr
	s.do("hear the question", func() (err error) { _, from, err = unix.Recvfrom(server, buf, 0); return err })
	s.do("answer", func() error { return unix.Sendto(server, reply, 0, from) })
	s.do("hear the answer", func() error { _, _, err := unix.Recvfrom(client, buf, 0); return err })
	s.done = asked
	s.expect(event.KindConnect, "send a UDP datagram", event.Socket{Family: "inet", Protocol: "udp",
		LocalAddress: "127.0.0.1", LocalPort: own, RemoteAddress: address, RemotePort: 53}, "datagram")

	t := &trial{Result: Result{Kind: event.KindDNS, What: "ask a name server"}, hooks: []string{"dns"}, done: asked}
	if s.err != nil {
		t.Skipped = s.err.Error()
	}
	t.match = func(e event.Event) bool { return e.Head().Kind == event.KindDNS }
	t.check = func(e event.Event) string {
		x := e.(*event.DNS)
		return wrong("query_type", x.QueryType == "A") + wrong("answers", x.Answers == "192.0.2.1\x00") +
			wrong("response_code", x.ResponseCode == "NOERROR") + wrong("server", x.Server == address)
	}
	return append(s.all, t)
}

// messages are a question for name and its answer (RFC 1035).
func messages(name string) (question, reply []byte, err error) {
	n, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return nil, nil, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: binary.BigEndian.Uint16([]byte(name)), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	if question, err = m.Pack(); err != nil {
		return nil, nil, err
	}
	m.Response = true
	m.Answers = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: n, Class: dnsmessage.ClassINET, TTL: 1}, Body: &dnsmessage.AResource{A: answer},
	}}
	reply, err = m.Pack()
	return question, reply, err
}
