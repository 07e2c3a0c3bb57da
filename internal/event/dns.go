package event

import "github.com/goshawk-project/goshawk/internal/schema"

// DNS is a question a process asked over UDP, with the answer it got. The names in it are
// a stranger's bytes: they are kept as they came (labels joined by dots, RFC 1035 escapes
// for dots and bytes outside printable ASCII).
type DNS struct {
	Header
	Question     string
	QueryType    string // A, AAAA, CNAME … or TYPEn
	Answers      string // values (addresses, names, texts), each ending in NUL
	ResponseCode string // NOERROR, NXDOMAIN …; empty when no answer came
	Server       string
	ServerPort   uint16
	ClientPort   uint16
	QueryID      uint16
	DurationNs   uint64 // from question to answer
	Truncated    bool   // the answer was cut, by the server or by us
}

// Reset empties e for use again.
func (e *DNS) Reset() { *e = DNS{} }

var dnsKind = kindOf[DNS](Kind{
	ID: KindDNS, Table: "dns_events",
	Doc: "Names asked for over UDP, with the answers",
	Columns: columns(
		schema.Str("question", func(e *DNS) *string { return &e.Question }, "Name asked for"),
		schema.Str("query_type", func(e *DNS) *string { return &e.QueryType }, "Type of record asked for"),
		schema.Strings("answers", func(e *DNS) *string { return &e.Answers }, "Records answered, a JSON array of values"),
		schema.Str("response_code", func(e *DNS) *string { return &e.ResponseCode }, "NOERROR, NXDOMAIN and so on; empty when no answer came"),
		schema.Str("server", func(e *DNS) *string { return &e.Server }, "Address of the server asked"),
		schema.Int("server_port", func(e *DNS) *uint16 { return &e.ServerPort }, "Port of the server asked", schema.OmitZero),
		schema.Int("client_port", func(e *DNS) *uint16 { return &e.ClientPort }, "Own port", schema.OmitZero),
		schema.Int("query_id", func(e *DNS) *uint16 { return &e.QueryID }, "Number of the question on the wire"),
		schema.Int("duration_ns", func(e *DNS) *uint64 { return &e.DurationNs }, "From question to answer in nanoseconds", schema.OmitZero),
		schema.Bool("truncated", func(e *DNS) *bool { return &e.Truncated }, "1 when the answer was cut"),
	),
})
