package audit

import "bytes"

// stamp names an event: all records of one have the same time and serial. The serial
// alone is counted in 32 bits, from 1 at boot, and starts again.
type stamp struct {
	seconds int64
	millis  uint16
	serial  uint32
}

// parseHead reads the head of a record, "audit(1364481363.243:24287): ", and returns what
// follows. It is false for anything else.
func parseHead(b []byte) (stamp, []byte, bool) {
	const before = "audit("
	var s stamp
	if len(b) < len(before) || string(b[:len(before)]) != before {
		return s, nil, false
	}
	seconds, b, ok1 := decimal(b[len(before):], '.', 1<<40)
	millis, b, ok2 := decimal(b, ':', 999)
	serial, b, ok3 := decimal(b, ')', 1<<32-1)
	if !ok1 || !ok2 || !ok3 || len(b) == 0 || b[0] != ':' {
		return s, nil, false
	}
	b = b[1:]
	if len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	return stamp{int64(seconds), uint16(millis), uint32(serial)}, b, true
}

// decimal reads digits up to the byte end, and returns what follows that.
func decimal(b []byte, end byte, most uint64) (n uint64, rest []byte, ok bool) {
	for i, c := range b {
		if c == end && i > 0 {
			return n, b[i+1:], true
		}
		if c < '0' || c > '9' {
			return 0, nil, false
		}
		if n = n*10 + uint64(c-'0'); n > most {
			return 0, nil, false
		}
	}
	return 0, nil, false
}

// field is one key=value of a record. A word without a key has none.
type pair struct {
	key   []byte
	value []byte // without quotes
	// quote is what stood around the value: '"', '\” of msg, '{' of SELinux's permissions,
	// or 0. Text that a stranger can choose is either in double quotes or written in
	// hexadecimal (audit_log_untrustedstring in kernel/audit.c).
	quote byte
	cut   bool // the closing quote is missing
}

// fields walks the text of a record.
type pairs struct{ rest []byte }

// enriched parts the record of the kernel from what auditd added in the log: names for the
// numbers (log_format = ENRICHED). They are not read: they are as old as the log.
const enriched = 0x1d

// next returns the next field; false at the end. Fields that are cut or malformed are
// returned as far as they go: who reads them finds out by their value.
func (f *pairs) next() (x pair, ok bool) {
	b := f.rest
	// Messages of old programs put part of their fields in parentheses, with commas.
	for len(b) > 0 && (b[0] == ' ' || b[0] == '(' || b[0] == ',') {
		if len(b) > 1 && b[0] == '(' && b[1] == 'n' && bytes.HasPrefix(b, null) {
			break
		}
		b = b[1:]
	}
	if len(b) == 0 || b[0] == enriched || b[0] == '\n' || b[0] == 0 {
		f.rest = nil
		return x, false
	}
	i := 0
	for i < len(b) && b[i] != '=' && b[i] != ' ' && b[i] != enriched && b[i] != '\n' {
		i++
	}
	if i == len(b) || b[i] != '=' {
		if b[0] == '{' { // "denied  { read write } for"
			if end := bytes.IndexByte(b, '}'); end > 0 {
				x.value, x.quote = bytes.TrimSpace(b[1:end]), '{'
				f.rest = b[end+1:]
				return x, true
			}
		}
		x.value = b[:i]
		f.rest = b[i:]
		return x, true
	}
	x.key, b = b[:i], b[i+1:]
	if len(b) > 0 && b[0] == '"' {
		b = b[1:]
		x.quote = '"'
		end := bytes.IndexByte(b, '"')
		if end < 0 {
			x.value, x.cut, f.rest = cutTail(b), true, nil
			return x, true
		}
		x.value, f.rest = b[:end], b[end+1:]
		return x, true
	}
	if len(b) > 0 && b[0] == '\'' {
		// The message of a program, the last field of the kernel's record. It may hold
		// quotes of its own.
		b = b[1:]
		x.quote = '\''
		tail := len(b)
		if i := bytes.IndexByte(b, enriched); i >= 0 {
			tail = i
		}
		if end := bytes.LastIndexByte(b[:tail], '\''); end >= 0 {
			x.value, f.rest = b[:end], b[end+1:]
			return x, true
		}
		x.value, x.cut, f.rest = cutTail(b), true, nil
		return x, true
	}
	i = 0
	for i < len(b) && b[i] != ' ' && b[i] != enriched && b[i] != '\n' && b[i] != 0 {
		i++
	}
	x.value, f.rest = b[:i], b[i:]
	if n := len(x.value); n > 0 && x.value[0] != '(' {
		for n > 0 && (x.value[n-1] == ',' || x.value[n-1] == ')') {
			n--
		}
		x.value = x.value[:n]
	}
	return x, true
}

// cutTail ends what was cut off before its quote at the next thing that is no part of it.
func cutTail(b []byte) []byte {
	if i := bytes.IndexByte(b, enriched); i >= 0 {
		b = b[:i]
	}
	return bytes.TrimRight(b, "\n\x00")
}

// untrusted returns the text of a field of the kernel's that a stranger could choose: it is
// in double quotes, or decoded into buf from hexadecimal, or none. The result is a part of
// the record or of buf.
func (x *pair) untrusted(buf []byte) []byte {
	if x.quote != 0 || len(x.value) == 0 {
		return x.value
	}
	if x.value[0] == '(' && (bytes.Equal(x.value, null) || bytes.Equal(x.value, none)) {
		return nil
	}
	if out, ok := unhex(buf[:0], x.value[:len(x.value)&^1]); ok && len(out) > 0 { // an odd digit was cut
		return out
	}
	return x.value
}

// claimed does the same for a field that a program wrote. Some write plain words without
// quotes: what is hexadecimal stands for something that a word must not have.
func (x *pair) claimed(buf []byte) []byte {
	if x.quote != 0 || len(x.value) == 0 {
		return x.value
	}
	if bytes.Equal(x.value, null) || bytes.Equal(x.value, none) || len(x.value) == 1 && x.value[0] == '?' {
		return nil
	}
	if out, ok := unhex(buf[:0], x.value); ok {
		for _, c := range out {
			if c < 0x21 || c > 0x7e || c == '"' {
				return out
			}
		}
	}
	return x.value
}

var (
	null = []byte("(null)")
	none = []byte("(none)")
)

// unhex appends what hexadecimal digits stand for; false when they are none.
func unhex(dst, digits []byte) ([]byte, bool) {
	if len(digits)%2 != 0 {
		return nil, false
	}
	for i := 0; i < len(digits); i += 2 {
		hi, lo := nibbles[digits[i]], nibbles[digits[i+1]]
		if hi|lo > 15 {
			return nil, false
		}
		dst = append(dst, hi<<4|lo)
	}
	return dst, true
}

// nibbles are the values of hexadecimal digits; others are above 15.
var nibbles = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range byte(10) {
		t['0'+i] = i
	}
	for i := range byte(6) {
		t['a'+i], t['A'+i] = 10+i, 10+i
	}
	return t
}()

// number reads decimal digits, after a minus perhaps, up to the first other byte: logs of
// old kernels have -13(Permission denied). It is false when there is none or it is too big.
func integer(b []byte) (int64, bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	var n uint64
	i := 0
	for ; i < len(b) && b[i]-'0' <= 9; i++ {
		if n > (1<<63-1-9)/10 {
			return 0, false
		}
		n = n*10 + uint64(b[i]-'0')
	}
	if negative {
		return -int64(n), i > 0
	}
	return int64(n), i > 0
}

// uid reads a user or group; what is no such number is Unset.
func uid(b []byte) uint32 {
	n, ok := integer(b)
	switch {
	case ok && n >= 0 && n <= unset:
		return uint32(n)
	default: // kernels before 3.8 print -1 for no login
		return unset
	}
}

// hexNumber reads a number without 0x; false when it is none.
func hexNumber(b []byte) (uint64, bool) {
	if len(b) > 2 && b[0] == '0' && b[1] == 'x' {
		b = b[2:]
	}
	if len(b) == 0 || len(b) > 16 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		v := nibbles[c]
		if v > 15 {
			return 0, false
		}
		n = n<<4 | uint64(v)
	}
	return n, true
}

// octal reads a mode; false when it is none.
func octal(b []byte) (uint32, bool) {
	if len(b) == 0 || len(b) > 10 {
		return 0, false
	}
	var n uint32
	for _, c := range b {
		if c < '0' || c > '7' {
			return 0, false
		}
		n = n<<3 | uint32(c-'0')
	}
	return n, true
}
