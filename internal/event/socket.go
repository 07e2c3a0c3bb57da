package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Socket is something done to a socket: connect, accept, bind, listen, or its close.
// Header.Kind says which.
//
// A connect that does not block is reported once, with its outcome, when that is known
// within a second; else first as "in_progress" and again with the outcome. A datagram
// socket that sends without connecting is reported as a connect at the first datagram to
// each peer.
type Socket struct {
	Header
	Family        string // inet, inet6 or unix
	Protocol      string // tcp, udp, icmp …; for unix: stream, dgram, seqpacket
	FamilyNumber  uint16 // AF_*
	Type          uint16 // SOCK_*
	ProtoNumber   uint16 // IPPROTO_*
	FD            int32  // -1 unknown
	LocalAddress  string
	RemoteAddress string
	LocalPort     uint16
	RemotePort    uint16
	SocketPath    string // unix: path, or @name when abstract
	Result        string // "ok", "in_progress" or an errno's name
	BytesSent     uint64 // close of TCP only
	BytesReceived uint64
	DurationNs    uint64 // close: since connect or accept; others: spent in the system call
	Cookie        uint64 // the kernel's name for the socket while it lives
	NetNS         uint32 // inode of its network namespace
}

// Reset empties e for use again.
func (e *Socket) Reset() { *e = Socket{} }

// socketColumns are the columns of one kind. Bytes are known of a close alone: elsewhere
// their zero means unknown.
func socketColumns(bytes schema.Flag) []Column {
	return columns(
		schema.Str("family", func(e *Socket) *string { return &e.Family }, "inet, inet6 or unix"),
		schema.Str("protocol", func(e *Socket) *string { return &e.Protocol }, "tcp, udp and so on; stream, dgram or seqpacket for unix"),
		schema.Int("family_number", func(e *Socket) *uint16 { return &e.FamilyNumber }, "Address family number (AF_*)", schema.Internal),
		schema.Int("type_number", func(e *Socket) *uint16 { return &e.Type }, "Socket type number (SOCK_*)", schema.Internal),
		schema.Int("protocol_number", func(e *Socket) *uint16 { return &e.ProtoNumber }, "Protocol number (IPPROTO_*)", schema.Internal),
		schema.Int("fd", func(e *Socket) *int32 { return &e.FD }, "File descriptor, -1 when not known", schema.Internal),
		schema.Str("local_address", func(e *Socket) *string { return &e.LocalAddress }, "Own address"),
		schema.Int("local_port", func(e *Socket) *uint16 { return &e.LocalPort }, "Own port", schema.OmitZero),
		schema.Str("remote_address", func(e *Socket) *string { return &e.RemoteAddress }, "Peer's address"),
		schema.Int("remote_port", func(e *Socket) *uint16 { return &e.RemotePort }, "Peer's port", schema.OmitZero),
		schema.Str("socket_path", func(e *Socket) *string { return &e.SocketPath }, "Path of a unix socket, @name when abstract"),
		schema.Str("result", func(e *Socket) *string { return &e.Result }, "ok, in_progress, or the error's name"),
		schema.Int("bytes_sent", func(e *Socket) *uint64 { return &e.BytesSent }, "Bytes sent, on close of TCP", bytes),
		schema.Int("bytes_received", func(e *Socket) *uint64 { return &e.BytesReceived }, "Bytes received, on close of TCP", bytes),
		schema.Int("duration_ns", func(e *Socket) *uint64 { return &e.DurationNs }, "Life of the connection on close, else time in the system call, in nanoseconds", schema.OmitZero),
		schema.Int("socket_cookie", func(e *Socket) *uint64 { return &e.Cookie }, "Number of the socket, where the kernel has given it one", schema.OmitZero),
		schema.Int("net_namespace", func(e *Socket) *uint32 { return &e.NetNS }, "Network namespace of the socket", schema.OmitZero),
	)
}

func socketKind(id ID, doc string) *Kind {
	bytes := schema.OmitZero
	if id == KindClose {
		bytes = 0
	}
	return kindOf[Socket](Kind{ID: id, Table: "network_events", Doc: doc, Columns: socketColumns(bytes)})
}

var (
	connectKind = socketKind(KindConnect, "Connections asked for, and first datagrams to a peer")
	acceptKind  = socketKind(KindAccept, "Connections accepted")
	bindKind    = socketKind(KindBind, "Addresses bound to sockets")
	listenKind  = socketKind(KindListen, "Sockets that began to listen")
	closeKind   = socketKind(KindClose, "TCP connections ended, with bytes each way")
)
