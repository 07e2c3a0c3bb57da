package sensor

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// message packs a DNS message with another's implementation.
func message(t testing.TB, m dnsmessage.Message) string {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func query(t testing.TB, id uint16, name string, typ dnsmessage.Type) string {
	return message(t, dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET}},
	})
}

// reply answers query(id, name, typ) with records that all have that name.
func reply(t testing.TB, id uint16, code dnsmessage.RCode, name string, typ dnsmessage.Type, bodies ...dnsmessage.ResourceBody) string {
	n := dnsmessage.MustNewName(name)
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, Response: true, RCode: code},
		Questions: []dnsmessage.Question{{Name: n, Type: typ, Class: dnsmessage.ClassINET}},
	}
	for _, b := range bodies {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: n, Class: dnsmessage.ClassINET, TTL: 60}, Body: b})
	}
	return message(t, m)
}

func TestParseDNS(t *testing.T) {
	name := dnsmessage.MustNewName
	opt := func(extended dnsmessage.RCode) dnsmessage.Resource {
		h := dnsmessage.ResourceHeader{}
		if err := h.SetEDNS0(4096, extended, true); err != nil {
			t.Fatal(err)
		}
		return dnsmessage.Resource{Header: h, Body: &dnsmessage.OPTResource{}}
	}
	for _, tt := range []struct {
		name, in string
		want     dnsMessage
		err      error
	}{
		{"question", query(t, 7, "www.Example.org.", dnsmessage.TypeA),
			dnsMessage{id: 7, question: "www.Example.org", queryType: "A"}, nil},
		{"question for the root", query(t, 7, ".", dnsmessage.TypeNS),
			dnsMessage{id: 7, question: ".", queryType: "NS"}, nil},
		{"question of a type without a name", query(t, 7, "a.", 4711),
			dnsMessage{id: 7, question: "a", queryType: "TYPE4711"}, nil},
		{"A", reply(t, 1, 0, "a.b.", dnsmessage.TypeA,
			&dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}, &dnsmessage.AResource{A: [4]byte{192, 0, 2, 2}}),
			dnsMessage{id: 1, question: "a.b", queryType: "A", code: "NOERROR", answers: []byte("192.0.2.1\x00192.0.2.2\x00")}, nil},
		{"AAAA", reply(t, 1, 0, "a.b.", dnsmessage.TypeAAAA,
			&dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()}),
			dnsMessage{id: 1, question: "a.b", queryType: "AAAA", code: "NOERROR", answers: []byte("2001:db8::1\x00")}, nil},
		{"CNAME and its address", reply(t, 1, 0, "a.b.", dnsmessage.TypeA,
			&dnsmessage.CNAMEResource{CNAME: name("c.b.")}, &dnsmessage.AResource{A: [4]byte{1, 2, 3, 4}}),
			dnsMessage{id: 1, question: "a.b", queryType: "A", code: "NOERROR", answers: []byte("c.b\x001.2.3.4\x00")}, nil},
		{"PTR", reply(t, 1, 0, "1.2.0.192.in-addr.arpa.", dnsmessage.TypePTR,
			&dnsmessage.PTRResource{PTR: name("host.example.")}),
			dnsMessage{id: 1, question: "1.2.0.192.in-addr.arpa", queryType: "PTR", code: "NOERROR", answers: []byte("host.example\x00")}, nil},
		{"TXT in two strings", reply(t, 1, 0, "t.", dnsmessage.TypeTXT,
			&dnsmessage.TXTResource{TXT: []string{"v=spf1 ", "-all\x00\n\xff"}}),
			dnsMessage{id: 1, question: "t", queryType: "TXT", code: "NOERROR", answers: []byte("v=spf1 -all\\000\n\xff\x00")}, nil},
		{"MX", reply(t, 1, 0, "m.", dnsmessage.TypeMX, &dnsmessage.MXResource{Pref: 10, MX: name("mail.m.")}),
			dnsMessage{id: 1, question: "m", queryType: "MX", code: "NOERROR", answers: []byte("10 mail.m\x00")}, nil},
		{"SRV", reply(t, 1, 0, "_s._tcp.m.", dnsmessage.TypeSRV,
			&dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 5060, Target: name("sip.m.")}),
			dnsMessage{id: 1, question: "_s._tcp.m", queryType: "SRV", code: "NOERROR", answers: []byte("1 2 5060 sip.m\x00")}, nil},
		{"NS and a type that is printed in hex", reply(t, 1, 0, "m.", dnsmessage.TypeALL,
			&dnsmessage.NSResource{NS: name("ns.m.")}, &dnsmessage.UnknownResource{Type: 65, Data: []byte{0, 1, 0xab}}),
			dnsMessage{id: 1, question: "m", queryType: "ANY", code: "NOERROR", answers: []byte("ns.m\x000001ab\x00")}, nil},
		{"NXDOMAIN", reply(t, 1, dnsmessage.RCodeNameError, "no.", dnsmessage.TypeA),
			dnsMessage{id: 1, question: "no", queryType: "A", code: "NXDOMAIN"}, nil},
		{"response code without a name", reply(t, 1, 12, "no.", dnsmessage.TypeA),
			dnsMessage{id: 1, question: "no", queryType: "A", code: "RCODE12"}, nil},
		{"EDNS", message(t, dnsmessage.Message{Header: dnsmessage.Header{ID: 1, Response: true},
			Questions:   []dnsmessage.Question{{Name: name("e."), Type: dnsmessage.TypeA, Class: 1}},
			Additionals: []dnsmessage.Resource{opt(0)}}),
			dnsMessage{id: 1, question: "e", queryType: "A", code: "NOERROR"}, nil},
		{"EDNS with a response code of 12 bits", message(t, dnsmessage.Message{
			Header:      dnsmessage.Header{ID: 1, Response: true, RCode: 23 & 0xf},
			Questions:   []dnsmessage.Question{{Name: name("e."), Type: dnsmessage.TypeA, Class: 1}},
			Additionals: []dnsmessage.Resource{opt(23)}}),
			dnsMessage{id: 1, question: "e", queryType: "A", code: "BADCOOKIE"}, nil},
		{"truncated by the server", message(t, dnsmessage.Message{Header: dnsmessage.Header{ID: 1, Response: true, Truncated: true},
			Questions: []dnsmessage.Question{{Name: name("e."), Type: dnsmessage.TypeA, Class: 1}}}),
			dnsMessage{id: 1, question: "e", queryType: "A", code: "NOERROR", truncated: true}, nil},
		{"more answers than are kept", reply(t, 1, 0, "m.", dnsmessage.TypeA, func() (r []dnsmessage.ResourceBody) {
			for range maxAnswers + 1 {
				r = append(r, &dnsmessage.AResource{A: [4]byte{1, 1, 1, 1}})
			}
			return r
		}()...),
			dnsMessage{id: 1, question: "m", queryType: "A", code: "NOERROR", truncated: true,
				answers: []byte(strings.Repeat("1.1.1.1\x00", maxAnswers))}, nil},
		{"answer without a question",
			"\x00\x01\x80\x00\x00\x00\x00\x01\x00\x00\x00\x00" + "\x01a\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x01\x02\x03\x04",
			dnsMessage{id: 1, code: "NOERROR", answers: []byte("1.2.3.4\x00")}, nil},
		{"no question, no answer", "\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", dnsMessage{id: 1}, nil},
		{"dots, backslashes, control bytes and spaces in a label",
			"\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + "\x0aa.b\\c\n\x00\xff \x7f\x03com\x00\x00\x01\x00\x01",
			dnsMessage{id: 1, question: `a\.b\\c\010\000\255\032\127.com`, queryType: "A"}, nil},
		{"name of 255 bytes",
			"\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + strings.Repeat("\x3f"+strings.Repeat("x", 63), 3) +
				"\x3d" + strings.Repeat("y", 61) + "\x00\x00\x01\x00\x01",
			dnsMessage{id: 1, queryType: "A",
				question: strings.Repeat(strings.Repeat("x", 63)+".", 3) + strings.Repeat("y", 61)}, nil},
		{"name of 256 bytes",
			"\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + strings.Repeat("\x3f"+strings.Repeat("x", 63), 3) +
				"\x3e" + strings.Repeat("y", 62) + "\x00\x00\x01\x00\x01",
			dnsMessage{id: 1}, errDNS},
		{"pointer to itself",
			"\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + "\xc0\x0c\x00\x01\x00\x01", dnsMessage{id: 1}, errDNS},
		{"pointers in a ring",
			"\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + "\x01a\xc0\x10\x01b\xc0\x0c\x00\x01\x00\x01", dnsMessage{id: 1}, errDNS},
		{"pointer past the end",
			"\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + "\xff\xff\x00\x01\x00\x01", dnsMessage{id: 1}, errDNS},
		{"half a pointer", "\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0", dnsMessage{id: 1}, errDNS},
		{"label of a reserved type",
			"\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + "\x41a\x00\x00\x01\x00\x01", dnsMessage{id: 1}, errDNS},
		{"label past the end", "\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3fab", dnsMessage{id: 1}, errDNS},
		{"question without its type", "\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00", dnsMessage{id: 1}, errDNS},
		{"short header", "\x00\x01\x00", dnsMessage{}, errDNS},
		{"answer cut in its head", "\x00\x01\x80\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01a\x00\x00\x01",
			dnsMessage{id: 1, code: "NOERROR"}, errDNS},
		{"second answer cut in its data",
			"\x00\x01\x80\x00\x00\x00\x00\x02\x00\x00\x00\x00" + "\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x01\x02\x03\x04" +
				"\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x01\x02",
			dnsMessage{id: 1, code: "NOERROR", answers: []byte("1.2.3.4\x00")}, errDNS},
		{"address of three bytes",
			"\x00\x01\x80\x00\x00\x00\x00\x01\x00\x00\x00\x00" + "\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x03\x01\x02\x03",
			dnsMessage{id: 1, code: "NOERROR"}, errDNS},
		{"name that leaves its data",
			"\x00\x01\x80\x00\x00\x00\x00\x01\x00\x00\x00\x00" + "\x00\x00\x05\x00\x01\x00\x00\x00\x00\x00\x02\x03abc\x00",
			dnsMessage{id: 1, code: "NOERROR"}, errDNS},
		{"text longer than its data",
			"\x00\x01\x80\x00\x00\x00\x00\x01\x00\x00\x00\x00" + "\x00\x00\x10\x00\x01\x00\x00\x00\x00\x00\x02\x05a",
			dnsMessage{id: 1, code: "NOERROR"}, errDNS},
		{"MX without a host",
			"\x00\x01\x80\x00\x00\x00\x00\x01\x00\x00\x00\x00" + "\x00\x00\x0f\x00\x01\x00\x00\x00\x00\x00\x02\x00\x0a",
			dnsMessage{id: 1, code: "NOERROR"}, errDNS},
		{"SRV without a host",
			"\x00\x01\x80\x00\x00\x00\x00\x01\x00\x00\x00\x00" + "\x00\x00\x21\x00\x01\x00\x00\x00\x00\x00\x06\x00\x01\x00\x02\x00\x03",
			dnsMessage{id: 1, code: "NOERROR"}, errDNS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got dnsMessage
			err := got.parse([]byte(tt.in))
			if err != tt.err {
				t.Errorf("got error %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(dnsMessage{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// dnsExchange is a question's record and an answer's, of one socket.
func dnsExchange(t testing.TB) (rec bpf.GoshawkRecDns, question []byte) {
	rec = bpf.GoshawkRecDns{Cookie: 5, Local: four(10, 0, 0, 1), Remote: four(10, 0, 0, 53),
		Family: unix.AF_INET, LocalPort: 40000, RemotePort: 53}
	return rec, dnsRecordOf(rec, false, query(t, 9, "www.example.", dnsmessage.TypeA))
}

func wantDNS() *event.DNS {
	return &event.DNS{Header: wantHeader(event.KindDNS), Question: "www.example", QueryType: "A",
		Server: "10.0.0.53", ServerPort: 53, ClientPort: 40000, QueryID: 9}
}

func TestDecodeDNS(t *testing.T) {
	rec, question := dnsExchange(t)
	rec.Head.Time = 7_000_500_000
	good := reply(t, 9, 0, "www.example.", dnsmessage.TypeA, &dnsmessage.AResource{A: [4]byte{192, 0, 2, 9}})

	t.Run("answered", func(t *testing.T) {
		d := newDrain(t)
		if got := feed(t, d, question); len(got) != 0 {
			t.Fatalf("got %d events before the answer, want 0", len(got))
		}
		want := wantDNS()
		want.Answers, want.ResponseCode, want.DurationNs = "192.0.2.9\x00", "NOERROR", 500_000
		got := feed(t, d, dnsRecordOf(rec, true, good))
		if diff := cmp.Diff([]event.Event{want}, got); diff != "" {
			t.Error(diff)
		}
		if n := d.s.decode.count[event.KindDNS].merged.Load(); n != 1 {
			t.Errorf("merged = %d, want 1", n)
		}
	})
	t.Run("answer in other case, cut by us", func(t *testing.T) {
		d := newDrain(t)
		feed(t, d, question)
		want := wantDNS()
		want.ResponseCode, want.DurationNs, want.Truncated = "NXDOMAIN", 500_000, true
		rec := rec
		rec.Head.Flags = uint32(bpf.GoshawkFlagFLAG_ARGS_CUT)
		got := feed(t, d, dnsRecordOf(rec, true, reply(t, 9, 3, "WWW.example.", dnsmessage.TypeA)))
		if diff := cmp.Diff([]event.Event{want}, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("unanswered", func(t *testing.T) {
		d := newDrain(t)
		feed(t, d, question)
		d.s.held.expire(11_999_999_999, d)
		if len(d.batch.Events) != 0 {
			t.Fatal("reported before five seconds had gone")
		}
		d.s.held.expire(12_000_000_000, d)
		if diff := cmp.Diff([]event.Event{wantDNS()}, d.batch.Events); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("asked again", func(t *testing.T) {
		d := newDrain(t)
		feed(t, d, question)
		got := feed(t, d, question)
		if diff := cmp.Diff([]event.Event{wantDNS()}, got); diff != "" {
			t.Error(diff)
		}
		got = feed(t, d, dnsRecordOf(rec, true, good))
		if len(got) != 2 || got[1].(*event.DNS).ResponseCode != "NOERROR" {
			t.Errorf("got %v, want the second question answered", got)
		}
	})
	for _, tt := range []struct {
		name   string
		change func(*bpf.GoshawkRecDns)
		answer string
	}{
		{"of another socket", func(r *bpf.GoshawkRecDns) { r.Cookie++ }, good},
		{"to another port", func(r *bpf.GoshawkRecDns) { r.LocalPort++ }, good},
		{"from another server", func(r *bpf.GoshawkRecDns) { r.Remote[3]++ }, good},
		{"with another number", nil, reply(t, 10, 0, "www.example.", dnsmessage.TypeA)},
		{"to another question", nil, reply(t, 9, 0, "evil.example.", dnsmessage.TypeA)},
		{"of another type", nil, reply(t, 9, 0, "www.example.", dnsmessage.TypeAAAA)},
		{"that is a question", nil, query(t, 9, "www.example.", dnsmessage.TypeA)},
	} {
		t.Run("answer "+tt.name, func(t *testing.T) {
			d := newDrain(t)
			feed(t, d, question)
			rec := rec
			if tt.change != nil {
				tt.change(&rec)
			}
			if got := feed(t, d, dnsRecordOf(rec, true, tt.answer)); len(got) != 0 {
				t.Errorf("got %v, want nothing", got)
			}
			if n := d.s.decode.count[event.KindDNS].answers.Load(); n != 1 {
				t.Errorf("answers that nobody asked for = %d, want 1", n)
			}
			rec, _ = dnsExchange(t)
			if got := feed(t, d, dnsRecordOf(rec, true, good)); len(got) != 1 {
				t.Errorf("the right answer came to nothing")
			}
		})
	}
	t.Run("given as a server", func(t *testing.T) {
		d := newDrain(t)
		feed(t, d, dnsRecordOf(rec, false, good))
		d.s.held.flush(d)
		if len(d.batch.Events) != 0 {
			t.Errorf("got %v, want nothing", d.batch.Events)
		}
	})
	t.Run("more than are held", func(t *testing.T) {
		d := newDrain(t)
		for i := range maxHeld + 3 {
			rec := rec
			rec.Cookie = uint64(i)
			feed(t, d, dnsRecordOf(rec, false, query(t, 9, "www.example.", dnsmessage.TypeA)))
		}
		if n := len(d.batch.Events); n != 3 {
			t.Errorf("got %d events, want the 3 that are too many", n)
		}
	})
}
