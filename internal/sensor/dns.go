package sensor

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
)

// dns decodes rec_dns: a question is held for its answer, and both make one event.
func (d *decoder) dns(raw []byte, dr *drain) error {
	r, err := fixed[bpf.GoshawkRecDns](raw)
	if err != nil {
		return err
	}
	if r.Family != afInet && r.Family != afInet6 {
		return errFamily
	}
	payload, err := span(raw, r.Payload)
	if err != nil {
		return err
	}
	if len(payload) < dnsHeader {
		return errDNS
	}
	key := question{cookie: r.Cookie, id: binary.BigEndian.Uint16(payload), port: r.LocalPort}
	if !has(&r.Head, bpf.GoshawkFlagFLAG_RESPONSE) {
		if payload[2]&0x80 != 0 { // an answer that this host gives as a server
			d.count[event.KindDNS].answers.Add(1)
			return nil
		}
		dr.s.held.ask(key, raw, dr)
		return nil
	}
	asked := dr.s.held.open(key)
	if asked == nil || payload[2]&0x80 == 0 || !answers(asked, r) { // nobody here asked this, or it came too late
		d.count[event.KindDNS].answers.Add(1)
		return nil
	}
	err = d.dnsEvent(asked, raw, dr.batch)
	if err == errOther {
		d.count[event.KindDNS].answers.Add(1)
		return nil
	}
	dr.s.held.answered(key)
	d.count[event.KindDNS].merged.Add(1)
	return err
}

// answers reports whether an answer comes from where the question went. Anybody can send a
// datagram that pretends to be one; what a resolver does not take, we do not either.
func answers(asked []byte, answer *bpf.GoshawkRecDns) bool {
	q := as[bpf.GoshawkRecDns](asked)
	return q.Family == answer.Family && q.Remote == answer.Remote && q.RemotePort == answer.RemotePort
}

// dnsEvent makes one event of a question's record and its answer's, which may be nil.
func (d *decoder) dnsEvent(asked, answer []byte, b *event.Batch) error {
	r := as[bpf.GoshawkRecDns](asked)
	payload, err := span(asked, r.Payload)
	if err != nil {
		return err
	}
	var m dnsMessage
	truncated := has(&r.Head, bpf.GoshawkFlagFLAG_ARGS_CUT)
	if err := m.parse(payload); err != nil && m.question == "" {
		return err
	}
	var duration uint64
	var code string
	if answer != nil {
		a := as[bpf.GoshawkRecDns](answer)
		payload, err := span(answer, a.Payload)
		if err != nil {
			return err
		}
		var n dnsMessage
		err = n.parse(payload)
		// Some servers leave the question out.
		if n.question != "" && (!strings.EqualFold(n.question, m.question) || n.queryType != m.queryType) {
			return errOther
		}
		m.answers, code = n.answers, n.code
		if a.Head.Time > r.Head.Time {
			duration = a.Head.Time - r.Head.Time
		}
		truncated = truncated || err != nil || n.truncated || has(&a.Head, bpf.GoshawkFlagFLAG_ARGS_CUT)
	}
	e := b.Add(event.KindDNS).(*event.DNS)
	d.header(&e.Header, &r.Head)
	e.Question, e.QueryType, e.Answers = m.question, m.queryType, string(m.answers)
	e.ResponseCode = code
	e.Server, e.ServerPort = d.address(r.Family, &r.Remote), r.RemotePort
	e.ClientPort, e.QueryID = r.LocalPort, m.id
	e.DurationNs = duration
	e.Truncated = truncated
	return nil
}

const (
	dnsHeader  = 12
	maxAnswers = 64
	maxPointer = 32
	maxName    = 255 // with the length of each label, and the root's
)

var (
	errDNS   = errors.New("DNS message is malformed")
	errOther = errors.New("answer is to another question")
)

// dnsMessage is what we keep of a message (RFC 1035, section 4). Every byte of it is a
// stranger's.
type dnsMessage struct {
	id        uint16
	question  string
	queryType string
	code      string
	answers   []byte // each ends in NUL
	truncated bool
}

// parse reads the first question and the answers. What was read before an error stays.
func (m *dnsMessage) parse(b []byte) error {
	if len(b) < dnsHeader {
		return errDNS
	}
	m.id = binary.BigEndian.Uint16(b)
	m.truncated = b[2]&0x02 != 0
	if b[2]&0x80 != 0 {
		m.code = rcodeName(uint16(b[3] & 0x0f))
	}
	questions := int(binary.BigEndian.Uint16(b[4:]))
	answers := int(binary.BigEndian.Uint16(b[6:]))
	others := int(binary.BigEndian.Uint16(b[8:])) + int(binary.BigEndian.Uint16(b[10:]))
	at := dnsHeader
	for i := 0; i < questions; i++ {
		name, next, err := dnsName(b, at)
		if err != nil || next+4 > len(b) {
			return errDNS
		}
		if i == 0 {
			m.question = name
			m.queryType = rrName(binary.BigEndian.Uint16(b[next:]))
		}
		at = next + 4
	}
	for i := 0; i < answers; i++ {
		if i == maxAnswers {
			m.truncated = true
			return nil
		}
		rr, data, n, err := dnsRecord(b, at)
		if err != nil {
			return err
		}
		value, err := rrValue(b, rr, data, n)
		if err != nil {
			return err
		}
		m.answers = append(append(m.answers, value...), 0)
		at = data + n
	}
	// The higher bits of the response code are in the OPT record (RFC 6891, 6.1.3).
	for i := 0; i < others && m.code != ""; i++ {
		rr, data, n, err := dnsRecord(b, at)
		if err != nil {
			return err
		}
		if rr == rrOPT {
			m.code = rcodeName(uint16(b[data-6])<<4 | uint16(b[3]&0x0f))
			break
		}
		at = data + n
	}
	return nil
}

// dnsRecord reads the head of the record at off: its type, and where its data is.
func dnsRecord(b []byte, off int) (rr uint16, data, n int, err error) {
	_, next, err := dnsName(b, off)
	if err != nil || next+10 > len(b) {
		return 0, 0, 0, errDNS
	}
	rr = binary.BigEndian.Uint16(b[next:])
	n = int(binary.BigEndian.Uint16(b[next+8:]))
	data = next + 10
	if data+n > len(b) {
		return 0, 0, 0, errDNS
	}
	return rr, data, n, nil
}

// dnsName reads the name at off and returns where the next field starts. Labels are joined
// by dots; a dot, a backslash or a byte outside printable ASCII within a label is written
// \. \\ or \DDD (RFC 4343, 2.1). The root is ".".
func dnsName(b []byte, off int) (string, int, error) {
	var buf [maxName * 4]byte
	out := buf[:0]
	next, total := -1, 0
	for hops := 0; ; {
		if off >= len(b) {
			return "", 0, errDNS
		}
		n := int(b[off])
		switch {
		case n == 0:
			if next < 0 {
				next = off + 1
			}
			if len(out) == 0 {
				return ".", next, nil
			}
			return string(out), next, nil
		case n&0xc0 == 0xc0:
			if off+1 >= len(b) {
				return "", 0, errDNS
			}
			if next < 0 {
				next = off + 2
			}
			if hops++; hops > maxPointer {
				return "", 0, errDNS
			}
			off = (n&0x3f)<<8 | int(b[off+1])
		case n&0xc0 != 0:
			return "", 0, errDNS
		default:
			if total += n + 1; off+1+n > len(b) || total >= maxName {
				return "", 0, errDNS
			}
			if len(out) > 0 {
				out = append(out, '.')
			}
			out = appendLabel(out, b[off+1:off+1+n])
			off += 1 + n
		}
	}
}

func appendLabel(out, label []byte) []byte {
	for _, c := range label {
		switch {
		case c == '.' || c == '\\':
			out = append(out, '\\', c)
		case c < 0x21 || c > 0x7e:
			out = append(out, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
		default:
			out = append(out, c)
		}
	}
	return out
}

// rrValue prints the data of a record; of types we do not know, in hex.
func rrValue(b []byte, rr uint16, at, n int) ([]byte, error) {
	data := b[at : at+n]
	name := func(off int) ([]byte, error) {
		s, next, err := dnsName(b, at+off)
		if err != nil || next > at+n {
			return nil, errDNS
		}
		return []byte(s), nil
	}
	switch rr {
	case rrA:
		if n != 4 {
			return nil, errDNS
		}
		return netip.AddrFrom4([4]byte(data)).AppendTo(nil), nil
	case rrAAAA:
		if n != 16 {
			return nil, errDNS
		}
		return netip.AddrFrom16([16]byte(data)).AppendTo(nil), nil
	case rrCNAME, rrPTR, rrNS, rrDNAME:
		return name(0)
	case rrMX:
		if n < 3 {
			return nil, errDNS
		}
		host, err := name(2)
		return append(append(strconv.AppendUint(nil, uint64(binary.BigEndian.Uint16(data)), 10), ' '), host...), err
	case rrSRV:
		if n < 7 {
			return nil, errDNS
		}
		var out []byte
		for i := 0; i < 6; i += 2 {
			out = append(strconv.AppendUint(out, uint64(binary.BigEndian.Uint16(data[i:])), 10), ' ')
		}
		host, err := name(6)
		return append(out, host...), err
	case rrTXT:
		var out []byte
		for len(data) > 0 {
			k := int(data[0])
			if 1+k > len(data) {
				return nil, errDNS
			}
			for _, c := range data[1 : 1+k] {
				if c == 0 { // NUL ends a string in our lists
					out = append(out, '\\', '0', '0', '0')
				} else {
					out = append(out, c)
				}
			}
			data = data[1+k:]
		}
		return out, nil
	}
	return hex.AppendEncode(nil, data), nil
}

const (
	rrA     = 1
	rrNS    = 2
	rrCNAME = 5
	rrPTR   = 12
	rrMX    = 15
	rrTXT   = 16
	rrAAAA  = 28
	rrSRV   = 33
	rrDNAME = 39
	rrOPT   = 41
)

// rrName is the mnemonic of a record type (IANA, DNS parameters).
func rrName(t uint16) string {
	switch t {
	case rrA:
		return "A"
	case rrNS:
		return "NS"
	case rrCNAME:
		return "CNAME"
	case 6:
		return "SOA"
	case rrPTR:
		return "PTR"
	case rrMX:
		return "MX"
	case rrTXT:
		return "TXT"
	case rrAAAA:
		return "AAAA"
	case rrSRV:
		return "SRV"
	case 35:
		return "NAPTR"
	case rrDNAME:
		return "DNAME"
	case 43:
		return "DS"
	case 46:
		return "RRSIG"
	case 48:
		return "DNSKEY"
	case 52:
		return "TLSA"
	case 64:
		return "SVCB"
	case 65:
		return "HTTPS"
	case 255:
		return "ANY"
	case 257:
		return "CAA"
	}
	return "TYPE" + strconv.Itoa(int(t))
}

// rcodeName is the mnemonic of a response code (IANA, DNS parameters).
func rcodeName(c uint16) string {
	names := [...]string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
		"YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE",
		16: "BADVERS", 17: "BADKEY", 18: "BADTIME", 19: "BADMODE", 20: "BADNAME", 21: "BADALG",
		22: "BADTRUNC", 23: "BADCOOKIE"}
	if int(c) < len(names) && names[c] != "" {
		return names[c]
	}
	return "RCODE" + strconv.Itoa(int(c))
}
