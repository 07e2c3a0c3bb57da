package sql

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/ncruces/go-sqlite3"
)

// function is a scalar function that osquery has and SQLite does not, or has otherwise.
// Those that call nothing but arithmetic are SQLite's own: sqrt, exp, power, radians …
type function struct {
	name string
	args int // -1 for any number
	call func(c *conn, ctx sqlite3.Context, args []sqlite3.Value) error
}

var functions = []function{
	{"split", 3, split},
	{"regex_split", 3, regexSplit},
	{"regex_match", 3, regexMatch},
	{"concat", -1, concat},
	{"concat_ws", -1, concatWS},

	{"md5", 1, hash(func(b []byte) []byte { s := md5.Sum(b); return s[:] })},
	{"sha1", 1, hash(func(b []byte) []byte { s := sha1.Sum(b); return s[:] })},
	{"sha256", 1, hash(func(b []byte) []byte { s := sha256.Sum256(b); return s[:] })},
	{"to_base64", 1, toBase64},
	{"from_base64", 1, fromBase64},
	{"conditional_to_base64", 1, conditionalToBase64},

	{"inet_aton", 1, inetAton},
	{"in_cidr_block", 2, inCIDRBlock},
	{"community_id_v1", 5, communityID(false)},
	{"community_id_v1", 6, communityID(false)},
	{"community_id_v1_strict", 5, communityID(true)},
	{"community_id_v1_strict", 6, communityID(true)},

	{"version_compare", -1, versionCompare},
	{"parent_directory", 1, parentDirectory},
	{"find_file_path_in_cmd", -1, findFilePath},
	{"is_path_deterministic", -1, isPathDeterministic},
	{"carve", 1, func(*conn, sqlite3.Context, []sqlite3.Value) error { return fault("carving is disabled") }},

	// SQLite's log is to base 10, its ceil and floor of a fraction are fractions.
	{"log", 1, fraction(math.Log)},
	{"cot", 1, fraction(func(f float64) float64 { return 1 / math.Tan(f) })},
	{"ceil", 1, whole(math.Ceil)},
	{"floor", 1, whole(math.Floor)},
}

func (c *conn) functions() error {
	for _, f := range functions {
		flags := sqlite3.DETERMINISTIC | sqlite3.INNOCUOUS
		if err := c.db.CreateFunction(f.name, f.args, flags, func(ctx sqlite3.Context, args ...sqlite3.Value) {
			if err := f.call(c, ctx, args); err != nil {
				ctx.ResultError(err)
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

func isNull(v sqlite3.Value) bool { return v.Type() == sqlite3.NULL }

func anyNull(args []sqlite3.Value) bool { return slices.ContainsFunc(args, isNull) }

// fault is an error in osquery's words.
type fault string

func (f fault) Error() string { return string(f) }

// fraction is NULL where f is no number, as SQLite's own functions are.
func fraction(f func(float64) float64) func(*conn, sqlite3.Context, []sqlite3.Value) error {
	return func(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
		if isNull(args[0]) {
			return nil
		}
		if y := f(args[0].Float()); !math.IsNaN(y) && !math.IsInf(y, 0) {
			ctx.ResultFloat(y)
		}
		return nil
	}
}

// whole is an integer, unless it is too great for one.
func whole(f func(float64) float64) func(*conn, sqlite3.Context, []sqlite3.Value) error {
	return func(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
		switch args[0].Type() {
		case sqlite3.NULL:
		case sqlite3.INTEGER:
			ctx.ResultInt64(args[0].Int64())
		default:
			if y := f(args[0].Float()); math.Abs(y) < 1<<63 {
				ctx.ResultInt64(int64(y))
			} else {
				ctx.ResultFloat(y)
			}
		}
		return nil
	}
}

// split(text, tokens, index) cuts text at any of the bytes in tokens. As in osquery,
// empty parts do not count and parts are trimmed of white space.
func split(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	if anyNull(args) {
		return nil
	}
	text, tokens, index := args[0].Text(), args[1].Text(), args[2].Int64()
	if tokens == "" {
		return fault("Invalid input to split function")
	}
	for start := 0; index >= 0 && start <= len(text); {
		end := start
		for end < len(text) && strings.IndexByte(tokens, text[end]) < 0 {
			end++
		}
		if end > start {
			if index == 0 {
				ctx.ResultText(strings.Trim(text[start:end], " \t\n\v\f\r"))
				return nil
			}
			index--
		}
		start = end + 1
	}
	return nil
}

// maxPattern is osquery's default for --regex_max_size.
const maxPattern = 256

// regexps are patterns compiled on one connection. They are Go's: no back references
// and no looking around, which osquery's std::regex has, and no exponential time.
type regexps map[string]*regexp.Regexp

func (c *conn) regexp(pattern string) (*regexp.Regexp, error) {
	if re, ok := c.regexps[pattern]; ok {
		return re, nil
	}
	if len(pattern) > maxPattern {
		return nil, fault("Invalid regex: too big, max size is 256 bytes")
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fault("Invalid regex: " + strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	if len(c.regexps) >= 64 || c.regexps == nil {
		c.regexps = regexps{}
	}
	c.regexps[pattern] = re
	return re, nil
}

// regexSplit(text, pattern, index) cuts text at each match. As std::regex does it, an
// empty part after the last match does not count.
func regexSplit(c *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	if anyNull(args) {
		return nil
	}
	text, pattern, index := args[0].Text(), args[1].Text(), args[2].Int64()
	if pattern == "" {
		return fault("Invalid input to split function")
	}
	re, err := c.regexp(pattern)
	if err != nil || index < 0 {
		return err
	}
	start := 0
	for _, at := range re.FindAllStringIndex(text, -1) {
		if index == 0 {
			ctx.ResultText(text[start:at[0]])
			return nil
		}
		index--
		start = at[1]
	}
	if index == 0 && (start < len(text) || start == 0) {
		ctx.ResultText(text[start:])
	}
	return nil
}

// regexMatch(text, pattern, index) is the whole first match, or one of its groups.
func regexMatch(c *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	if anyNull(args) {
		return nil
	}
	re, err := c.regexp(args[1].Text())
	if err != nil {
		return err
	}
	text, index := args[0].Text(), args[2].Int64()
	at := re.FindStringSubmatchIndex(text)
	if at == nil || index < 0 || index >= int64(len(at)/2) {
		return nil
	}
	if start, end := at[2*index], at[2*index+1]; start >= 0 {
		ctx.ResultText(text[start:end])
	} else {
		ctx.ResultText("") // a group that took no part
	}
	return nil
}

// concat(…) joins what is not NULL.
func concat(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	if len(args) == 0 {
		return nil
	}
	return join(ctx, "", args)
}

// concatWS(separator, …) joins what is not NULL with the separator; a NULL separator is
// an empty one. osquery 5.23 leaves a separator at the end when the last argument is
// NULL, against its own documentation; here it does not.
func concatWS(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	if len(args) == 0 {
		return fault("Missing separator to concat_ws")
	}
	if len(args) == 1 {
		return nil
	}
	return join(ctx, args[0].Text(), args[1:])
}

func join(ctx sqlite3.Context, separator string, args []sqlite3.Value) error {
	var out []byte
	first := true
	for _, v := range args {
		if isNull(v) {
			continue
		}
		if !first {
			out = append(out, separator...)
		}
		first = false
		out = append(out, v.RawText()...)
		if len(out) > maxValue {
			return sqlite3.TOOBIG
		}
	}
	ctx.ResultText(string(out))
	return nil
}

func hash(sum func([]byte) []byte) func(*conn, sqlite3.Context, []sqlite3.Value) error {
	return func(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
		if isNull(args[0]) {
			return nil
		}
		ctx.ResultText(hex.EncodeToString(sum(args[0].RawText())))
		return nil
	}
}

func toBase64(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	if isNull(args[0]) {
		return nil
	}
	if b := args[0].RawText(); base64.StdEncoding.EncodedLen(len(b)) <= maxValue {
		ctx.ResultText(base64.StdEncoding.EncodeToString(b))
		return nil
	}
	return sqlite3.TOOBIG
}

// fromBase64 of what is no base 64 is empty, as in osquery.
func fromBase64(_ *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	if isNull(args[0]) {
		return nil
	}
	text := strings.TrimRight(strings.NewReplacer("\n", "", "\r", "").Replace(args[0].Text()), "=")
	b, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		b = nil
	}
	ctx.ResultText(string(b))
	return nil
}

// conditionalToBase64 encodes text that has a byte outside printable ASCII.
func conditionalToBase64(c *conn, ctx sqlite3.Context, args []sqlite3.Value) error {
	if isNull(args[0]) {
		return nil
	}
	for _, b := range args[0].RawText() {
		if b < ' ' || b >= 0x7f {
			return toBase64(c, ctx, args)
		}
	}
	ctx.ResultText(args[0].Text())
	return nil
}
