package sql

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"math"
	"net/netip"
	"strings"

	"github.com/ncruces/go-sqlite3"
)

// inetAton(text) is an IPv4 address as a number, NULL for anything else.
func inetAton(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	if isNull(args[0]) {
		return nil
	}
	if a, err := netip.ParseAddr(args[0].Text()); err == nil && a.Is4() {
		b := a.As4()
		ctx.ResultInt64(int64(binary.BigEndian.Uint32(b[:])))
	}
	return nil
}

// inCIDRBlock(block, address) reports whether address is in block. Two differences from
// osquery 5.23: the first and the last address of an IPv4 block count as being in it, and
// an address that is NULL or empty, as of a socket without a peer, gives NULL instead
// of ending the query.
func inCIDRBlock(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	if args[0].Type() != sqlite3.TEXT {
		return fault("CIDR must be a string")
	}
	if isNull(args[1]) {
		return nil
	}
	if args[1].Type() != sqlite3.TEXT {
		return fault("IP address must be a string")
	}
	text := args[1].Text()
	if text == "" {
		return nil
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return fault("IP address cannot be parsed")
	}
	block, err := netip.ParsePrefix(args[0].Text())
	if err != nil || block.Addr().Is4() != address.Is4() {
		if address.Is4() {
			return fault("CIDR for IP address v4 cannot be parsed")
		}
		return fault("CIDR for IP address v6 cannot be parsed")
	}
	ctx.ResultBool(block.Contains(address.WithZone("")))
	return nil
}

// communityID(source, destination, source port, destination port, protocol [, seed]) is
// the flow hash of https://github.com/corelight/community-id-spec, version 1. A bad
// argument is an error when strict, else NULL and a warning.
func communityID(strict bool) func(*conn, sqlite3.Context, []sqlite3.Value) error {
	return func(c *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
		id, err := community(args)
		switch {
		case err == nil:
			ctx.ResultText(id)
		case strict:
			return err
		default:
			c.warning(err.Error())
		}
		return nil
	}
}

func community(args []sqlite3.Value) (string, error) {
	seed := int64(0)
	if len(args) == 6 {
		if args[5].Type() != sqlite3.INTEGER {
			return "", fault("Community ID seed must be an integer")
		}
		if seed = args[5].Int64(); seed < math.MinInt16 || seed > math.MaxInt16 {
			return "", fault("Community ID seed must fit in 2 bytes")
		}
	}
	if args[0].Type() != sqlite3.TEXT || args[1].Type() != sqlite3.TEXT {
		return "", fault("Community ID IPs must be strings")
	}
	source, err := netip.ParseAddr(args[0].Text())
	if err != nil {
		return "", fault("Community ID saddr cannot be parsed as IP")
	}
	destination, err := netip.ParseAddr(args[1].Text())
	if err != nil {
		return "", fault("Community ID daddr cannot be parsed as IP")
	}
	if args[2].Type() != sqlite3.INTEGER || args[3].Type() != sqlite3.INTEGER {
		return "", fault("Community ID ports must be integers")
	}
	from, to := args[2].Int64(), args[3].Int64()
	if from < 0 || from > math.MaxUint16 || to < 0 || to > math.MaxUint16 {
		return "", fault("Community ID ports must fit in 2 bytes")
	}
	if args[4].Type() != sqlite3.INTEGER {
		return "", fault("Community ID protocol must be an integer")
	}
	protocol := args[4].Int64()
	if protocol < 0 || protocol > math.MaxUint8 {
		return "", fault("Community ID protocol must fit in 1 byte")
	}
	// Both directions of a flow have one hash.
	if order := source.Compare(destination); order > 0 || order == 0 && from >= to {
		source, destination, from, to = destination, source, to, from
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(seed))
	b = append(b, source.AsSlice()...)
	b = append(b, destination.AsSlice()...)
	b = append(b, byte(protocol), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(from))
	b = binary.BigEndian.AppendUint16(b, uint16(to))
	sum := sha1.Sum(b)
	var id strings.Builder
	id.WriteString("1:")
	id.WriteString(base64.StdEncoding.EncodeToString(sum[:]))
	return id.String(), nil
}
