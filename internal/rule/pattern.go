package rule

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// pattern is a text with wildcards: parts[0] any(0) parts[1] any(1) …
type pattern struct {
	parts []part
}

// part is a run of bytes, or a wildcard.
type part struct {
	text string
	wild byte // 0: text; '*': any bytes; '?': one character
}

// parsePattern reads Sigma's wildcards: * and ?, which a backslash takes the meaning from,
// as it does from itself before one of the two or itself. Elsewhere it is a character.
func parsePattern(s string) pattern {
	var p pattern
	var run []byte
	flush := func() {
		if len(run) > 0 {
			p.parts = append(p.parts, part{text: string(run)})
			run = run[:0]
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && (s[i+1] == '*' || s[i+1] == '?' || s[i+1] == '\\'):
			i++
			run = append(run, s[i])
		case c == '*':
			flush()
			p.anything()
		case c == '?':
			flush()
			p.parts = append(p.parts, part{wild: '?'})
		default:
			run = append(run, c)
		}
	}
	flush()
	return p
}

// literalPattern is a text without wildcards.
func literalPattern(s string) pattern {
	if s == "" {
		return pattern{}
	}
	return pattern{parts: []part{{text: s}}}
}

func (p *pattern) anything() {
	if n := len(p.parts); n == 0 || p.parts[n-1].wild != '*' {
		p.parts = append(p.parts, part{wild: '*'})
	}
}

// open returns p with anything before and after it.
func (p pattern) open(before, after bool) pattern {
	var q pattern
	if before {
		q.anything()
	}
	for _, x := range p.parts {
		if x.wild == '*' {
			q.anything()
			continue
		}
		q.parts = append(q.parts, x)
	}
	if after {
		q.anything()
	}
	return q
}

// lower returns p in lower case.
func (p pattern) lower() pattern {
	q := pattern{parts: make([]part, len(p.parts))}
	for i, x := range p.parts {
		q.parts[i] = part{text: string(appendLower(nil, x.text)), wild: x.wild}
	}
	return q
}

// key tells patterns apart.
func (p pattern) key() string {
	var b strings.Builder
	for _, x := range p.parts {
		b.WriteByte(x.wild)
		b.WriteString(x.text)
		b.WriteByte(0xff)
	}
	return b.String()
}

// literal returns p as one literal, when it is no more than that.
func (p pattern) literal() (text string, f form, ok bool) {
	parts := p.parts
	f = whole
	if len(parts) > 0 && parts[0].wild == '*' {
		parts, f = parts[1:], atEnd
	}
	if n := len(parts); n > 0 && parts[n-1].wild == '*' {
		parts = parts[:n-1]
		if f == atEnd {
			f = anywhere
		} else {
			f = atStart
		}
	}
	if len(parts) != 1 || parts[0].wild != 0 {
		return "", 0, false
	}
	return parts[0].text, f, true
}

// longest is the longest text that every match has in it.
func (p pattern) longest() string {
	var s string
	for _, x := range p.parts {
		if len(x.text) > len(s) {
			s = x.text
		}
	}
	return s
}

// at returns how many bytes of the beginning of value x takes, or -1.
func (x *part) at(value string) int {
	if x.wild == '?' {
		if value == "" {
			return -1
		}
		_, n := utf8.DecodeRuneInString(value)
		return n
	}
	if !strings.HasPrefix(value, x.text) {
		return -1
	}
	return len(x.text)
}

// match reports whether value is as p says, in time of their lengths multiplied at most:
// what stands between two * is taken where it is found first.
func (p pattern) match(value string) bool {
	i := 0
	for ; i < len(p.parts) && p.parts[i].wild != '*'; i++ {
		n := p.parts[i].at(value)
		if n < 0 {
			return false
		}
		value = value[n:]
	}
	for i < len(p.parts) {
		i++ // after the *
		end := i
		for end < len(p.parts) && p.parts[end].wild != '*' {
			end++
		}
		if i == end {
			return true // it was the last
		}
		for {
			if s := p.parts[i].text; s != "" {
				k := strings.Index(value, s)
				if k < 0 {
					return false
				}
				value = value[k:]
			}
			n := p.run(i, end, value)
			if n >= 0 && (end < len(p.parts) || n == len(value)) {
				value = value[n:]
				break
			}
			if value == "" {
				return false
			}
			value = value[1:]
		}
		i = end
	}
	return value == ""
}

// run returns how many bytes of the beginning of value parts[i:end] take, or -1.
func (p pattern) run(i, end int, value string) int {
	taken := 0
	for ; i < end; i++ {
		n := p.parts[i].at(value[taken:])
		if n < 0 {
			return -1
		}
		taken += n
	}
	return taken
}

// appendLower appends s in lower case, bytes that are no UTF-8 as they are.
func appendLower(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			if 'A' <= b && b <= 'Z' {
				b += 'a' - 'A'
			}
			dst = append(dst, b)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n <= 1 {
			dst = append(dst, b)
			i++
			continue
		}
		dst = utf8.AppendRune(dst, unicode.ToLower(r))
		i += n
	}
	return dst
}

// ascii reports whether s is that.
func ascii(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// dashes are what Sigma's windash takes for one another.
var dashes = []string{"-", "/", "\u2013", "\u2014", "\u2015"}

// dashed returns s with each of the dashes at the beginning of its words.
func dashed(s string) []string {
	out := []string{s}
	for _, d := range dashes {
		var b bytes.Buffer
		for i := 0; i < len(s); i++ {
			first := i == 0 || !wordByte(s[i-1])
			if (s[i] == '-' || s[i] == '/') && first && i+1 < len(s) && wordByte(s[i+1]) {
				b.WriteString(d)
				continue
			}
			b.WriteByte(s[i])
		}
		if b.String() != s {
			out = append(out, b.String())
		}
	}
	return out
}

func wordByte(b byte) bool {
	return b == '_' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || b >= utf8.RuneSelf
}
