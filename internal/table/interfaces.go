package table

import (
	"context"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// interfaceAddress is a row of interface_addresses.
type interfaceAddress struct{ name, address, mask, broadcast, peer, kind string }

// maskOf prints the netmask of a prefix: 255.255.255.0, ffff:ffff:ffff:ffff::.
func maskOf(bits, length int) string {
	a, _ := netip.AddrFromSlice(net.CIDRMask(bits, length))
	return ipText(a)
}

// ipText prints an address, "" for none.
func ipText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// addressKind says how an address came to be, as far as the kernel knows: auto for router
// advertisements and link-local ones, dhcp for an IPv4 address that runs out unless it is
// renewed, else unknown.
func addressKind(a *ifaddr) string {
	switch {
	case a.protocol == ifaProtRouter, a.protocol == ifaProtLocal,
		a.local.Is6() && a.flags&(unix.IFA_F_TEMPORARY|unix.IFA_F_MANAGETEMPADDR) != 0,
		a.local.Is6() && a.local.IsLinkLocalUnicast():
		return "auto"
	case a.local.Is4() && a.finite:
		return "dhcp"
	}
	return "unknown"
}

// interfaceAddresses joins addresses with the interfaces they belong to.
func interfaceAddresses(links []link, addrs []ifaddr) []*interfaceAddress {
	byIndex := make(map[uint32]*link, len(links))
	for i := range links {
		byIndex[links[i].index] = &links[i]
	}
	var out []*interfaceAddress
	for i := range addrs {
		a := &addrs[i]
		l := byIndex[a.index]
		if l == nil {
			continue // gone between the two lists
		}
		row := &interfaceAddress{
			name: l.name, address: ipText(a.local),
			mask: maskOf(int(a.bits), a.local.BitLen()), kind: addressKind(a),
		}
		if a.label != "" { // an alias such as eth0:1, as getifaddrs(3) names it
			row.name = a.label
		}
		if a.local.Is6() && a.local.IsLinkLocalUnicast() {
			row.address += "%" + l.name // as getnameinfo(3) prints it
		}
		if l.flags&unix.IFF_BROADCAST != 0 {
			row.broadcast = ipText(a.broadcast)
		} else {
			row.peer = ipText(a.target)
		}
		out = append(out, row)
	}
	return out
}

func interfaceAddressesTable(*Env) schema.Relation {
	str := func(name string, at func(*interfaceAddress) *string, doc string) schema.Column[*interfaceAddress] {
		return schema.Str(name, at, doc)
	}
	t := &schema.Table[*interfaceAddress]{
		Name: "interface_addresses",
		Doc:  "IP addresses of the network interfaces in the agent's network namespace.",
		Columns: []schema.Column[*interfaceAddress]{
			str("interface", func(r *interfaceAddress) *string { return &r.name }, "Interface's name or the label of the address"),
			str("address", func(r *interfaceAddress) *string { return &r.address }, "IP address, with %interface when it is link-local"),
			str("mask", func(r *interfaceAddress) *string { return &r.mask }, "Netmask in the notation of the address"),
			str("broadcast", func(r *interfaceAddress) *string { return &r.broadcast }, "Broadcast address"),
			str("point_to_point", func(r *interfaceAddress) *string { return &r.peer }, "Other end's address, where the interface has no broadcast"),
			str("type", func(r *interfaceAddress) *string { return &r.kind }, "How it was assigned: dhcp, auto or unknown"),
			schema.Absent[*interfaceAddress]("friendly_name", schema.Text, "Interface's display name on Windows", schema.Hidden),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*interfaceAddress, error) {
		ls, err := links()
		if err != nil {
			return nil, err
		}
		as, err := ifaddrs()
		if err != nil {
			return nil, err
		}
		return interfaceAddresses(ls, as), nil
	}
	return t.Bind()
}

// interfaceDetail is a row of interface_details.
type interfaceDetail struct {
	link
	mac   string
	speed int64 // Mbit/s, -1 when unknown
	slot  string
}

// macText prints a hardware address; an interface that has none shows six zero bytes.
func macText(b []byte) string {
	if len(b) == 0 {
		return "00:00:00:00:00:00"
	}
	return net.HardwareAddr(b).String()
}

func interfaceDetailsTable(env *Env) schema.Relation {
	type row = *interfaceDetail
	counter := func(name string, i int, doc string) schema.Column[row] {
		return schema.Int(name, func(r row) *uint64 { return &r.counters[i] }, doc)
	}
	absent := func(name string, kind schema.Type, doc string) schema.Column[row] {
		return schema.Absent[row](name, kind, doc, schema.Hidden)
	}
	constant := func(name string, kind schema.Type, n int64, doc string) schema.Column[row] {
		return schema.Calc(name, kind, func(row) schema.Value { return schema.IntValue(n) }, doc)
	}
	t := &schema.Table[row]{
		Name: "interface_details",
		Doc:  "Network interfaces and their counters in the agent's network namespace.",
		Columns: []schema.Column[row]{
			schema.Str("interface", func(r row) *string { return &r.name }, "Interface's name"),
			schema.Str("mac", func(r row) *string { return &r.mac }, "Hardware address").Collated("nocase"),
			schema.Int("type", func(r row) *uint16 { return &r.kind }, "Hardware type (ARPHRD_*): 1 Ethernet, 772 loopback").As(schema.Integer),
			schema.Int("mtu", func(r row) *uint32 { return &r.mtu }, "Largest packet in bytes").As(schema.Integer),
			constant("metric", schema.Integer, 0, "Always 0: Linux keeps no metric of an interface"),
			schema.Int("flags", func(r row) *uint32 { return &r.flags }, "Flags as in netdevice(7), promiscuous mode included").As(schema.Integer),
			counter("ipackets", 0, "Packets received"),
			counter("opackets", 1, "Packets sent"),
			counter("ibytes", 2, "Bytes received"),
			counter("obytes", 3, "Bytes sent"),
			counter("ierrors", 4, "Errors while receiving"),
			counter("oerrors", 5, "Errors while sending"),
			counter("idrops", 6, "Received packets dropped"),
			counter("odrops", 7, "Packets to send dropped"),
			counter("collisions", 9, "Collisions"),
			constant("last_change", schema.BigInt, -1, "Always -1: Linux does not record it"),
			schema.Calc("link_speed", schema.BigInt, func(r row) schema.Value {
				if r.speed < 0 {
					return schema.Null
				}
				return schema.IntValue(r.speed)
			}, "Speed in Mbit/s, NULL when unknown"),
			schema.Str("pci_slot", func(r row) *string { return &r.slot }, "PCI address of the device"),
			absent("friendly_name", schema.Text, "Display name on Windows"),
			absent("description", schema.Text, "Short description on Windows"),
			absent("manufacturer", schema.Text, "Adapter's maker on Windows"),
			absent("connection_id", schema.Text, "Name of the connection on Windows"),
			absent("connection_status", schema.Text, "State of the connection on Windows"),
			absent("enabled", schema.Integer, "Whether the adapter is enabled on Windows"),
			absent("physical_adapter", schema.Integer, "Whether the adapter is a physical one on Windows"),
			absent("speed", schema.Integer, "Estimated bandwidth on Windows"),
			absent("service", schema.Text, "Adapter's service on Windows"),
			absent("dhcp_enabled", schema.Integer, "Whether DHCP assigns the address on Windows"),
			absent("dhcp_lease_expires", schema.Text, "End of the DHCP lease on Windows"),
			absent("dhcp_lease_obtained", schema.Text, "Begin of the DHCP lease on Windows"),
			absent("dhcp_server", schema.Text, "DHCP server on Windows"),
			absent("dns_domain", schema.Text, "DNS domain on Windows"),
			absent("dns_domain_suffix_search_order", schema.Text, "DNS suffixes on Windows"),
			absent("dns_host_name", schema.Text, "DNS host name on Windows"),
			absent("dns_server_search_order", schema.Text, "DNS servers on Windows"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		ls, err := links()
		if err != nil {
			return nil, err
		}
		rows := make([]row, len(ls))
		for i, l := range ls {
			r := &interfaceDetail{link: l, mac: macText(l.address), speed: -1}
			// sysfs may show another network namespace; then its answer is not ours.
			d, err := env.FS.NetDevice(l.name)
			if err == nil && d.Index == int(l.index) && (d.Address == "" || d.Address == r.mac) {
				r.speed, r.slot = d.Speed, d.PCISlot
			}
			rows[i] = r
		}
		return rows, nil
	}
	return t.Bind()
}

// routeRow is a row of routes.
type routeRow struct {
	route
	destination, gateway, source, name, kind string
}

// routeKinds are osquery's words for the types of route; the rest is other.
var routeKinds = map[uint8]string{
	unix.RTN_UNICAST: "gateway", unix.RTN_LOCAL: "local",
	unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast",
}

// routeRows makes one row for every way that a route leads.
func routeRows(all []route, names map[uint32]string) []*routeRow {
	var out []*routeRow
	for _, r := range all {
		kind := routeKinds[r.kind]
		if kind == "" {
			kind = "other"
		}
		for _, hop := range r.via {
			out = append(out, &routeRow{
				route: r, kind: kind, name: names[hop.out],
				destination: ipText(r.destination), gateway: ipText(hop.gateway), source: ipText(r.source),
			})
		}
	}
	return out
}

func routesTable(*Env) schema.Relation {
	type row = *routeRow
	t := &schema.Table[row]{
		Name: "routes",
		Doc:  "IPv4 and IPv6 routes of all tables in the agent's network namespace, one row for every next hop.",
		Columns: []schema.Column[row]{
			schema.Str("destination", func(r row) *string { return &r.destination }, "Destination; 0.0.0.0 or :: for the default route"),
			schema.Int("netmask", func(r row) *uint8 { return &r.bits }, "Length of the destination's prefix in bits").As(schema.Integer),
			schema.Str("gateway", func(r row) *string { return &r.gateway }, "Next hop; empty for what is on the link"),
			schema.Str("source", func(r row) *string { return &r.source }, "Preferred source address"),
			schema.Int("flags", func(r row) *uint32 { return &r.flags }, "Flags (RTM_F_*, RTNH_F_*)").As(schema.Integer),
			schema.Str("interface", func(r row) *string { return &r.name }, "Outgoing interface"),
			schema.Int("mtu", func(r row) *uint32 { return &r.mtu }, "Largest packet in bytes, 0 when not set for the route").As(schema.Integer),
			schema.Int("metric", func(r row) *uint32 { return &r.metric }, "Cost; the least wins").As(schema.Integer),
			schema.Str("type", func(r row) *string { return &r.kind }, "Kind: gateway (unicast), local, broadcast, anycast or other", schema.Additional),
			schema.Int("hopcount", func(r row) *uint32 { return &r.hops }, "Hop limit, 0 when not set for the route").As(schema.Integer),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		names, err := linkNames()
		if err != nil {
			return nil, err
		}
		all, err := routes()
		if err != nil {
			return nil, err
		}
		return routeRows(all, names), nil
	}
	return t.Bind()
}

// arpEntry is a row of arp_cache.
type arpEntry struct{ address, mac, name, permanent string }

// arpEntries makes rows of the neighbours that a packet may be sent to, or tried to.
func arpEntries(all []neighbour, names map[uint32]string) []*arpEntry {
	var out []*arpEntry
	for _, n := range all {
		if n.state&unix.NUD_NOARP != 0 {
			continue // needs no resolution: loopback, multicast; /proc/net/arp leaves it out too
		}
		e := &arpEntry{address: ipText(n.address), mac: macText(n.mac), name: names[n.index], permanent: "0"}
		if n.state&unix.NUD_PERMANENT != 0 {
			e.permanent = "1"
		}
		out = append(out, e)
	}
	return out
}

func arpCacheTable(*Env) schema.Relation {
	str := func(name string, at func(*arpEntry) *string, doc string) schema.Column[*arpEntry] {
		return schema.Str(name, at, doc)
	}
	t := &schema.Table[*arpEntry]{
		Name: "arp_cache",
		Doc:  "Hardware addresses of IPv4 (ARP) and IPv6 (NDP) neighbours in the agent's network namespace.",
		Columns: []schema.Column[*arpEntry]{
			str("address", func(e *arpEntry) *string { return &e.address }, "IP address"),
			str("mac", func(e *arpEntry) *string { return &e.mac }, "Hardware address, zero while it is not known").Collated("nocase"),
			str("interface", func(e *arpEntry) *string { return &e.name }, "Interface that leads to it"),
			str("permanent", func(e *arpEntry) *string { return &e.permanent }, "1 for an entry set by hand, else 0"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*arpEntry, error) {
		names, err := linkNames()
		if err != nil {
			return nil, err
		}
		all, err := neighbours()
		if err != nil {
			return nil, err
		}
		return arpEntries(all, names), nil
	}
	return t.Bind()
}
