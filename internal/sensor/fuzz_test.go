package sensor

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// Any bytes, as any kind: one event, or one count, and no panic.
func FuzzRecord(f *testing.F) {
	f.Add(uint8(event.KindExec), execRecord(bpf.GoshawkRecExec{Inode: 1, Nlink: 1},
		execParts{path: "a\x00b\x00", cwd: "c\x00", filename: "./a", args: "a\x00b\x00", env: "HOME=/\x00"}))
	for _, k := range event.Kinds {
		f.Add(uint8(k.ID), socketRecord(bpf.GoshawkRecSocket{Family: unix.AF_UNIX}, k.ID, "\x00abstract"))
		f.Add(uint8(k.ID), socketRecord(bpf.GoshawkRecSocket{Family: unix.AF_INET6, Result: -115, Duration: 1}, k.ID, ""))
		f.Add(uint8(k.ID), make([]byte, 300))
		f.Add(uint8(k.ID), bytes.Repeat([]byte{0xff}, 300))
	}
	f.Add(uint8(event.KindContainer), cgroupRecord(bpf.GoshawkCgroupOpCGROUP_MKDIR, "/docker/a\nb"))
	for op := range uint16(14) {
		f.Add(uint8(event.KindFile), fileRecordOf(bpf.GoshawkRecFile{Op: op, Valid: 0xff, Inode: bpf.GoshawkRecInode{Inode: 5, Dev: 8<<20 | 1, Nlink: 1}}, "f\x00d\x00/\x00", "g\x00/\x00", "text"))
	}
	rec, question := dnsExchange(f)
	f.Add(uint8(event.KindDNS), question)
	f.Add(uint8(event.KindDNS), dnsRecordOf(rec, true, query(f, 9, "a.b.", dnsmessage.TypeA)))
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		d := newDrain(t)
		if len(b) >= 128 {
			h := as[bpf.GoshawkRecHead](b[:len(b):len(b)])
			h.Kind = uint16(kind)
			h.Flags &^= uint32(bpf.GoshawkFlagFLAG_PIVOT) // asks the kernel
			if h.Size == 0 || h.Size > 1<<20 {
				h.Size = uint32(len(b))
			}
			if c := raw(*h); !bytes.Equal(b[:128], c) { // as() made a copy: b is not aligned
				copy(b, c)
			}
		}
		in := bytes.Clone(b)
		if err := d.record(b); err != nil {
			t.Fatal(err)
		}
		d.s.held.flush(d)
		if !bytes.Equal(in, b) {
			t.Error("the decoder wrote to the record")
		}
		n := uint64(len(d.batch.Events))
		for i := range d.s.decode.count {
			c := &d.s.decode.count[i]
			n += c.malformed.Load() + c.merged.Load() + c.answers.Load() + c.repeated.Load() + c.own.Load() + c.threads.Load()
		}
		w := d.s.watched
		if n += w.unwatched.Load() + w.unchanged.Load() + w.cut.Load(); n != 1+w.more.Load() {
			t.Errorf("one record became %d events and counts", n)
		}
		for _, e := range d.batch.Events {
			if len(event.AppendJSON(nil, e)) == 0 {
				t.Error("no JSON")
			}
		}
	})
}

func FuzzDNS(f *testing.F) {
	f.Add([]byte(query(f, 1, "www.example.org.", dnsmessage.TypeA)))
	f.Add([]byte(reply(f, 1, 0, "a.b.", dnsmessage.TypeMX,
		&dnsmessage.MXResource{Pref: 1, MX: dnsmessage.MustNewName("m.a.b.")},
		&dnsmessage.SRVResource{Port: 1, Target: dnsmessage.MustNewName("s.a.b.")},
		&dnsmessage.TXTResource{TXT: []string{"x", "y"}},
		&dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("a.b.")})))
	f.Add([]byte("\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	f.Add([]byte("\x00\x01\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x01\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m dnsMessage
		err := m.parse(b)
		if strings.ContainsFunc(m.question, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
			t.Errorf("question %q has bytes that are not printed as they are", m.question)
		}
		if n := bytes.Count(m.answers, []byte{0}); n > maxAnswers {
			t.Errorf("%d answers", n)
		}
		// What another implementation takes, this one takes too.
		var p dnsmessage.Parser
		h, perr := p.Start(b)
		if perr != nil {
			return
		}
		q, perr := p.AllQuestions()
		if perr != nil || len(q) == 0 {
			return
		}
		if m.question == "" {
			t.Errorf("no question, want %q (%v)", q[0].Name, err)
		}
		if m.id != h.ID {
			t.Errorf("id = %d, want %d", m.id, h.ID)
		}
		want := strings.TrimSuffix(q[0].Name.String(), ".")
		if plain(want) && m.question != want {
			t.Errorf("question = %q, want %q", m.question, want)
		}
	})
}

// plain reports whether a name has nothing to escape.
func plain(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r < 0x21 || r > 0x7e || r == '\\' || r == utf8.RuneError
	})
}

func FuzzPath(f *testing.F) {
	f.Add([]byte("true\x00bin\x00usr\x00"), false)
	f.Add([]byte("true\x00bin"), true)
	f.Add([]byte("\x00\x00\x00"), false)
	f.Add([]byte(""), false)
	f.Add([]byte("/\x00a\x00"), false)
	f.Fuzz(func(t *testing.T, names []byte, cut bool) {
		d := newDecoder(&Options{})
		raw := append(make([]byte, 8), names...)
		s := bpf.GoshawkSpan{Off: 8, Len: uint32(len(names))}
		got, err := d.path(raw, s, cut)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := d.path(raw, s, cut)
		if got != again {
			t.Errorf("%q, then %q", got, again)
		}
		if strings.Contains(got, "\x00") {
			t.Errorf("%q has a zero byte", got)
		}
		if abs := strings.HasPrefix(got, "/"); abs == cut {
			t.Errorf("%q, cut %v", got, cut)
		}
		var parts []string
		for _, n := range bytes.Split(names, []byte{0}) {
			if len(n) > 0 && string(n) != "/" {
				parts = append([]string{string(n)}, parts...)
			}
		}
		want := ""
		for _, p := range parts {
			want += "/" + p
		}
		if cut {
			want = "..." + want
		} else if want == "" {
			want = "/"
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func FuzzSunPath(f *testing.F) {
	f.Add([]byte("/run/x.sock\x00\x00"))
	f.Add([]byte("\x00abstract\x00"))
	f.Add([]byte(""))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := newDecoder(&Options{}).sunPath(b)
		want := ""
		switch {
		case len(b) > 0 && b[0] == 0:
			want = "@" + string(b[1:])
		case len(b) > 0:
			want, _, _ = strings.Cut(string(b), "\x00")
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
