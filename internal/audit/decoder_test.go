package audit

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

var t0 = time.Unix(1_700_000_000, 0)

// feed is a decoder under test, with what it made so far.
type feed struct {
	t    testing.TB
	d    *decoder
	now  time.Time
	made []event.Event
}

func newFeed(t testing.TB, o decoderOptions) *feed {
	o.Offset = noClock
	return &feed{t: t, d: newDecoder(o), now: t0}
}

func (f *feed) take() {
	for _, e := range f.d.take() {
		c := event.ByID(e.Head().Kind).New()
		event.ByID(e.Head().Kind).Copy(c, e)
		f.made = append(f.made, c)
	}
}

// push takes a record as a log has it, without "msg=".
func (f *feed) push(typ uint16, text string) {
	f.d.push(typ, []byte(text), f.now)
	f.take()
}

func (f *feed) wait(d time.Duration) {
	f.now = f.now.Add(d)
	f.d.flush(f.now)
	f.take()
}

// counts are the counters, "kind what reason" → number.
func (f *feed) counts() map[string]uint64 {
	out := map[string]uint64{}
	for _, c := range f.d.counts() {
		kind := "-"
		if c.Kind != 0 {
			kind = c.Kind.String()
		}
		out[strings.TrimSpace(kind+" "+c.What+" "+c.Reason)] = c.N
	}
	return out
}

func (f *feed) want(kinds ...string) {
	f.t.Helper()
	var got []string
	for _, e := range f.made {
		got = append(got, e.Head().Kind.String())
	}
	if !slices.Equal(got, kinds) {
		f.t.Errorf("made %v, want %v", got, kinds)
	}
}

func (f *feed) wantCounts(want map[string]uint64) {
	f.t.Helper()
	if diff := cmp.Diff(want, f.counts()); diff != "" {
		f.t.Errorf("counts (-want +got):\n%s", diff)
	}
}

const callText = "arch=c000003e syscall=59 success=yes exit=0 a0=55 a1=56 a2=57 a3=8 items=2 ppid=10 pid=%d auid=1000 uid=%[1]d gid=1 " +
	"euid=2 suid=3 fsuid=4 egid=5 sgid=6 fsgid=7 tty=pts3 ses=9 comm=\"c%[1]d\" exe=\"/bin/e%[1]d\" key=(null)"

// execRecords are the records of a program started by process n, which all its fields name.
func execRecords(n int) []logRecord {
	head := fmt.Sprintf("audit(1700000000.%03d:%d): ", n%1000, n)
	lines := []struct {
		typ  uint16
		text string
	}{
		{typeSyscall, fmt.Sprintf(callText, n)},
		{typeExecve, fmt.Sprintf(`argc=2 a0="a%d" a1=%X`, n, fmt.Sprintf("b %d", n))},
		{typeCwd, fmt.Sprintf(`cwd="/cwd/%d"`, n)},
		{typePath, fmt.Sprintf(`item=0 name="/bin/e%d" inode=%[1]d dev=fd:01 mode=0100755 ouid=%[1]d ogid=%[1]d rdev=00:00 nametype=NORMAL cap_fp=0`, n)},
		{typePath, `item=1 name="/lib64/ld-linux-x86-64.so.2" inode=5 dev=fd:01 mode=0100755 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL cap_fp=0`},
		{typeProctitle, fmt.Sprintf(`proctitle="a%d"`, n)},
		{typeEOE, ""},
	}
	var out []logRecord
	for _, l := range lines {
		out = append(out, logRecord{l.typ, []byte(head + l.text)})
	}
	return out
}

// checkExec reports what in an exec event is not of process n.
func checkExec(t testing.TB, e *event.Exec) {
	t.Helper()
	n := int(e.PID)
	if e.Comm != fmt.Sprint("c", n) || e.Path != fmt.Sprint("/bin/e", n) || int(e.UID) != n || e.Cwd != fmt.Sprint("/cwd/", n) && e.Cwd != "" ||
		e.Filename != fmt.Sprint("/bin/e", n) && e.Filename != "" || int(e.Inode) != n && e.Inode != 0 || int(e.OwnerUID) != n && e.OwnerUID != unset ||
		e.Time != (1_700_000_000*1000+int64(n%1000))*1_000_000 {
		t.Fatalf("an event of process %d holds what others did: %+v", n, e)
	}
	for _, a := range strings.Split(strings.TrimSuffix(e.Args, "\x00"), "\x00") {
		if !strings.HasPrefix(fmt.Sprint("a", n), a) && !strings.HasPrefix(fmt.Sprint("b ", n), a) {
			t.Fatalf("process %d has the argument %q", n, a)
		}
	}
	// Digits that are cut may still be digits: that alone cannot be seen.
	whole := fmt.Sprintf("a%d\x00b %[1]d\x00", n)
	if cut := strings.TrimSuffix(e.Args, "\x00"); !e.ArgsTruncated && e.Args != whole && !(strings.Contains(cut, "\x00") && strings.HasPrefix(whole, cut)) {
		t.Fatalf("process %d: arguments %q pass for whole", n, e.Args)
	}
}

// Whatever order events come in, each is whole: records of one event stay in order, as the
// kernel writes them, and others come between.
func TestInterleavedEventsNeverMix(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 0))
	for range 200 {
		n := 1 + r.IntN(40)
		f := newFeed(t, decoderOptions{})
		var waiting [][]logRecord
		for i := range n {
			waiting = append(waiting, execRecords(1+i))
		}
		for len(waiting) > 0 {
			i := r.IntN(min(len(waiting), 8))
			x := waiting[i][0]
			f.push(x.typ, string(x.text))
			if waiting[i] = waiting[i][1:]; len(waiting[i]) == 0 {
				waiting = slices.Delete(waiting, i, i+1)
			}
		}
		if len(f.made) != n || f.d.pending() {
			t.Fatalf("%d events became %d, pending %v", n, len(f.made), f.d.pending())
		}
		for _, e := range f.made {
			x := e.(*event.Exec)
			checkExec(t, x)
			if x.ArgsTruncated || x.Filename == "" {
				t.Fatalf("%+v is not whole", x)
			}
		}
		f.wantCounts(map[string]uint64{"exec generated": uint64(n)})
	}
}

// The same with records lost, cut, repeated and out of order: less is told, and nothing
// wrong. Each event that was begun is counted once.
func TestDamagedEventsNeverMix(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 0))
	told := 0
	for range 300 {
		f := newFeed(t, decoderOptions{})
		var all []logRecord
		n := 1 + r.IntN(30)
		for i := range n {
			for _, x := range execRecords(1 + i) {
				switch r.IntN(12) {
				case 0:
					continue
				case 1:
					cut := len(x.text) * r.IntN(100) / 100
					x.text = x.text[:cut]
				case 2:
					all = append(all, x)
				}
				all = append(all, x)
			}
		}
		for range r.IntN(20) {
			i := r.IntN(len(all))
			j := min(len(all)-1, i+r.IntN(12))
			all[i], all[j] = all[j], all[i]
		}
		for _, x := range all {
			f.push(x.typ, string(x.text))
			if r.IntN(50) == 0 {
				f.wait(time.Duration(r.IntN(3000)) * time.Millisecond)
			}
		}
		f.wait(maxWait)
		if f.d.pending() {
			t.Fatal("records wait for ever")
		}
		for _, e := range f.made {
			if x, ok := e.(*event.Exec); ok && x.PID != 0 && x.Comm != "" && x.Path != "" && x.UID != unset {
				if cutShort(x) {
					continue // its SYSCALL record was cut inside a number or a name
				}
				checkExec(t, x)
				told++
			}
		}
		balance(t, f)
	}
	if told < 1000 {
		t.Errorf("only %d events were told", told)
	}
}

// cutShort reports whether an event's own fields were cut, so that they name another process.
func cutShort(e *event.Exec) bool {
	n := fmt.Sprint(e.PID)
	return e.Comm != "c"+n || e.Path != "/bin/e"+n || fmt.Sprint(e.UID) != n ||
		e.Cwd != "" && e.Cwd != "/cwd/"+n && strings.HasPrefix("/cwd/"+n, e.Cwd) ||
		e.Filename != "" && e.Filename != "/bin/e"+n && strings.HasPrefix("/bin/e"+n, e.Filename) ||
		e.Inode != 0 && fmt.Sprint(e.Inode) != n && strings.HasPrefix(n, fmt.Sprint(e.Inode)) ||
		e.OwnerUID != unset && fmt.Sprint(e.OwnerUID) != n && strings.HasPrefix(n, fmt.Sprint(e.OwnerUID))
}

// balance checks that what was generated is what was told, left out and lost.
func balance(t testing.TB, f *feed) {
	t.Helper()
	made := map[event.ID]uint64{}
	for _, e := range f.made {
		made[e.Head().Kind]++
	}
	for _, c := range f.d.counts() {
		switch c.What {
		case event.Generated:
			made[c.Kind] -= c.N
		case event.Lost, event.Filtered:
			made[c.Kind] += c.N
		}
	}
	for kind, n := range made {
		if n != 0 {
			t.Errorf("%v: %d more told, left out and lost than generated: %v", kind, int64(n), f.counts())
		}
	}
}

// An event without its end is told when it has waited, or when a thousand others began
// since, and not before.
func TestMissingEnd(t *testing.T) {
	x := execRecords(1)
	without := func(types ...uint16) *feed {
		f := newFeed(t, decoderOptions{})
		for _, r := range x {
			if !slices.Contains(types, r.typ) {
				f.push(r.typ, string(r.text))
			}
		}
		return f
	}
	f := without(typeEOE) // PROCTITLE is the last but for it
	f.want("exec")
	f.push(typeEOE, string(x[6].text))
	f.want("exec")
	f.wantCounts(map[string]uint64{"exec generated": 1})

	f = without(typeEOE, typeProctitle)
	f.want()
	f.wait(maxWait - time.Millisecond)
	f.want()
	f.wait(time.Millisecond)
	f.want("exec")
	f.wantCounts(map[string]uint64{"exec generated": 1, "- evicted no_end": 1})

	f = without(typeEOE, typeProctitle)
	f.now = f.now.Add(lateWait)
	f.push(typeSyscall, "audit(1700000000.001:1002): arch=c000003e syscall=231 a0=0 items=0 ppid=1 pid=2 uid=0")
	f.want("exec")

	f = without(typeEOE, typeProctitle)
	f.now = f.now.Add(lateWait)
	f.push(typeSyscall, "audit(1700000000.001:900): arch=c000003e syscall=231 a0=0 items=0 ppid=1 pid=2 uid=0")
	f.want()
}

// The serial starts again after 4294967295.
func TestSerialWraps(t *testing.T) {
	f := newFeed(t, decoderOptions{})
	for i, serial := range []uint32{1<<32 - 2, 1<<32 - 1, 0, 1, 2} {
		for _, x := range execRecords(1 + i)[:5] {
			text := strings.Replace(string(x.text), fmt.Sprintf(":%d)", 1+i), fmt.Sprintf(":%d)", serial), 1)
			f.push(x.typ, text)
		}
	}
	f.now = f.now.Add(lateWait)
	f.push(typeSyscall, "audit(1700000000.001:3): arch=c000003e syscall=231 a0=0 items=0 ppid=1 pid=2 uid=0")
	f.want() // none is a thousand behind
	f.push(typeSyscall, "audit(1700000000.001:1000): arch=c000003e syscall=231 a0=0 items=0 ppid=1 pid=2 uid=0")
	f.want("exec", "exec") // but these two are now
	f.wait(maxWait)
	if len(f.made) != 7 {
		t.Errorf("%d events", len(f.made))
	}
}

// What comes again of an event that was told is no event.
func TestReplay(t *testing.T) {
	f := newFeed(t, decoderOptions{})
	login := "audit(1700000000.001:77): pid=5 uid=0 old-auid=4294967295 auid=1000 tty=(none) old-ses=4294967295 ses=3 res=1"
	for range 2 {
		for _, x := range execRecords(1) {
			f.push(x.typ, string(x.text))
		}
		f.push(typeLogin, login)
	}
	f.wait(maxWait)
	f.want("exec", "user")
	f.wantCounts(map[string]uint64{"exec generated": 1, "user generated": 1, "- filtered repeated": 6, "- generated": 6})
}

// More events than can wait: the oldest are told as they are, and memory stays bounded.
func TestBounds(t *testing.T) {
	f := newFeed(t, decoderOptions{})
	for i := range 3 * maxGroups {
		f.push(typeSyscall, string(execRecords(1 + i)[0].text))
	}
	if f.d.r.n > maxGroups {
		t.Errorf("%d events wait", f.d.r.n)
	}
	for _, e := range f.made {
		checkExec(t, e.(*event.Exec))
	}
	if len(f.made) != 2*maxGroups || f.counts()["- evicted too_many_events"] != 2*maxGroups {
		t.Errorf("%d events, %v", len(f.made), f.counts())
	}

	f = newFeed(t, decoderOptions{})
	long := strings.Repeat("41", 3700)
	for i := range 20 {
		head := fmt.Sprintf("audit(1700000000.001:%d): ", 1+i)
		f.push(typeSyscall, head+fmt.Sprintf(callText, i))
		for j := range 1000 { // 7 MB each
			f.push(typeExecve, head+fmt.Sprintf("a%d=%s", j, long))
		}
		if f.d.r.bytes > maxBytes+maxGroupBytes {
			t.Fatalf("%d bytes wait", f.d.r.bytes)
		}
	}
	f.wait(maxWait)
	if len(f.made) != 20 {
		t.Errorf("%d events", len(f.made))
	}
	for _, e := range f.made {
		x := e.(*event.Exec)
		if !x.ArgsTruncated || len(x.Args) > maxArguments {
			t.Errorf("%d bytes of arguments, truncated %v", len(x.Args), x.ArgsTruncated)
		}
	}
	kept := 0
	for g := f.d.r.free; g != nil; g = g.next {
		kept += cap(g.text)
	}
	if kept > maxSpare*keepBytes {
		t.Errorf("%d bytes are kept for later", kept)
	}
}

// A record without its head, or an event without its call, makes no row.
func TestNotWhole(t *testing.T) {
	for _, c := range []struct {
		name  string
		typ   uint16
		texts []string
		want  map[string]uint64
	}{
		{"no head", typeSyscall, []string{"arch=c000003e syscall=59"}, map[string]uint64{"- lost malformed": 1, "- generated": 1}},
		{"nothing", typeSyscall, []string{""}, map[string]uint64{"- lost malformed": 1, "- generated": 1}},
		{"half a head", typeEOE, []string{"audit(1700000000.0"}, map[string]uint64{"- lost malformed": 1, "- generated": 1}},
		{"serial beyond 32 bits", typeEOE, []string{"audit(1700000000.001:4294967296):"}, map[string]uint64{"- lost malformed": 1, "- generated": 1}},
		{"call without pid", typeSyscall, []string{"audit(1.001:1): arch=c000003e syscall=59 success=yes"}, map[string]uint64{"- lost malformed": 1, "- generated": 1, "- evicted no_end": 1}},
		{"arguments without call", typeExecve, []string{`audit(1.001:1): argc=1 a0="x"`}, map[string]uint64{"exec lost incomplete": 1, "exec generated": 1}},
		{"path without call", typePath, []string{`audit(1.001:1): item=0 name="x"`}, map[string]uint64{"- lost incomplete": 1, "- generated": 1}},
		{"end alone", typeEOE, []string{"audit(1.001:1): "}, map[string]uint64{}},
		{"call that nobody asked for", typeSyscall, []string{"audit(1.001:1): arch=c000003e syscall=39 success=yes exit=1 ppid=1 pid=1 uid=0"},
			map[string]uint64{"- filtered no_kind": 1, "- generated": 1, "- evicted no_end": 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFeed(t, decoderOptions{})
			for _, text := range c.texts {
				f.push(c.typ, text)
			}
			f.wait(maxWait)
			f.want()
			f.wantCounts(c.want)
		})
	}
}

// A decision of a security module is told although its call may not end for long.
func TestDecisionBeforeItsCall(t *testing.T) {
	f := newFeed(t, decoderOptions{})
	const head = "audit(1700000000.001:5): "
	f.push(typeAVC, head+`avc:  denied  { accept } for  pid=9 comm="x" scontext=a tcontext=b tclass=tcp_socket permissive=0`)
	f.wait(loneWait)
	f.want("policy")
	f.wait(time.Hour)
	f.push(typeSyscall, head+"arch=c000003e syscall=43 success=no exit=-13 a0=3 items=0 ppid=1 pid=9 auid=0 uid=0 ses=1")
	f.push(typeEOE, head)
	f.want("policy", "accept")
	if p := f.made[0].(*event.Policy); p.PID != 9 || p.UID != unset || p.Result != "denied" {
		t.Errorf("%+v", p)
	}
}

// Kinds that nobody asked for are counted, and own changes of the configuration left out.
func TestLeftOut(t *testing.T) {
	f := newFeed(t, decoderOptions{Kinds: []event.ID{event.KindUser}, Self: 42})
	for _, x := range execRecords(1) {
		f.push(x.typ, string(x.text))
	}
	for i, pid := range []int{42, 43} {
		head := fmt.Sprintf("audit(1700000000.002:%d): ", 10+i)
		f.push(typeConfigChange, head+`auid=0 ses=1 op=add_rule key="goshawk" list=4 res=1`)
		f.push(typeSyscall, head+fmt.Sprintf(`arch=c000003e syscall=44 success=yes exit=1068 a0=3 items=0 ppid=1 pid=%d auid=0 uid=0 gid=0 ses=1 comm="x" exe="/x"`, pid))
		f.push(typeEOE, head)
	}
	f.want("user")
	if u := f.made[0].(*event.User); u.PID != 43 || u.Operation != "add_rule" || u.Result != "success" || u.Path != "/x" {
		t.Errorf("%+v", u)
	}
	f.wantCounts(map[string]uint64{"exec filtered kind": 1, "exec generated": 1, "user filtered own": 1, "user generated": 2})
}

func TestTakeBatch(t *testing.T) {
	d := newDecoder(decoderOptions{})
	if d.takeBatch() != nil {
		t.Error("a batch of nothing")
	}
	for i := range 3 {
		for _, x := range execRecords(1 + i) {
			d.push(x.typ, x.text, t0)
		}
	}
	b := d.takeBatch()
	if b == nil || len(b.Events) != 3 || d.take() != nil || d.takeBatch() != nil {
		t.Fatalf("%+v", b)
	}
	for _, x := range execRecords(9) {
		d.push(x.typ, x.text, t0)
	}
	checkExec(t, b.Events[0].(*event.Exec))
	if len(d.take()) != 1 {
		t.Error("no event after a batch was taken")
	}
	b.Release()
}

// BenchmarkExec is an event of seven records, the commonest.
func BenchmarkExec(b *testing.B) {
	o := decoderOptions{Offset: noClock}
	d := newDecoder(o)
	head := []byte("audit(1700000000.001:000000001): ")
	var records []logRecord
	for _, x := range execRecords(1) {
		records = append(records, logRecord{x.typ, append(slices.Clone(head), x.text[bytes.Index(x.text, []byte(": "))+2:]...)})
	}
	serial, n := 0, 0
	used := func() (ns float64) {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return float64(u.Utime.Nano() + u.Stime.Nano())
	}
	begun := used()
	b.ReportAllocs()
	for b.Loop() {
		serial = serial%900_000_000 + 1
		for _, x := range records {
			for i, s := len("audit(1700000000.001:000000001")-1, serial; i > len("audit(1700000000.001:")-1; i-- {
				x.text[i] = '0' + byte(s%10)
				s /= 10
			}
			d.push(x.typ, x.text, t0)
		}
		n += len(d.take())
	}
	if n != serial {
		b.Fatalf("%d events of %d", n, serial)
	}
	b.ReportMetric((used()-begun)/float64(b.N)/float64(len(records)), "cpu-ns/record")
}

// TestOwnChange leaves out changes of ours that their records do not say are ours.
func TestOwnChange(t *testing.T) {
	c := &control{}
	c.changing("add_rule")
	c.changing("add_rule")
	c.changing("audit_enabled=1")
	for _, r := range []struct {
		text string
		own  bool
	}{
		{`auid=4294967295 ses=4294967295 op=add_rule key="other" list=4 res=1`, false},
		{`auid=4294967295 ses=4294967295 op=add_rule key="goshawk" list=4 res=1`, true},
		{`auid=4294967295 ses=4294967295 subj=x op="add rule" key="goshawk" list=4 res=1`, true},
		{`auid=4294967295 ses=4294967295 op=add_rule key="goshawk" list=4 res=1`, false}, // a third
		{`auid=4294967295 ses=4294967295 op=add_rule key=(null) list=5 res=1`, false},
		{`auid=4294967295 ses=4294967295 op=remove_rule key="goshawk" list=4 res=1`, false},
		{`op=set audit_enabled=0 old=1 auid=4294967295 ses=4294967295 res=1`, false},
		{`audit_enabled=1 old=0 auid=4294967295 ses=4294967295 res=1`, true},
		{`op=set audit_enabled=1 old=0 auid=4294967295 ses=4294967295 res=1`, false},
		{``, false},
	} {
		if own := c.own(changeOf([]byte(r.text))); own != r.own {
			t.Errorf("%s: ours %v", r.text, own)
		}
	}
	if text := `auid=4294967295 ses=4294967295 op=remove_rule key=(null) list=4 res=1`; changeOf([]byte(text)) != "" {
		t.Error("a rule on calls without a key is ours")
	}
	c.changing("remove_rule")
	if text := `auid=4294967295 ses=4294967295 op=remove_rule key=(null) list=5 res=1`; !c.own(changeOf([]byte(text))) {
		t.Error("our rule about records is somebody's")
	}
	c.changing("remove_rule")
	c.changed = c.changed.Add(-2 * ownChangeWait)
	if c.own("remove_rule") {
		t.Error("a change of long ago hides somebody's of today")
	}
}
