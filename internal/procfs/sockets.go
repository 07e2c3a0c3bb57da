package procfs

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Socket is one socket as the files in /proc/<pid>/net list it.
type Socket struct {
	Inode  uint64 // in sockfs; 0 when no process can hold it (time-wait, not yet accepted)
	NetNS  uint64 // inode of its network namespace
	Family uint16 // AF_INET, AF_INET6, AF_UNIX or AF_PACKET
	// Protocol is IPPROTO_* (255 for every raw socket, whose own protocol is then the local
	// port), the ETH_P_* a packet socket takes, or 0 for a unix socket.
	Protocol uint16
	State    string         // of TCP: ESTABLISHED, LISTEN …; NONE for a packet socket; else empty
	Local    netip.AddrPort // invalid unless AF_INET or AF_INET6
	Remote   netip.AddrPort // as Local; zero address and port when not connected
	UID      uint32         // owner of an internet socket
	// Path is the name of a unix socket, empty for one without. Abstract names start with @,
	// and so does every NUL in a name read.
	Path string
}

// Sockets gathers the sockets of network namespaces, each of which is read once, through
// the first process in it that lives long enough. The zero value is ready.
type Sockets struct {
	List []Socket
	seen map[uint64]bool
}

// The files of one network namespace: those that osquery reads, in its order.
var socketFiles = [...]struct {
	nameZ    string
	family   uint16
	protocol uint16
	parse    func(line []byte, s *Socket) bool
}{
	{"net/icmp\x00", unix.AF_INET, unix.IPPROTO_ICMP, parseInet},
	{"net/icmp6\x00", unix.AF_INET6, unix.IPPROTO_ICMP, parseInet},
	{"net/tcp\x00", unix.AF_INET, unix.IPPROTO_TCP, parseInet},
	{"net/tcp6\x00", unix.AF_INET6, unix.IPPROTO_TCP, parseInet},
	{"net/udp\x00", unix.AF_INET, unix.IPPROTO_UDP, parseInet},
	{"net/udp6\x00", unix.AF_INET6, unix.IPPROTO_UDP, parseInet},
	{"net/udplite\x00", unix.AF_INET, unix.IPPROTO_UDPLITE, parseInet},
	{"net/udplite6\x00", unix.AF_INET6, unix.IPPROTO_UDPLITE, parseInet},
	{"net/raw\x00", unix.AF_INET, unix.IPPROTO_RAW, parseInet},
	{"net/raw6\x00", unix.AF_INET6, unix.IPPROTO_RAW, parseInet},
	{"net/unix\x00", unix.AF_UNIX, 0, parseUnix},
	{"net/packet\x00", unix.AF_PACKET, 0, parsePacket},
}

// Visit adds the sockets of the network namespace of p, unless it has been read already.
// Where p vanishes meanwhile the error is ErrGone and nothing is added: another process in
// the same namespace will do.
func (s *Sockets) Visit(p *Process) error {
	ns, err := p.NetNamespace()
	if err != nil || s.seen[ns] {
		return err
	}
	before := len(s.List)
	for i := range socketFiles {
		f := &socketFiles[i]
		sock := Socket{NetNS: ns, Family: f.family, Protocol: f.protocol}
		first, start := true, len(s.List)
		err := p.lines(f.nameZ, func(line []byte) {
			switch {
			case first: // the header
				first = false
			case f.parse(line, &sock):
				s.List = append(s.List, sock)
			case f.family == unix.AF_UNIX && len(s.List) > start:
				continueUnix(&s.List[len(s.List)-1], line)
			}
		})
		if err == ErrGone {
			err = nil // a protocol that this kernel lacks, or the process itself
		}
		if err != nil {
			s.List = s.List[:before]
			return err
		}
	}
	// The namespace of a process that lives is the one that was read.
	if now, err := p.NetNamespace(); err != nil || now != ns {
		s.List = s.List[:before]
		return ErrGone
	}
	if s.seen == nil {
		s.seen = make(map[uint64]bool)
	}
	s.seen[ns] = true
	return nil
}

// tcpStates are osquery's words for the numbers of include/net/tcp_states.h.
var tcpStates = [...]string{
	1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT",
	7: "CLOSED", 8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING",
}

// parseInet reads a line of tcp, udp, udplite, raw or icmp and their sixes (proc_pid_net(5)):
// "sl: local:port remote:port st tx:rx tr:when retrnsmt uid timeout inode …". Family and
// Protocol of s are given.
func parseInet(line []byte, s *Socket) bool {
	var fields [10][]byte
	for i := range fields {
		fields[i], line = nextField(line)
	}
	var ok [5]bool
	s.Local, ok[0] = parseEndpoint(fields[1], s.Family)
	s.Remote, ok[1] = parseEndpoint(fields[2], s.Family)
	state, ok2 := parseHex(fields[3])
	uid, ok3 := parseDecimal(fields[7])
	s.Inode, ok[4] = parseDecimal(fields[9])
	ok[2], ok[3] = ok2, ok3
	s.UID = uint32(uid)
	s.State = ""
	if s.Protocol == unix.IPPROTO_TCP {
		s.State = "UNKNOWN"
		if state > 0 && state < uint64(len(tcpStates)) {
			s.State = tcpStates[state]
		}
	}
	return ok == [5]bool{true, true, true, true, true}
}

// parseEndpoint reads "0100007F:1F90": the address as 32-bit words in the byte order of
// the machine, the port as a number.
func parseEndpoint(b []byte, family uint16) (netip.AddrPort, bool) {
	words := 1
	if family == unix.AF_INET6 {
		words = 4
	}
	if len(b) != 8*words+5 || b[8*words] != ':' {
		return netip.AddrPort{}, false
	}
	var raw [16]byte
	for i := range words {
		w, ok := parseHex(b[8*i : 8*i+8])
		if !ok {
			return netip.AddrPort{}, false
		}
		binary.NativeEndian.PutUint32(raw[4*i:], uint32(w))
	}
	port, ok := parseHex(b[8*words+1:])
	if !ok {
		return netip.AddrPort{}, false
	}
	addr := netip.AddrFrom16(raw)
	if words == 1 {
		addr = netip.AddrFrom4([4]byte(raw[:4]))
	}
	return netip.AddrPortFrom(addr, uint16(port)), true
}

// maxUnixPath is the size of sun_path, and some for a name that goes on over lines.
const maxUnixPath = 128

// parseUnix reads "Num: RefCount Protocol Flags Type St Inode Path" (net/unix/af_unix.c,
// unix_seq_show). A name may hold anything, newlines too, and the kernel escapes nothing:
// hence the strict form, and continueUnix. Whoever binds a socket can still write a name
// whose second line has the form of another socket; nothing in the text tells those apart.
func parseUnix(line []byte, s *Socket) bool {
	num, rest := nextField(line)
	if len(num) != len(line)-len(rest) || len(num) < 2 || num[len(num)-1] != ':' {
		return false
	}
	if _, ok := parseHex(num[:len(num)-1]); !ok {
		return false
	}
	for _, width := range [...]int{8, 8, 8, 4, 2} {
		if len(rest) < width+1 || rest[0] != ' ' {
			return false
		}
		if _, ok := parseHex(rest[1 : width+1]); !ok {
			return false
		}
		rest = rest[width+1:]
	}
	if len(rest) == 0 || rest[0] != ' ' {
		return false
	}
	inode, path := nextField(rest)
	n, ok := parseDecimal(inode)
	if !ok {
		return false
	}
	s.Inode, s.Path = n, ""
	if len(path) > 0 {
		s.Path = string(path[1:min(len(path), maxUnixPath+1)])
	}
	return true
}

// continueUnix adds a line that is no socket to the name of the one before.
func continueUnix(s *Socket, line []byte) {
	if s.Path != "" && len(s.Path)+1+len(line) <= maxUnixPath {
		s.Path += "\n" + string(line)
	}
}

// parsePacket reads "sk RefCnt Type Proto Iface R Rmem User Inode" (net/packet/af_packet.c,
// packet_seq_show). The protocol is in hexadecimal, everything after it in decimal.
func parsePacket(line []byte, s *Socket) bool {
	var fields [9][]byte
	for i := range fields {
		fields[i], line = nextField(line)
	}
	protocol, ok1 := parseHex(fields[3])
	uid, ok2 := parseDecimal(fields[7])
	inode, ok3 := parseDecimal(fields[8])
	s.Protocol, s.UID, s.Inode, s.State = uint16(protocol), uint32(uid), inode, "NONE"
	return ok1 && ok2 && ok3 && protocol <= 1<<16-1
}

// Netlink calls fn with the inode of each netlink socket in the network namespace of p,
// which Sockets leaves out as osquery does.
func (p *Process) Netlink(fn func(inode uint64)) error {
	first := true
	return p.lines("net/netlink\x00", func(line []byte) {
		if first {
			first = false
			return
		}
		if inode, ok := parseNetlink(line); ok {
			fn(inode)
		}
	})
}

// parseNetlink reads "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode"
// (net/netlink/af_netlink.c, netlink_native_seq_show).
func parseNetlink(line []byte) (uint64, bool) {
	var word []byte
	for range 10 {
		word, line = nextField(line)
	}
	return parseDecimal(word)
}
