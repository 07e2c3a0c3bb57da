package event

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestKindsAreWhole(t *testing.T) {
	for id, name := range names {
		if k := ByID(ID(id)); (k == nil) != (name == "") {
			t.Errorf("number %d is called %q, and its kind is %v", id, name, k)
		}
	}
	for i, k := range Kinds {
		if i > 0 && k.ID <= Kinds[i-1].ID {
			t.Errorf("Kinds[%d] has number %d: the list goes in order", i, k.ID)
		}
		if k.Name != names[k.ID] || k.Name == "" {
			t.Errorf("kind %d is called %q and %q", k.ID, k.Name, names[k.ID])
		}
		if ByID(k.ID) != k || ByName(k.Name) != k {
			t.Errorf("kind %q is not found by number and name", k.Name)
		}
		e := k.New()
		b := NewBatch()
		if got := b.Add(k.ID); got == nil || got.Head().Kind != k.ID {
			t.Errorf("a batch makes %v for kind %q", got, k.Name)
		}
		b.Release()
		seen := map[string]bool{}
		for j := range k.Columns {
			c := &k.Columns[j]
			if seen[c.Name] {
				t.Errorf("%s.%s is there twice", k.Name, c.Name)
			}
			seen[c.Name] = true
			if c.Doc == "" || strings.HasSuffix(c.Doc, ".") {
				t.Errorf("%s.%s: description %q", k.Name, c.Name, c.Doc)
			}
			if !c.Stored() && len(c.Uses) == 0 {
				t.Errorf("%s.%s is computed from nothing", k.Name, c.Name)
			}
			for _, u := range c.Uses {
				if from := k.Column(u); from == nil || !from.Stored() {
					t.Errorf("%s.%s uses %q, which is not stored", k.Name, c.Name, u)
				}
			}
			if c.Int != nil { // what is written is read back
				c.SetInt(e, 1)
				if got := c.Int(e); got != 1 {
					t.Errorf("%s.%s: wrote 1, read %d", k.Name, c.Name, got)
				}
			}
			if c.Str != nil {
				c.SetStr(e, "x")
				if got := c.Str(e); got != "x" {
					t.Errorf("%s.%s: wrote x, read %q", k.Name, c.Name, got)
				}
			}
		}
		if c := k.New(); !k.Copy(c, e) || !reflect.DeepEqual(c, e) || k.Copy(c, new(Header)) {
			t.Errorf("kind %s: a copy is %+v, not %+v", k.Name, c, e)
		}
		if k.Doc == "" || strings.HasSuffix(k.Doc, ".") {
			t.Errorf("kind %s: description %q", k.Name, k.Doc)
		}
	}
	if ByID(0) != nil || ByID(MaxKind) != nil || ByID(200) != nil || ByName("nosuch") != nil {
		t.Error("a kind is found that is not there")
	}
}

func TestAppendJSON(t *testing.T) {
	e := &Exec{Header: Header{Kind: KindExec, EID: 7, Time: 1700000000123456789, NTime: 55, Source: "ebpf",
		Fidelity: FidelityKernel, PID: 42, TID: 43, PPID: 1, Start: 35, PStart: 36, BootID: "0123456789abcdef",
		Path: "/bin/\xff", Comm: "sh", AUID: 4294967295, Session: 4294967295, TTY: "pts/0"},
		Args: "sh\x00-c\x00a \"b\"\n\x00", ArgsLength: 14, Cwd: "/", Memfd: true, Mode: 0o100755,
		Ancestors: `[{"pid":1}]`}
	want := `{"kind":"exec","time":"2023-11-14T22:13:20.123456789Z","ntime":55,"eid":7,"source":"ebpf",` +
		`"fidelity":"kernel","pid":42,"tid":43,"ppid":1,"process_id":"01234567-42-z",` +
		`"parent_process_id":"01234567-1-10","path":"/bin/\\xff","comm":"sh","uid":0,"gid":0,"euid":0,"egid":0,` +
		`"auid":4294967295,"session_id":4294967295,"tty":"pts/0","args":["sh","-c","a \"b\"\n"],"args_length":14,` +
		`"args_truncated":false,"cwd":"/","memfd":true,"deleted":false,"mode":33261,"owner_uid":0,"owner_gid":0,` +
		`"suid":0,"sgid":0,"fsuid":0,"fsgid":0,"path_truncated":false,"upper_layer":false,"not_in_image":false,"ancestors":[{"pid":1}]}`
	got := string(AppendJSON(nil, e))
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !json.Valid([]byte(got)) {
		t.Error("not JSON")
	}
	if got := string(AppendJSON([]byte("x,"), &Loss{Header: Header{Kind: KindLoss}})); !strings.HasPrefix(got, `x,{"kind":"loss","time":`) {
		t.Errorf("after other bytes: %s", got)
	}
}

func TestSocketBytesOnlyOnClose(t *testing.T) {
	for kind, want := range map[ID]bool{KindConnect: false, KindAccept: false, KindClose: true} {
		got := strings.Contains(string(AppendJSON(nil, &Socket{Header: Header{Kind: kind}})), `"bytes_sent":0`)
		if got != want {
			t.Errorf("%v tells of bytes: %v, want %v", kind, got, want)
		}
	}
}

func TestProcessID(t *testing.T) {
	for _, tt := range []struct {
		pid   uint32
		start uint64
		want  string
	}{{1, 35, "01234567-1-z"}, {1, 0, ""}, {0, 5, ""}, {4194304, 1 << 63, "01234567-4194304-1y2p0ij32e8e8"}} {
		if got := ProcessID("0123456789ab", tt.pid, tt.start); got != tt.want {
			t.Errorf("ProcessID(%d, %d) = %q, want %q", tt.pid, tt.start, got, tt.want)
		}
	}
	if got := ProcessID("ab", 1, 1); got != "ab-1-1" {
		t.Errorf("short boot id: %q", got)
	}
}

func TestBatchReuses(t *testing.T) {
	b := NewBatch()
	var all []*Exec
	for !b.Full() {
		e := b.Add(KindExec).(*Exec)
		e.Args = "x"
		all = append(all, e)
	}
	for i := range all {
		for j := range i {
			if all[i] == all[j] {
				t.Fatalf("events %d and %d share memory", i, j)
			}
		}
	}
	if b.Add(ID(99)) != nil {
		t.Error("an event of no kind")
	}
	b.Release()
	if n := testing.AllocsPerRun(100, func() {
		b := NewBatch()
		for range 64 {
			if e := b.Add(KindExec).(*Exec); e.Args != "" {
				t.Fatal("a used event is not empty")
			}
		}
		b.Drop()
		if len(b.Events) != 63 {
			t.Fatal("Drop took nothing back")
		}
		b.Release()
	}); n > 1 {
		t.Errorf("%v allocations for a batch that is used again", n)
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	e := &Exec{Header: Header{Kind: KindExec, EID: 7, Time: 1700000000123456789, NTime: 55, Source: "ebpf",
		Fidelity: FidelityKernel, PID: 42, TID: 43, PPID: 1, Start: 35, PStart: 36, BootID: "0123456789abcdef",
		Path: "/bin/true", Comm: "true"}, Args: "true\x00a\x00", ArgsLength: 7, Cwd: "/root"}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendJSON(buf[:0], e)
	}
}
