package sensor

import (
	"strconv"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
	"golang.org/x/sys/unix"
)

const (
	afUnix  = unix.AF_UNIX
	afInet  = unix.AF_INET
	afInet6 = unix.AF_INET6
)

// socket decodes rec_socket. A connect that is under way is held back for its outcome.
func (d *decoder) socket(raw []byte, dr *drain) error {
	r, err := fixed[bpf.GoshawkRecSocket](raw)
	if err != nil {
		return err
	}
	path, err := span(raw, r.Path)
	if err != nil {
		return err
	}
	if r.Family != afInet && r.Family != afInet6 && r.Family != afUnix {
		return errFamily
	}
	kind := event.ID(r.Head.Kind)
	if kind == event.KindConnect && r.Duration != 0 {
		key := attempt{since: r.Head.Time - r.Duration, tid: r.Head.Tid}
		if r.Result == -int32(unix.EINPROGRESS) {
			dr.s.held.connect(key, raw, dr)
			return nil
		}
		if dr.s.held.decided(key) {
			d.count[kind].merged.Add(1)
		}
	}
	d.socketEvent(r, path, dr.batch)
	return nil
}

func (d *decoder) socketEvent(r *bpf.GoshawkRecSocket, path []byte, b *event.Batch) {
	e := b.Add(event.ID(r.Head.Kind)).(*event.Socket)
	d.header(&e.Header, &r.Head)
	if has(&r.Head, bpf.GoshawkFlagFLAG_USER_ADDRESS) {
		e.Fidelity = event.FidelityUser
	}
	e.FamilyNumber, e.Type, e.ProtoNumber = r.Family, r.Type, r.Protocol
	e.FD = r.Fd
	e.Cookie, e.NetNS = r.Cookie, r.Netns
	e.Result = resultName(r.Result)
	e.BytesSent, e.BytesReceived, e.DurationNs = r.Sent, r.Received, r.Duration
	if r.Family == afUnix {
		e.Family = "unix"
		e.Protocol = unixType(r.Type)
		e.SocketPath = d.sunPath(path)
		return
	}
	e.Family = "inet"
	if r.Family == afInet6 && !mapped(&r.Local, &r.Remote) {
		e.Family = "inet6"
	}
	e.Protocol = protocolName(r.Protocol)
	if e.Kind == event.KindBind && r.Result < 0 && r.LocalPort == 0 && r.Local == [16]uint8{} {
		return // what was asked for is not known: bpf/way.bpf.h
	}
	e.LocalAddress, e.LocalPort = d.address(r.Family, &r.Local), r.LocalPort
	if e.Kind != event.KindBind && e.Kind != event.KindListen {
		e.RemoteAddress, e.RemotePort = d.address(r.Family, &r.Remote), r.RemotePort
	}
	if e.Family == "inet" && r.Family == afInet6 && e.LocalAddress == "::" {
		e.LocalAddress = "0.0.0.0"
	}
}

// mapped reports whether an IPv6 socket speaks IPv4 (RFC 4291, 2.5.5.2): what goes over
// the wire then is IPv4, and is reported so.
func mapped(local, remote *[16]uint8) bool {
	is := func(a *[16]uint8) bool {
		return [12]uint8(a[:12]) == [12]uint8{10: 0xff, 11: 0xff}
	}
	return is(local) || is(remote)
}

func resultName(r int32) string {
	switch {
	case r == 0:
		return "ok"
	case r == -int32(unix.EINPROGRESS):
		return "in_progress"
	}
	if s := unix.ErrnoName(unix.Errno(-r)); s != "" {
		return s
	}
	return strconv.Itoa(int(r))
}

func unixType(t uint16) string {
	switch t {
	case unix.SOCK_STREAM:
		return "stream"
	case unix.SOCK_DGRAM:
		return "dgram"
	case unix.SOCK_SEQPACKET:
		return "seqpacket"
	}
	return strconv.Itoa(int(t))
}

func protocolName(p uint16) string {
	switch p {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "icmpv6"
	case unix.IPPROTO_SCTP:
		return "sctp"
	case unix.IPPROTO_UDPLITE:
		return "udplite"
	case unix.IPPROTO_MPTCP:
		return "mptcp"
	case unix.IPPROTO_RAW:
		return "raw"
	}
	return strconv.Itoa(int(p))
}

// sunPath prints sun_path (unix(7)): an abstract name starts with @ in place of its zero,
// and a path ends before its first zero.
func (d *decoder) sunPath(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if b[0] == 0 {
		d.sun = append(append(d.sun[:0], '@'), b[1:]...)
		return d.strings.get(d.sun)
	}
	for i, c := range b {
		if c == 0 {
			b = b[:i]
			break
		}
	}
	return d.strings.get(b)
}
