package table

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// nftablesRules asks the kernel for the rules that nft(8) and today's iptables make.
func nftablesRules(add func(*packetRule)) error {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	defer c.CloseLasting()
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyINet} {
		chains, err := c.ListChainsOfTableFamily(family)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
			return nil // a kernel without them
		}
		if err != nil {
			return fmt.Errorf("list chains of nftables: %w", err)
		}
		for _, chain := range chains {
			rules, err := c.GetRules(chain.Table, chain)
			if errors.Is(err, unix.ENOENT) {
				continue // gone since
			}
			if err != nil {
				return fmt.Errorf("list rules of nftables: %w", err)
			}
			policy := ""
			if chain.Hooknum != nil {
				policy = "ACCEPT"
				if chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
					policy = "DROP"
				}
			}
			for _, rule := range rules {
				r := newPacketRule(chain.Table.Name, chain.Name, policy)
				r.terms(rule.Exprs)
				add(r)
			}
		}
	}
	return nil
}

// loaded is what a register of nftables' virtual machine holds of a packet.
type loaded struct {
	base        expr.PayloadBase
	offset, len uint32
	meta        expr.MetaKey
	isMeta      bool
	mask        []byte
}

// terms puts a rule of nftables into the columns. Terms that none of them has make match yes.
func (r *packetRule) terms(terms []expr.Any) {
	registers := map[uint32]loaded{}
	for _, term := range terms {
		switch e := term.(type) {
		case *expr.Payload:
			registers[e.DestRegister] = loaded{base: e.Base, offset: e.Offset, len: e.Len}
		case *expr.Meta:
			registers[e.Register] = loaded{meta: e.Key, isMeta: true}
		case *expr.Bitwise:
			l := registers[e.SourceRegister]
			l.mask = e.Mask
			registers[e.DestRegister] = l
		case *expr.Cmp:
			if e.Op != expr.CmpOpEq && e.Op != expr.CmpOpNeq || !r.compare(registers[e.Register], e.Data, e.Data, e.Op == expr.CmpOpNeq) {
				r.match = "yes"
			}
		case *expr.Range:
			if l := registers[e.Register]; l.isMeta || l.base != expr.PayloadBaseTransportHeader || !r.compare(l, e.FromData, e.ToData, e.Op == expr.CmpOpNeq) {
				r.match = "yes"
			}
		case *expr.Counter:
			r.packets, r.bytes = e.Packets, e.Bytes
		case *expr.Verdict:
			r.target = verdictName(e)
		case *expr.Target:
			r.target = e.Name
		case *expr.Reject:
			r.target = "REJECT"
		case *expr.Masq:
			r.target = "MASQUERADE"
		case *expr.Redir:
			r.target = "REDIRECT"
		case *expr.NAT:
			if r.target = "SNAT"; e.Type == expr.NATTypeDestNAT {
				r.target = "DNAT"
			}
		case *expr.Log:
			if r.target == "" {
				r.target = "LOG"
			}
		case *expr.Immediate: // an argument of what follows
		default:
			r.match = "yes"
		}
	}
}

func verdictName(v *expr.Verdict) string {
	switch v.Kind {
	case expr.VerdictAccept:
		return "ACCEPT"
	case expr.VerdictDrop:
		return "DROP"
	case expr.VerdictReturn:
		return "RETURN"
	case expr.VerdictQueue:
		return "QUEUE"
	case expr.VerdictJump, expr.VerdictGoto:
		return v.Chain
	}
	return ""
}

// compare puts one comparison into its column; false when there is none for it.
func (r *packetRule) compare(l loaded, from, to []byte, not bool) bool {
	mark := ""
	if not {
		mark = "!"
	}
	switch {
	case l.isMeta && l.meta == expr.MetaKeyL4PROTO && len(from) >= 1:
		r.protocol = int64(from[0])
		return !not
	case l.isMeta && l.meta == expr.MetaKeyNFPROTO:
		return true // IPv4 in a table for both
	case l.isMeta && (l.meta == expr.MetaKeyIIFNAME || l.meta == expr.MetaKeyOIFNAME):
		name := cString(from)
		mask := fmt.Sprintf("%X", bytes.Repeat([]byte{0xff}, len(from)))
		if bytes.IndexByte(from, 0) < 0 { // the beginning of a name
			name += "+"
		}
		if l.meta == expr.MetaKeyIIFNAME {
			r.in, r.inMask = mark+name, mask
		} else {
			r.out, r.outMask = mark+name, mask
		}
		return true
	case !l.isMeta && l.base == expr.PayloadBaseNetworkHeader && l.offset == 9 && l.len == 1 && len(from) == 1:
		r.protocol = int64(from[0])
		return !not
	case !l.isMeta && l.base == expr.PayloadBaseNetworkHeader && (l.offset == 12 || l.offset == 16) && int(l.len) == len(from) && len(from) <= 4:
		mask := bytes.Repeat([]byte{0xff}, len(from)) // a prefix of whole bytes is compared as such
		if l.mask != nil {
			mask = l.mask
		}
		var address, bits [4]byte
		copy(address[:], from)
		copy(bits[:], mask)
		if l.offset == 12 {
			r.source, r.sourceMask = mark+netip.AddrFrom4(address).String(), netip.AddrFrom4(bits).String()
		} else {
			r.target4, r.targetMask = mark+netip.AddrFrom4(address).String(), netip.AddrFrom4(bits).String()
		}
		return true
	case !l.isMeta && l.base == expr.PayloadBaseTransportHeader && l.len == 2 && len(from) == 2 && len(to) == 2 && (l.offset == 0 || l.offset == 2):
		ports := fmt.Sprintf("%s%d:%d", mark, binary.BigEndian.Uint16(from), binary.BigEndian.Uint16(to))
		if l.offset == 0 {
			r.sourcePort = ports
		} else {
			r.targetPort = ports
		}
		r.match = "yes" // as iptables loads its match tcp for them
		return true
	}
	return false
}
