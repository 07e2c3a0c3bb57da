package table

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The kernel's answers are decoded here and not by rtnetlink v2.0.2, which refuses a
// whole list when one attribute has a size it does not know (the interface statistics
// grow with the kernel) and does not read a route's hop limit.

const netlinkPatience = 5 * time.Second // dumps take milliseconds

// dump asks the kernel for a list (rtnetlink(7)) in the agent's own network namespace
// and calls f with the body of every message of the wanted type.
func dump(request, reply uint16, header int, f func(body []byte)) error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(netlinkPatience)); err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	messages, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(request), Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, header), // all zero: every family, every interface
	})
	if err != nil {
		return fmt.Errorf("list through rtnetlink: %w", err)
	}
	for _, m := range messages {
		if m.Header.Type == netlink.HeaderType(reply) {
			f(m.Data)
		}
	}
	return nil
}

// attributes calls f with the type and content of each attribute. A malformed rest ends
// the walk.
func attributes(b []byte, f func(kind uint16, data []byte)) {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return
	}
	for d.Next() {
		f(d.Type(), d.Bytes())
	}
}

// The fixed headers of include/uapi/linux/if_link.h, if_addr.h, rtnetlink.h, neighbour.h.
const (
	sizeofIfinfomsg = 16
	sizeofIfaddrmsg = 8
	sizeofRtmsg     = 12
	sizeofNdmsg     = 12
)

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func u64at(b []byte, i int) uint64 {
	if len(b) < 8*(i+1) {
		return 0
	}
	return binary.NativeEndian.Uint64(b[8*i:])
}

// text is an attribute that is a string, which the kernel ends in NUL.
func text(b []byte) string { return cString(b) }

// link is a network interface.
type link struct {
	index, flags, mtu uint32
	kind              uint16 // ARPHRD_*
	name              string
	address           []byte
	// The counters of struct rtnl_link_stats64 in the kernel's order: rx and tx packets,
	// bytes, errors, dropped; multicast; collisions.
	counters [10]uint64
}

// decodeLink reads an RTM_NEWLINK message.
func decodeLink(b []byte) (link, bool) {
	if len(b) < sizeofIfinfomsg {
		return link{}, false
	}
	l := link{
		kind:  binary.NativeEndian.Uint16(b[2:]),
		index: binary.NativeEndian.Uint32(b[4:]),
		flags: binary.NativeEndian.Uint32(b[8:]),
	}
	attributes(b[sizeofIfinfomsg:], func(kind uint16, data []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = text(data)
		case unix.IFLA_ADDRESS:
			l.address = append([]byte(nil), data...)
		case unix.IFLA_MTU:
			l.mtu = u32(data)
		case unix.IFLA_PROMISCUITY:
			// The flags leave out promiscuous mode that a packet socket asked for; the
			// count does not (net/core/dev.c, dev_get_flags).
			if u32(data) > 0 {
				l.flags |= unix.IFF_PROMISC
			}
		case unix.IFLA_STATS64:
			for i := range l.counters {
				l.counters[i] = u64at(data, i)
			}
		}
	})
	return l, l.name != ""
}

func links() ([]link, error) {
	var out []link
	err := dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, sizeofIfinfomsg, func(b []byte) {
		if l, ok := decodeLink(b); ok {
			out = append(out, l)
		}
	})
	return out, err
}

// linkNames maps interface indexes to names.
func linkNames() (map[uint32]string, error) {
	all, err := links()
	names := make(map[uint32]string, len(all))
	for i := range all {
		names[all[i].index] = all[i].name
	}
	return names, err
}

// ifaddr is an IP address of an interface.
type ifaddr struct {
	index, flags                      uint32
	bits                              uint8
	protocol                          uint8 // IFAPROT_*: who set it; since 5.18
	finite                            bool  // it has a lifetime
	label                             string
	local, address, broadcast, target netip.Addr
}

// decodeAddr reads an RTM_NEWADDR message. local is the interface's own address, target
// the other end of a point-to-point link.
func decodeAddr(b []byte) (ifaddr, bool) {
	if len(b) < sizeofIfaddrmsg {
		return ifaddr{}, false
	}
	a := ifaddr{bits: b[1], flags: uint32(b[2]), index: binary.NativeEndian.Uint32(b[4:])}
	attributes(b[sizeofIfaddrmsg:], func(kind uint16, data []byte) {
		switch kind {
		case unix.IFA_ADDRESS:
			a.address, _ = netip.AddrFromSlice(data)
		case unix.IFA_LOCAL:
			a.local, _ = netip.AddrFromSlice(data)
		case unix.IFA_BROADCAST:
			a.broadcast, _ = netip.AddrFromSlice(data)
		case unix.IFA_LABEL:
			a.label = text(data)
		case unix.IFA_FLAGS:
			a.flags = u32(data)
		case unix.IFA_CACHEINFO: // preferred, then valid seconds; all ones is for ever
			a.finite = len(data) >= 8 && u32(data[4:]) != 1<<32-1
		case ifaProto:
			if len(data) > 0 {
				a.protocol = data[0]
			}
		}
	})
	if !a.local.IsValid() {
		a.local = a.address
	} else {
		a.target = a.address // the same as local unless the link is point-to-point
	}
	return a, a.local.IsValid() && int(a.bits) <= a.local.BitLen()
}

const (
	ifaProto      = 11 // IFA_PROTO, missing from x/sys v0.49.0
	ifaProtRouter = 2  // IFAPROT_KERNEL_RA
	ifaProtLocal  = 3  // IFAPROT_KERNEL_LL
)

func ifaddrs() ([]ifaddr, error) {
	var out []ifaddr
	err := dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, sizeofIfaddrmsg, func(b []byte) {
		if a, ok := decodeAddr(b); ok {
			out = append(out, a)
		}
	})
	return out, err
}

// nextHop is one way that a route leads.
type nextHop struct {
	gateway netip.Addr
	out     uint32 // interface index
}

// route is an entry of any IPv4 or IPv6 routing table.
type route struct {
	bits, kind          uint8 // kind is RTN_*
	flags               uint32
	metric, mtu, hops   uint32
	destination, source netip.Addr
	via                 []nextHop // never empty
}

// decodeRoute reads an RTM_NEWROUTE message of the families IPv4 and IPv6.
func decodeRoute(b []byte) (route, bool) {
	if len(b) < sizeofRtmsg {
		return route{}, false
	}
	r := route{bits: b[1], kind: b[7], flags: binary.NativeEndian.Uint32(b[8:])}
	switch b[0] {
	case unix.AF_INET:
		r.destination = netip.IPv4Unspecified()
	case unix.AF_INET6:
		r.destination = netip.IPv6Unspecified()
	default:
		return route{}, false
	}
	var only nextHop
	attributes(b[sizeofRtmsg:], func(kind uint16, data []byte) {
		switch kind {
		case unix.RTA_DST:
			r.destination, _ = netip.AddrFromSlice(data)
		case unix.RTA_PREFSRC:
			r.source, _ = netip.AddrFromSlice(data)
		case unix.RTA_GATEWAY:
			only.gateway, _ = netip.AddrFromSlice(data)
		case unix.RTA_VIA:
			only.gateway = via(data)
		case unix.RTA_OIF:
			only.out = u32(data)
		case unix.RTA_PRIORITY:
			r.metric = u32(data)
		case unix.RTA_METRICS:
			attributes(data, func(kind uint16, data []byte) {
				switch kind {
				case unix.RTAX_MTU:
					r.mtu = u32(data)
				case unix.RTAX_HOPLIMIT:
					r.hops = u32(data)
				}
			})
		case unix.RTA_MULTIPATH:
			r.via = decodeHops(data)
		}
	})
	if len(r.via) == 0 {
		r.via = []nextHop{only}
	}
	return r, r.destination.IsValid() && int(r.bits) <= r.destination.BitLen()
}

// via reads RTA_VIA, a gateway of another family: two bytes of family, then the address.
func via(b []byte) netip.Addr {
	if len(b) < 2 {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(b[2:])
	return a
}

// decodeHops reads RTA_MULTIPATH: struct rtnexthop (length, flags, weight, interface),
// each with attributes of its own.
func decodeHops(b []byte) []nextHop {
	const header = 8
	var out []nextHop
	for len(b) >= header {
		n := int(binary.NativeEndian.Uint16(b))
		if n < header || n > len(b) {
			break
		}
		h := nextHop{out: binary.NativeEndian.Uint32(b[4:])}
		attributes(b[header:n], func(kind uint16, data []byte) {
			switch kind {
			case unix.RTA_GATEWAY:
				h.gateway, _ = netip.AddrFromSlice(data)
			case unix.RTA_VIA:
				h.gateway = via(data)
			}
		})
		out = append(out, h)
		b = b[min(len(b), (n+3)&^3):]
	}
	return out
}

func routes() ([]route, error) {
	var out []route
	err := dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, sizeofRtmsg, func(b []byte) {
		if r, ok := decodeRoute(b); ok {
			out = append(out, r)
		}
	})
	return out, err
}

// neighbour is an entry of the ARP or NDP cache.
type neighbour struct {
	index   uint32
	state   uint16 // NUD_*
	address netip.Addr
	mac     []byte
}

// decodeNeighbour reads an RTM_NEWNEIGH message of the families IPv4 and IPv6.
func decodeNeighbour(b []byte) (neighbour, bool) {
	if len(b) < sizeofNdmsg || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return neighbour{}, false
	}
	n := neighbour{index: binary.NativeEndian.Uint32(b[4:]), state: binary.NativeEndian.Uint16(b[8:])}
	attributes(b[sizeofNdmsg:], func(kind uint16, data []byte) {
		switch kind {
		case unix.NDA_DST:
			n.address, _ = netip.AddrFromSlice(data)
		case unix.NDA_LLADDR:
			n.mac = append([]byte(nil), data...)
		}
	})
	return n, n.address.IsValid()
}

func neighbours() ([]neighbour, error) {
	var out []neighbour
	err := dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, sizeofNdmsg, func(b []byte) {
		if n, ok := decodeNeighbour(b); ok {
			out = append(out, n)
		}
	})
	return out, err
}
