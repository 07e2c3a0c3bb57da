package sql

import (
	"bytes"
	"strings"

	"github.com/ncruces/go-sqlite3"
)

// versionOrder is how a family of packages orders its versions, in osquery's terms.
type versionOrder struct {
	epoch      bool // "1:2" is above all versions without a colon
	delimiters bool // delimiters have an order among themselves: ~ - ^ . :
	remaining  bool // when one version is the beginning of the other, ~ lowers it, ^ raises it, - does not count
	numeric    bool // with remaining: the longer number is the greater one
}

var versionOrders = map[string]versionOrder{
	"version":      {},
	"version_arch": {epoch: true, remaining: true, numeric: true},
	"version_dpkg": {epoch: true, delimiters: true},
	"version_rhel": {epoch: true, delimiters: true, remaining: true},
}

// collations registers osquery's collations; nocase is SQLite's own.
func (c *conn) collations() error {
	for name, order := range versionOrders {
		if err := c.db.CreateCollation(name, order.compare); err != nil {
			return err
		}
	}
	return nil
}

// compare orders two versions segment by segment, where a segment is what stands between
// delimiters, and of segments of one length the first byte that differs decides. It is
// osquery's order with all its oddities ("1.10" is above "1.9" only because it is
// longer), since schedules rely on it.
func (o versionOrder) compare(l, r []byte) int {
	switch {
	case bytes.Equal(l, r):
		return 0
	case len(l) == 0:
		return -1
	case len(r) == 0:
		return 1
	}
	if o.epoch {
		a, b := bytes.IndexByte(l, ':'), bytes.IndexByte(r, ':')
		switch {
		case a >= 0 && b >= 0 && a != b:
			return a - b
		case a >= 0 && b < 0:
			return 1
		case a < 0 && b >= 0:
			return -1
		}
	}
	first := 0
	shared := min(len(l), len(r))
	for i := range shared {
		a, b := precedence(l[i]), precedence(r[i])
		switch {
		case a == 0 && b == 0:
			if first == 0 {
				first = int(l[i]) - int(r[i])
			}
			continue
		case a == 0:
			return 1
		case b == 0:
			return -1
		case first != 0:
			return first
		case o.delimiters && a != b:
			return a - b
		}
	}
	if len(l) == len(r) {
		return first
	}
	if o.remaining {
		shorter, longer, raised := l, r, -1
		if len(r) == shared {
			shorter, longer, raised = r, l, 1
		}
		switch longer[shared] {
		case '~':
			return -raised
		case '-':
			return 0
		case '^':
			return raised
		}
		last := shorter[shared-1]
		if first != 0 && !(o.numeric && '0' <= last && last <= '9') {
			return first
		}
	}
	return len(l) - len(r)
}

func precedence(b byte) int { return strings.IndexByte("~-^.:", b) + 1 }

// versionCompare(version, operator, version [, epoch, delimiters, remaining, numeric]).
func versionCompare(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	if len(args) < 3 || args[0].Type() != sqlite3.TEXT || args[1].Type() != sqlite3.TEXT || args[2].Type() != sqlite3.TEXT {
		return fault("Must provide two version strings and an operator to compare.")
	}
	var flags [4]bool
	for i := 3; i < min(len(args), 7); i++ {
		switch args[i].Type() {
		case sqlite3.INTEGER:
			flags[i-3] = args[i].Int64() != 0
		case sqlite3.NULL:
		default:
			return fault("Options for epoch, delim_precedence, comp_remaining, and remainder_precedence must be true, false, or null.")
		}
	}
	d := versionOrder{flags[0], flags[1], flags[2], flags[3]}.compare([]byte(args[0].Text()), []byte(args[2].Text()))
	switch args[1].Text() {
	case "<":
		ctx.ResultBool(d < 0)
	case "<=":
		ctx.ResultBool(d <= 0)
	case "=":
		ctx.ResultBool(d == 0)
	case ">=":
		ctx.ResultBool(d >= 0)
	case ">":
		ctx.ResultBool(d > 0)
	default:
		return fault("Unknown compare operator. Must provide one of the following: (<, <=, =, >=, >)")
	}
	return nil
}
