package table

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// packetRule is a row of iptables. What a rule says nothing of is as osquery has it: an
// address 0.0.0.0, an interface all.
type packetRule struct {
	table, chain, policy, target string
	protocol                     int64
	sourcePort, targetPort       string
	source, sourceMask           string
	target4, targetMask          string
	in, inMask, out, outMask     string
	match                        string
	packets, bytes               uint64
}

func newPacketRule(table, chain, policy string) *packetRule {
	return &packetRule{table: table, chain: chain, policy: policy, source: "0.0.0.0", sourceMask: "0.0.0.0", target4: "0.0.0.0",
		targetMask: "0.0.0.0", in: "all", out: "all", match: "no"}
}

// The structures of linux/netfilter_ipv4/ip_tables.h and linux/netfilter/x_tables.h on 64-bit
// machines, by their offsets.
const (
	getInfo    = 64 // IPT_SO_GET_INFO
	getEntries = 65 // IPT_SO_GET_ENTRIES

	sizeOfInfo      = 84
	sizeOfEntries   = 40 // struct ipt_get_entries before its entries
	sizeOfEntry     = 112
	sizeOfExtension = 32 // the head of a match and of a target

	invertIn, invertOut, invertSource, invertTarget, invertProtocol = 1, 2, 8, 16, 64 // IPT_INV_*

	verdictDrop, verdictAccept, verdictQueue, verdictReturn = -1, -2, -4, -5 // -NF_DROP-1 and so on; XT_RETURN
	maxRuleBytes                                            = 256 << 20
)

// hooks are the chains that every table has, in the order of enum nf_inet_hooks.
var hookNames = [5]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// tableInfo is struct ipt_getinfo.
type tableInfo struct {
	hooks            uint32
	entry, underflow [5]uint32
	size             uint32
}

func parseTableInfo(b []byte) (i tableInfo, ok bool) {
	if len(b) < sizeOfInfo {
		return i, false
	}
	i.hooks = binary.NativeEndian.Uint32(b[32:])
	for n := range i.entry {
		i.entry[n] = binary.NativeEndian.Uint32(b[36+4*n:])
		i.underflow[n] = binary.NativeEndian.Uint32(b[56+4*n:])
	}
	i.size = binary.NativeEndian.Uint32(b[80:])
	return i, true
}

// parseTable reads the entries of a table: rules of one chain after the other. A chain of a
// user's begins with an entry that bears its name and ends with one that returns; a chain of
// a hook's ends with its policy.
func parseTable(table string, info *tableInfo, b []byte, add func(*packetRule)) error {
	type entry struct{ at, next, target int }
	var entries []entry
	chains := map[int]string{} // by the place of their first rule
	for at := 0; at < len(b); {
		if len(b)-at < sizeOfEntry {
			return errors.New("an entry is cut")
		}
		target, next := int(binary.NativeEndian.Uint16(b[at+88:])), int(binary.NativeEndian.Uint16(b[at+90:]))
		if target < sizeOfEntry || next < target+sizeOfExtension || next > len(b)-at {
			return errors.New("an entry is malformed")
		}
		e := entry{at, at + next, at + target}
		entries = append(entries, e)
		if name := cString(b[e.target+2 : e.target+31]); name == "ERROR" && next-target > sizeOfExtension {
			chains[e.next] = cString(b[e.target+sizeOfExtension : e.next])
		}
		at = e.next
	}
	ends := map[int]string{} // policies, by the place of their entry
	for n, name := range hookNames {
		if info.hooks>>n&1 != 0 {
			chains[int(info.entry[n])] = name
			ends[int(info.underflow[n])] = name
		}
	}
	policies := map[string]string{}
	for _, e := range entries {
		if name, ok := ends[e.at]; ok {
			policies[name] = verdict(b, e.target, e.next, chains)
		}
	}
	chain := ""
	for i, e := range entries {
		if name, ok := chains[e.at]; ok {
			chain = name
		}
		_, policy := ends[e.at]
		isError := func(e entry) bool { return cString(b[e.target+2:e.target+31]) == "ERROR" }
		switch {
		case policy: // which is told with each rule
		case isError(e): // the head of a chain, or the end of all
		case policies[chain] == "" && i+1 < len(entries) && isError(entries[i+1]): // what every chain of a user's ends with
		default:
			r := newPacketRule(table, chain, policies[chain])
			r.parse(b[e.at:e.next], e.target-e.at)
			r.target = verdict(b, e.target, e.next, chains)
			add(r)
		}
	}
	return nil
}

// verdict is what a target does: its name, ACCEPT and the like, or the chain that it jumps to.
func verdict(b []byte, at, end int, chains map[int]string) string {
	if name := cString(b[at+2 : at+31]); name != "" || end-at < sizeOfExtension+4 {
		return name
	}
	switch n := int32(binary.NativeEndian.Uint32(b[at+sizeOfExtension:])); {
	case n == verdictDrop:
		return "DROP"
	case n == verdictAccept:
		return "ACCEPT"
	case n == verdictQueue:
		return "QUEUE"
	case n == verdictReturn:
		return "RETURN"
	case int(n) == end:
		return "" // the next rule
	default:
		return chains[int(n)]
	}
}

// parse reads what a rule is about: struct ipt_ip, counters, and the ports of matches tcp and udp.
func (r *packetRule) parse(b []byte, target int) {
	invert := b[83]
	not := func(bit byte) string {
		if invert&bit != 0 {
			return "!"
		}
		return ""
	}
	address := func(at int) string { return netip.AddrFrom4([4]byte(b[at:])).String() }
	r.source, r.target4, r.sourceMask, r.targetMask = not(invertSource)+address(0), not(invertTarget)+address(4), address(8), address(12)
	r.in, r.inMask = interfaceOf(b[16:32], b[48:64], not(invertIn))
	r.out, r.outMask = interfaceOf(b[32:48], b[64:80], not(invertOut))
	r.protocol = int64(binary.NativeEndian.Uint16(b[80:]))
	r.packets, r.bytes = binary.NativeEndian.Uint64(b[96:]), binary.NativeEndian.Uint64(b[104:])
	for at := sizeOfEntry; at+sizeOfExtension <= target; {
		size := int(binary.NativeEndian.Uint16(b[at:]))
		if size < sizeOfExtension || size > target-at {
			return
		}
		r.match = "yes"
		// struct xt_tcp and xt_udp begin with two ranges; what is inverted follows.
		if name, data := cString(b[at+2:at+31]), b[at+sizeOfExtension:at+size]; (name == "tcp" || name == "udp") && len(data) >= 12 {
			flags := data[8] // struct xt_udp
			if name == "tcp" {
				flags = data[11]
			}
			r.sourcePort = portRange(data[0:4], flags&1 != 0)
			r.targetPort = portRange(data[4:8], flags&2 != 0)
		}
		at += size
	}
}

func portRange(b []byte, not bool) string {
	s := strconv.Itoa(int(binary.NativeEndian.Uint16(b))) + ":" + strconv.Itoa(int(binary.NativeEndian.Uint16(b[2:])))
	if not {
		return "!" + s
	}
	return s
}

// interfaceOf is the name of an interface, with + for all that begin so, and its mask in
// hexadecimal.
func interfaceOf(name, mask []byte, not string) (string, string) {
	s := cString(name)
	if s == "" {
		return "all", ""
	}
	return not + s, fmt.Sprintf("%X", bytes.TrimRight(mask, "\x00"))
}

// legacyRules asks the kernel for the rules of iptables-legacy. The tables are those that are
// there: asking for another would load its module.
func (env *Env) legacyRules(add func(*packetRule)) error {
	names, err := env.FS.PacketTables()
	if errors.Is(err, fs.ErrNotExist) || len(names) == 0 && err == nil {
		return nil
	}
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	defer unix.Close(fd)
	for _, name := range names {
		for range 4 { // it may grow meanwhile
			var head [sizeOfInfo]byte
			copy(head[:31], name)
			if _, err = getsockopt(fd, getInfo, head[:]); err != nil {
				break
			}
			info, _ := parseTableInfo(head[:])
			if info.size > maxRuleBytes {
				err = fmt.Errorf("%d bytes", info.size)
				break
			}
			b := make([]byte, sizeOfEntries+int(info.size))
			copy(b[:31], name)
			binary.NativeEndian.PutUint32(b[32:], info.size)
			var n int
			if n, err = getsockopt(fd, getEntries, b); err == unix.EAGAIN {
				continue
			}
			if err == nil {
				err = parseTable(name, &info, b[sizeOfEntries:max(n, sizeOfEntries)], add)
			}
			break
		}
		if err != nil {
			return fmt.Errorf("read table %q: %w", name, err)
		}
	}
	return nil
}

// getsockopt is getsockopt(2) with what the kernel wants to be told in the same place.
func getsockopt(fd, name int, b []byte) (int, error) {
	size := uint32(len(b))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return 0, e
	}
	return int(size), nil
}

func iptablesTable(env *Env) schema.Relation {
	type row = *packetRule
	t := &schema.Table[row]{
		Name: "iptables",
		Doc:  "Rules for IPv4 packets: of iptables, and of nftables as far as its terms can be put into these.",
		Columns: []schema.Column[row]{
			schema.Str("filter_name", func(r row) *string { return &r.table }, "Table: filter, nat, mangle, raw, security, or one of nftables'"),
			schema.Str("chain", func(r row) *string { return &r.chain }, "Chain"),
			schema.Str("policy", func(r row) *string { return &r.policy }, "What becomes of packets that no rule of the chain decides on; empty for chains that others jump to"),
			schema.Str("target", func(r row) *string { return &r.target }, "What becomes of those it is about, or the chain that it jumps to"),
			schema.Int("protocol", func(r row) *int64 { return &r.protocol }, "Number of the protocol, 0 for all").As(schema.Integer),
			schema.Str("src_port", func(r row) *string { return &r.sourcePort }, "First and last port they come from, with ! when it is about all others"),
			schema.Str("dst_port", func(r row) *string { return &r.targetPort }, "First and last port they go to"),
			schema.Str("src_ip", func(r row) *string { return &r.source }, "Address they come from, with ! when it is about all others"),
			schema.Str("src_mask", func(r row) *string { return &r.sourceMask }, "Its mask"),
			schema.Str("iniface", func(r row) *string { return &r.in }, "Interface they came in by, or all"),
			schema.Str("iniface_mask", func(r row) *string { return &r.inMask }, "Which bytes of its name count, hexadecimal"),
			schema.Str("dst_ip", func(r row) *string { return &r.target4 }, "Address they go to"),
			schema.Str("dst_mask", func(r row) *string { return &r.targetMask }, "Its mask"),
			schema.Str("outiface", func(r row) *string { return &r.out }, "Interface they go out by, or all"),
			schema.Str("outiface_mask", func(r row) *string { return &r.outMask }, "Which bytes of its name count, hexadecimal"),
			schema.Str("match", func(r row) *string { return &r.match }, "yes when there is more to it than addresses, interfaces and protocol"),
			schema.Int("packets", func(r row) *uint64 { return &r.packets }, "Packets it was about").As(schema.Integer),
			schema.Int("bytes", func(r row) *uint64 { return &r.bytes }, "Bytes in them").As(schema.Integer),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		add := func(r row) { rows = append(rows, r) }
		for _, err := range []error{env.legacyRules(add), nftablesRules(add)} {
			if err != nil {
				q.Warning("Table iptables is incomplete: " + strings.TrimSpace(err.Error()))
			}
		}
		return rows, ctx.Err()
	}
	return t.Bind()
}
