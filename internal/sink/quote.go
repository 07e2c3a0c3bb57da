package sink

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const hex = "0123456789abcdef"

// plain reports whether every character of s may be shown as it is. Control characters
// drive terminals, and format characters (bidirectional marks and the like) make text
// look like other text.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] >= 0x7f {
			return slowPlain(s[i:])
		}
	}
	return true
}

func slowPlain(s string) bool {
	for i, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return false
			}
		}
	}
	return true
}

// appendPlain appends s with what may not be shown written as \xNN or \uNNNN.
func appendPlain(dst []byte, s string) []byte {
	if plain(s) {
		return append(dst, s...)
	}
	return appendEscaped(dst, s, false)
}

// appendEscaped appends s with escapes that bash reads within $'…'; quoted says that it
// stands there, so that quotes and backslashes need one too.
func appendEscaped(dst []byte, s string, quoted bool) []byte {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1, r < ' ' || r == 0x7f:
			dst = appendByte(dst, s[i])
		case quoted && (r == '\'' || r == '\\'):
			dst = append(dst, '\\', byte(r))
		case unicode.IsPrint(r):
			dst = append(dst, s[i:i+n]...)
		case r > 0xffff:
			dst = append(dst, `\U`...)
			dst = appendHex(dst, r, 8)
		default:
			dst = append(dst, `\u`...)
			dst = appendHex(dst, r, 4)
		}
		i += n
	}
	return dst
}

func appendByte(dst []byte, b byte) []byte {
	switch b {
	case '\n':
		return append(dst, '\\', 'n')
	case '\t':
		return append(dst, '\\', 't')
	case '\r':
		return append(dst, '\\', 'r')
	}
	return append(dst, '\\', 'x', hex[b>>4], hex[b&15])
}

func appendHex(dst []byte, r rune, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		dst = append(dst, hex[r>>shift&15])
	}
	return dst
}

// needsQuotes are the characters that a shell reads as something else, and space.
const needsQuotes = " !\"#$&'()*;<>?[\\]^`{|}~"

// appendQuoted appends s as one word of a shell's command line: pasted into bash, it is s
// again.
func appendQuoted(dst []byte, s string) []byte {
	switch {
	case s == "":
		return append(dst, "''"...)
	case !plain(s):
		dst = append(dst, "$'"...)
		return append(appendEscaped(dst, s, true), '\'')
	case !strings.ContainsAny(s, needsQuotes):
		return append(dst, s...)
	}
	dst = append(dst, '\'')
	for {
		at := strings.IndexByte(s, '\'')
		if at < 0 {
			break
		}
		dst = append(append(dst, s[:at]...), `'\''`...)
		s = s[at+1:]
	}
	return append(append(dst, s...), '\'')
}

// appendBytes appends a number of bytes for people: 12 B, 3.4 KB, 1.2 MB.
func appendBytes(dst []byte, n uint64) []byte {
	if n < 1000 {
		return append(strconv.AppendUint(dst, n, 10), " B"...)
	}
	f := float64(n)
	for _, unit := range []string{" KB", " MB", " GB"} {
		if f /= 1000; f < 999.95 {
			return append(strconv.AppendFloat(dst, f, 'f', 1, 64), unit...)
		}
	}
	return append(strconv.AppendFloat(dst, f/1000, 'f', 1, 64), " TB"...)
}

// appendDuration appends a duration for people, in the largest unit that fits.
func appendDuration(dst []byte, ns uint64) []byte {
	switch f := float64(ns); {
	case ns < 1000:
		return append(strconv.AppendUint(dst, ns, 10), " ns"...)
	case f < 999.5e3:
		return append(strconv.AppendFloat(dst, f/1e3, 'f', 0, 64), " us"...)
	case f < 999.95e6:
		return append(strconv.AppendFloat(dst, f/1e6, 'f', 1, 64), " ms"...)
	case ns < 60e9:
		return append(strconv.AppendFloat(dst, f/1e9, 'f', 1, 64), " s"...)
	case ns < 3600e9:
		dst = append(strconv.AppendUint(dst, ns/60e9, 10), " min "...)
		return append(strconv.AppendUint(dst, ns%60e9/1e9, 10), " s"...)
	}
	dst = append(strconv.AppendUint(dst, ns/3600e9, 10), " h "...)
	return append(strconv.AppendUint(dst, ns%3600e9/60e9, 10), " min"...)
}
