package audit

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Numbers of the calls behind socketcall(2), by which programs of 32-bit x86 used sockets
// before Linux 4.3 (linux/net.h).
const (
	sysBind    = 2
	sysConnect = 3
	sysListen  = 4
	sysAccept  = 5
	sysAccept4 = 18
)

// socketCall decodes socketcall, whose record holds the number of the call; another one
// holds that call's arguments.
func (d *decoder) socketCall(g *bundle) {
	c := &d.call
	fd := int32(-1)
	if text, ok := g.find(typeSocketCall); ok {
		f := pairs{text}
		for x, ok := f.next(); ok; x, ok = f.next() {
			if string(x.key) == "a0" {
				n, _ := hexNumber(x.value)
				fd = int32(uint32(n))
			}
		}
	}
	switch c.args[0] {
	case sysBind:
		d.socket(g, event.KindBind, fd)
	case sysConnect:
		d.socket(g, event.KindConnect, fd)
	case sysListen:
		d.socket(g, event.KindListen, fd)
	case sysAccept, sysAccept4:
		d.socket(g, event.KindAccept, fd)
	default:
		d.count(0, noKind)
	}
}

// socket decodes connect, accept, bind and listen. Audit knows the address that went
// through the call and no other: of listen none, of accept not where it was accepted.
func (d *decoder) socket(g *bundle, kind event.ID, fd int32) {
	c := &d.call
	var saddr []byte
	if text, ok := g.find(typeSockaddr); ok {
		f := pairs{text}
		for x, ok := f.next(); ok; x, ok = f.next() {
			if string(x.key) == "saddr" {
				saddr, _ = unhex(d.text[:0], x.value)
				d.text = saddr
			}
		}
	}
	family := uint16(unix.AF_UNSPEC)
	if len(saddr) >= 2 {
		family = binary.NativeEndian.Uint16(saddr)
	}
	known := family == unix.AF_INET || family == unix.AF_INET6 || family == unix.AF_UNIX
	if !known && len(saddr) > 0 {
		d.count(kind, otherFamily) // netlink, packet …; or AF_UNSPEC, which undoes a connect
		return
	}
	if !known && (kind == event.KindConnect || kind == event.KindBind) && (c.success || c.exit == -int64(unix.EINPROGRESS)) {
		d.count(kind, lostIncomplete) // such a call has an address
		return
	}
	e, _ := d.add(kind, g.stamp).(*event.Socket)
	if e == nil {
		return
	}
	d.caller(&e.Header)
	e.FD = fd
	if c.known&hasUring != 0 {
		e.FD = -1
	}
	e.FamilyNumber = family
	e.Result = c.result()
	switch family {
	case unix.AF_UNIX:
		e.Family = "unix"
		e.SocketPath = d.sunPath(saddr[2:])
		return
	case unix.AF_INET, unix.AF_INET6:
	default:
		return
	}
	a, port := inetAddress(family, saddr)
	e.Family = "inet"
	if a.Is6() && !a.Is4In6() {
		e.Family = "inet6"
	}
	address := ""
	if a.IsValid() {
		d.buf = a.Unmap().AppendTo(d.buf[:0])
		address = d.strings.get(d.buf)
	}
	if kind == event.KindBind {
		e.LocalAddress, e.LocalPort = address, port
	} else {
		e.RemoteAddress, e.RemotePort = address, port
	}
}

// inetAddress reads struct sockaddr_in or sockaddr_in6 (ip(7), ipv6(7)); not valid when it
// was cut.
func inetAddress(family uint16, b []byte) (a netip.Addr, port uint16) {
	if len(b) >= 4 {
		port = binary.BigEndian.Uint16(b[2:])
	}
	switch {
	case family == unix.AF_INET && len(b) >= 8:
		a = netip.AddrFrom4([4]byte(b[4:]))
	case family == unix.AF_INET6 && len(b) >= 24:
		a = netip.AddrFrom16([16]byte(b[8:]))
	}
	return a, port
}

// sunPath prints sun_path (unix(7)) as the sensor does: an abstract name starts with @ in
// place of its zero, and a path ends before its first zero.
func (d *decoder) sunPath(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if b[0] == 0 {
		b[0] = '@'
		return d.strings.get(b)
	}
	for i, c := range b {
		if c == 0 {
			b = b[:i]
			break
		}
	}
	return d.strings.get(b)
}
