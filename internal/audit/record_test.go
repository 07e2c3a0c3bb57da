package audit

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
)

func TestParseHead(t *testing.T) {
	for _, c := range []struct {
		in   string
		want stamp
		rest string
		ok   bool
	}{
		{"audit(1364481363.243:24287): arch=1", stamp{1364481363, 243, 24287}, "arch=1", true},
		{"audit(1364481363.243:24287):  cwd=\"/\"", stamp{1364481363, 243, 24287}, " cwd=\"/\"", true},
		{"audit(1.0:0):", stamp{1, 0, 0}, "", true},
		{"audit(99999999999.999:4294967295): ", stamp{99999999999, 999, 4294967295}, "", true},
		{"audit(1.1000:1): ", stamp{}, "", false},
		{"audit(1.1:4294967296): ", stamp{}, "", false},
		{"audit(99999999999999999999.1:1): ", stamp{}, "", false},
		{"audit(-1.1:1): ", stamp{}, "", false},
		{"audit(1.1:1) ", stamp{}, "", false},
		{"audit(1.1:1)", stamp{}, "", false},
		{"audit(.1:1): ", stamp{}, "", false},
		{"audit(1.1:): ", stamp{}, "", false},
		{"audit", stamp{}, "", false},
		{"", stamp{}, "", false},
	} {
		got, rest, ok := parseHead([]byte(c.in))
		if got != c.want && ok || string(rest) != c.rest || ok != c.ok {
			t.Errorf("%q: %v, %q, %v", c.in, got, rest, ok)
		}
	}
}

// TestPairs shows each pair as key=value with its quote, one a word.
func TestPairs(t *testing.T) {
	for in, want := range map[string]string{
		`a=1 b="x y" c=(null) d=`:                  `a=1 b="x y" c=(null) d=`,
		`key=(none), x=1) y=2`:                     `key=(none), x=1 y=2`,
		`(hostname=?, addr=10.0.0.1, res=success)`: `hostname=? addr=10.0.0.1 res=success`,
		"a=1\x1dA=\"one\" B=2":                     `a=1`,
		"a=\"x\"\x1dA=\"one\"":                     `a="x"`,
		"a=1\nb=2":                                 `a=1`,
		"a=1\x00":                                  `a=1`,
		`msg='op=login acct="o'neil" res=failed'`:  `msg='op=login acct="o'neil" res=failed'`,
		"msg='x' \x1dUID='y'":                      `msg='x'`,
		`msg='never ends`:                          `msg='never ends`,
		`a="never ends b=2`:                        `a="never ends b=2`,
		`avc:  denied  { read write } for  pid=1`:  `avc: denied {read write for pid=1`,
		`avc:  denied  { read`:                     `avc: denied { read`,
		`user pid=1`:                               `user pid=1`,
		`=x`:                                       `=x`,
		`  `:                                       ``,
		``:                                         ``,
		`((((`:                                     ``,
		`(null)`:                                   `(null)`,
		`saddr=0200 SADDR={ saddr_fam=inet laddr=1.2.3.4 }`: `saddr=0200 SADDR={ saddr_fam=inet laddr=1.2.3.4 {`,
	} {
		var got []string
		f := pairs{[]byte(in)}
		for x, ok := f.next(); ok; x, ok = f.next() {
			s := string(x.key)
			if x.key != nil {
				s += "="
			}
			if x.quote != 0 {
				s += string(x.quote)
			}
			s += string(x.value)
			if x.quote != 0 && !x.cut && x.quote != '{' {
				s += string(x.quote)
			}
			got = append(got, s)
		}
		if in == `saddr=0200 SADDR={ saddr_fam=inet laddr=1.2.3.4 }` {
			continue // what auditd adds follows 0x1d, and is only not to hang
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q: %q, want %q", in, s, want)
		}
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct{ in, untrusted, claimed string }{
		{`x="two words"`, "two words", "two words"},
		{`x=2F746D702F612062`, "/tmp/a b", "/tmp/a b"},
		{`x=2f746d702f612062`, "/tmp/a b", "/tmp/a b"},
		{`x=(null)`, "", ""},
		{`x=(none)`, "", ""},
		{`x=?`, "?", ""},
		{`x="?"`, "?", "?"},
		{`x=FF00`, "\xff\x00", "\xff\x00"},
		{`x=2F746D7`, "/tm", "2F746D7"}, // the last digit was cut
		{`x=facade`, "\xfa\xca\xde", "\xfa\xca\xde"},
		{`x=6162`, "ab", "6162"}, // a word that needs no encoding was not encoded
		{`x=root`, "root", "root"},
		{`x=`, "", ""},
	} {
		f := pairs{[]byte(c.in)}
		x, _ := f.next()
		if got := string(x.untrusted(nil)); got != c.untrusted {
			t.Errorf("%s: untrusted %q, want %q", c.in, got, c.untrusted)
		}
		if got := string(x.claimed(nil)); got != c.claimed {
			t.Errorf("%s: claimed %q, want %q", c.in, got, c.claimed)
		}
	}
}

func TestNumbers(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0 true", "-13": "-13 true", "-13(Permission denied)": "-13 true", "9223372036854775808": "0 false", "x": "0 false",
		"": "0 false", "-": "0 false", "99999999999999999999": "0 false", "9223372036854775807": "0 false", "922337203685477579": "922337203685477579 true",
	} {
		n, ok := integer([]byte(in))
		if got := fmt.Sprint(n, ok); got != want {
			t.Errorf("integer(%q) = %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]uint32{"0": 0, "4294967295": unset, "-1": unset, "4294967296": unset, "unset": unset, "1000": 1000, "": unset} {
		if got := uid([]byte(in)); got != want {
			t.Errorf("uid(%q) = %d, want %d", in, got, want)
		}
	}
	for in, want := range map[string]string{"c000003e": "3221225534 true", "0x7f": "127 true", "ffffffffffffffff": "18446744073709551615 true", "10000000000000000": "0 false", "": "0 false", "0x": "0 false", "g": "0 false"} {
		n, ok := hexNumber([]byte(in))
		if got := fmt.Sprint(n, ok); got != want {
			t.Errorf("hexNumber(%q) = %s, want %s", in, got, want)
		}
	}
}

// Numbers of calls mean nothing without the architecture.
func TestCallNames(t *testing.T) {
	for _, c := range []struct {
		arch uint32
		nr   uint64
		want string
	}{
		{archX86_64, 59, "execve"}, {archI386, 59, "oldolduname"}, {archI386, 11, "execve"}, {archX86_64, 11, "munmap"},
		{archAArch64, 221, "execve"}, {archARM, 11, "execve"}, {archAArch64, 59, "pipe2"}, {archX86_64, x32Bit | 520, "execve"},
		{archX86_64, 520, ""}, {archX86_64, x32Bit | 59, "execve"}, {archI386, x32Bit | 11, ""}, {archX86_64, 100_000, ""},
		{archX86_64, 1<<64 - 1, ""}, {archX86_64, x32Bit | 1000, ""}, {0x80000016, 11, ""}, {0, 59, ""}, {archAArch64, 435, "clone3"},
	} {
		if got := callName(c.arch, c.nr); got != c.want {
			t.Errorf("callName(%x, %d) = %q, want %q", c.arch, c.nr, got, c.want)
		}
		def := defOf(c.arch, c.nr)
		if def != nil && def.name != c.want {
			t.Errorf("defOf(%x, %d) is %s, not %q", c.arch, c.nr, def.name, c.want)
		}
	}
	for i := range callDefs {
		found := false
		for _, arch := range []uint32{archX86_64, archI386, archAArch64, archARM} {
			for nr := range uint64(600) {
				found = found || defOf(arch, nr) == &callDefs[i]
			}
		}
		if !found {
			t.Errorf("no architecture has a call %s", callDefs[i].name)
		}
	}
}

// Any text: the tokenizer ends, and hands out no byte that is not of the text.
func FuzzPairs(f *testing.F) {
	for _, log := range logs(f) {
		for _, r := range log {
			f.Add(r.text)
		}
	}
	f.Add([]byte("a='b\x1dc'd e=\"f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		p := pairs{b}
		total := 0
		for x, ok := p.next(); ok; x, ok = p.next() {
			if total += len(x.key) + len(x.value) + 1; total > 2*len(b)+2 {
				t.Fatal("more is handed out than there is")
			}
			if n := len(x.untrusted(nil)); n > len(x.value) {
				t.Fatalf("%d bytes of %d", n, len(x.value))
			}
			x.claimed(nil)
			integer(x.value)
			hexNumber(x.value)
			octal(x.value)
			argument(x.key)
		}
		if !bytes.Equal(in, b) {
			t.Fatal("the record was changed")
		}
	})
}

func logs(t testing.TB) (all [][]logRecord) {
	names, _ := filepath.Glob("testdata/*.log")
	if len(names) == 0 {
		t.Fatal("no logs")
	}
	for _, name := range names {
		all = append(all, readLog(t, name))
	}
	return all
}

// encodeRecords makes one text of records, as FuzzDecoder takes it: the type in two bytes,
// and the record up to a newline.
func encodeRecords(records []logRecord) []byte {
	var b []byte
	for _, r := range records {
		b = append(append(append(b, byte(r.typ>>8), byte(r.typ)), r.text...), '\n')
	}
	return b
}

// Any records, of any types: no panic, bounded memory, and what is generated is told, left
// out or lost. The records given stay as they are.
func FuzzDecoder(f *testing.F) {
	for _, log := range logs(f) {
		f.Add(encodeRecords(log))
		for i := 0; i+8 <= len(log); i += 8 {
			f.Add(encodeRecords(log[i : i+8]))
		}
	}
	for _, c := range decodeCases {
		f.Add(encodeRecords(c.records(f)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		feed := newFeed(t, decoderOptions{
			FDPath: func(uint32, int32, string, uint64) string { return "/fd" },
			Thread: func(tid uint32) threadAnswer { return threadAnswer(tid % 3) },
			Own:    func(change string) bool { return len(change)%2 == 1 },
		})
		for line := range bytes.SplitSeq(b, []byte("\n")) {
			if len(line) < 2 {
				continue
			}
			feed.now = feed.now.Add(time.Millisecond)
			feed.d.push(uint16(line[0])<<8|uint16(line[1]), line[2:], feed.now)
			feed.take()
		}
		if !bytes.Equal(in, b) {
			t.Fatal("a record was changed")
		}
		feed.wait(maxWait)
		feed.wait(holdFork)
		if feed.d.pending() {
			t.Fatal("something waits for ever")
		}
		balance(t, feed)
		for _, e := range feed.made {
			if e.Head().Source != "audit" || event.ByID(e.Head().Kind) == nil {
				t.Fatalf("%+v", e)
			}
			event.AppendJSON(nil, e)
		}
	})
}

// Records of some events in an order that the fuzzer chooses, some lost: no row is made of
// two events.
func FuzzReassembly(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 1, 0, 1, 0x82, 2, 3, 1, 0, 2, 0, 1, 2, 0xff, 0, 0, 1, 1, 2, 2})
	f.Fuzz(func(t *testing.T, order []byte) {
		feed := newFeed(t, decoderOptions{})
		var at [16]int
		for _, c := range order {
			n := int(c & 15)
			x := execRecords(1 + n)
			switch {
			case at[n] == len(x):
				at[n] = 0 // again, all of it
			case c&0x80 == 0:
				feed.push(x[at[n]].typ, string(x[at[n]].text))
			case c&0x40 != 0:
				feed.wait(time.Duration(c&0x30) * 50 * time.Millisecond)
			}
			at[n]++
		}
		feed.wait(maxWait)
		for _, e := range feed.made {
			checkExec(t, e.(*event.Exec))
		}
		balance(t, feed)
	})
}

func TestArgumentKeys(t *testing.T) {
	for in, want := range map[string]string{
		"a0": "0 -1 true", "a12": "12 -1 true", "a3[0]": "3 0 true", "a3[17]": "3 17 true", "a3_len": "0 0 false", "argc": "0 0 false",
		"a": "0 0 false", "": "0 0 false", "a1[": "1 0 false", "a1[2": "1 2 false", "a1[2]x": "1 2 false", "b0": "0 0 false",
		"a99999999999": "0 0 false",
	} {
		n, part, ok := argument([]byte(in))
		if !ok {
			n, part = 0, 0
			want = strings.Fields("0 0 " + want[strings.LastIndexByte(want, ' ')+1:])[2]
			if want != "false" {
				t.Errorf("%q is no argument", in)
			}
			continue
		}
		if diff := cmp.Diff(want, fmt.Sprint(n, part, ok)); diff != "" {
			t.Errorf("%q: %s", in, diff)
		}
	}
}
