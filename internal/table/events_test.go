package table

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/store"
)

// everything shows all rows that there are.
var everything = EventOptions{AllowFork: true, AllowFailed: true, AllowNullAccept: true, AllowUnix: true, ShowAccesses: true}

func eventTableNamed(t *testing.T, log event.Log, o EventOptions, name string) schema.Relation {
	t.Helper()
	for _, r := range EventTables(log, o) {
		if r.Def().Name == name {
			return r
		}
	}
	t.Fatalf("no table %s", name)
	return nil
}

// storeOf returns a log of events, which it numbers.
func storeOf(t *testing.T, events ...event.Event) *store.Store {
	t.Helper()
	s, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, e := range events {
		s.Append(e)
	}
	if err := s.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// anyEvent fills every stored column of an event with something that its column may hold.
func anyEvent(r *rand.Rand, kind *event.Kind) event.Event {
	e := kind.New()
	for i := range kind.Columns {
		c := &kind.Columns[i]
		switch {
		case c.Int != nil:
			c.SetInt(e, r.Int64N(4)*r.Int64N(1<<r.IntN(33)))
		case c.Str != nil:
			c.SetStr(e, []string{"", "a", "b c\x00", "x\x00y z\x00", "::1", "10.0.0.1", "ok", "ECONNREFUSED", "in_progress", "EAGAIN", "[]"}[r.IntN(11)])
		}
	}
	h := e.Head()
	h.Kind, h.EID, h.Time = kind.ID, 0, (1_800_000_000+r.Int64N(100))*1_000_000_000+r.Int64N(1_000_000_000)
	switch e := e.(type) {
	case *event.Policy:
		e.Module = []string{"selinux", "apparmor", "seccomp", ""}[r.IntN(4)]
		e.Message = []string{"", `pid=5 name="/a b" fsuid=3`, `name=2F61 capability=x`, "arch=c000003e sig=31 ip=0x5"}[r.IntN(4)]
	case *event.File:
		e.Operation = []string{"open", "create", "delete", "chmod"}[r.IntN(4)]
		e.Argument = []string{"", "O_RDONLY", "O_WRONLY|O_TRUNC"}[r.IntN(3)]
		e.Result = []string{"", "ok", "EACCES"}[r.IntN(3)]
	case *event.User:
		e.Message = []string{"", "pid=1 msg='op=x acct=\"a\" res=success'", "auid=0 res=1"}[r.IntN(3)]
	}
	if s, ok := e.(*event.Socket); ok {
		s.FamilyNumber = []uint16{unix.AF_INET, unix.AF_INET6, unix.AF_UNIX, unix.AF_NETLINK}[r.IntN(4)]
	}
	return e
}

func anyEvents(seed uint64, n int) []event.Event {
	r := rand.New(rand.NewPCG(seed, 0))
	var out []event.Event
	for range n {
		out = append(out, anyEvent(r, event.Kinds[r.IntN(len(event.Kinds))]))
	}
	return out
}

// Each table of osquery's has its columns, in its order, with its types and flags, and
// ours after them are hidden.
func TestEventTablesContainOsquerySchema(t *testing.T) {
	pinned := readPinned(t)
	for _, name := range []string{"process_events", "socket_events", "bpf_process_events", "bpf_socket_events"} {
		d := eventTableNamed(t, nil, EventOptions{}, name).Def()
		i := slices.IndexFunc(pinned.Tables, func(p struct {
			Name    string
			Aliases []string
			Columns []pinnedColumn
		}) bool {
			return p.Name == name
		})
		want := pinned.Tables[i].Columns
		var got []pinnedColumn
		for i := range d.Columns[:len(want)] {
			got = append(got, ours(&d.Columns[i]))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-osquery +ours): %s", name, diff)
		}
		var added []string
		for i := range d.Columns[len(want):] {
			c := &d.Columns[len(want)+i]
			if !c.Has(schema.Hidden) {
				t.Errorf("%s.%s is ours and not hidden", name, c.Name)
			}
			added = append(added, c.Name)
		}
		additions := []string{"process_id", "parent_process_id", "ancestors", "origin", "disguise",
			"container_id", "container_name", "image", "pod_name", "pod_namespace", "fidelity", "source"}
		if name == "process_events" {
			additions = append(additions, "leader_pid", "leader_path", "spawner_pid", "spawner_path")
		}
		if !strings.HasPrefix(name, "bpf_") {
			additions = append(additions, "ntime")
		}
		if diff := cmp.Diff(additions, added); diff != "" {
			t.Errorf("%s: columns of ours: %s", name, diff)
		}
	}
}

func TestNativeTables(t *testing.T) {
	var got []string
	for _, r := range EventTables(nil, EventOptions{}) {
		d := r.Def()
		if !d.Events || d.Doc == "" {
			t.Errorf("%s: %+v", d.Name, d)
		}
		got = append(got, d.Name)
		seen := map[string]bool{}
		for i := range d.Columns {
			c := &d.Columns[i]
			if c.Has(schema.Internal) || c.Doc == "" || strings.HasSuffix(c.Doc, ".") || seen[c.Name] {
				t.Errorf("%s.%s: internal, undocumented or defined twice", d.Name, c.Name)
			}
			seen[c.Name] = true
		}
	}
	want := []string{"exec_events", "fork_events", "exit_events", "network_events", "dns_events", "loss_events",
		"filesystem_events", "credential_events", "ptrace_events", "signal_events", "module_events", "bpf_events", "mount_events", "namespace_events", "memory_events",
		"session_events", "container_events", "policy_events", "alerts", "syscall_events",
		"process_events", "socket_events", "file_events", "process_file_events", "user_events", "selinux_events", "apparmor_events",
		"seccomp_events", "bpf_process_events", "bpf_socket_events"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name := range sharedDocs {
		if !slices.Contains(got, name) {
			t.Errorf("%s is described and is no table", name)
		}
	}
}

// TestColumnsNameWhatTheyRead proves that a cell read from an event of which only the
// columns it is said to use were filled in is the cell of the whole event.
func TestColumnsNameWhatTheyRead(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	for _, rel := range EventTables(nil, EventOptions{}) {
		table := rel.(*eventTable)
		for k, id := range table.kinds {
			kind := event.ByID(id)
			columns := table.columns[min(k, len(table.columns)-1)]
			for i := range columns {
				for range 50 {
					whole, part := anyEvent(r, kind), kind.New()
					part.Head().Kind = id
					for _, name := range table.sources[i].uses {
						switch c := kind.Column(name); {
						case c == nil && name != "ancestors":
							t.Fatalf("%s.%s uses %s, which %s events do not have", table.name, columns[i].Name, name, kind.Name)
						case c == nil:
						case c.Int != nil:
							c.SetInt(part, c.Int(whole))
						default:
							c.SetStr(part, c.Str(whole))
						}
					}
					if want, got := columns[i].Value(whole), columns[i].Value(part); want != got {
						t.Fatalf("%s.%s of %s: %q with all columns, %q with %v", table.name, columns[i].Name, kind.Name, want.Text(), got.Text(), table.sources[i].uses)
					}
				}
			}
		}
	}
}

// meets reports whether a row meets a condition, as SQL finds it.
func meets(row []schema.Value, c *schema.Constraint) bool {
	v := row[c.Column]
	compare := func(want schema.Value) int {
		if v.Kind() == schema.KindText {
			return strings.Compare(v.Text(), want.Text())
		}
		switch a, b := v.Int(), want.Int(); {
		case a < b:
			return -1
		case a > b:
			return 1
		}
		return 0
	}
	if v.IsNull() {
		return false
	}
	switch c.Op {
	case schema.Eq:
		return compare(c.Value) == 0
	case schema.In:
		return slices.ContainsFunc(c.Values, func(w schema.Value) bool { return compare(w) == 0 })
	case schema.Gt:
		return compare(c.Value) > 0
	case schema.Ge:
		return compare(c.Value) >= 0
	case schema.Lt:
		return compare(c.Value) < 0
	case schema.Le:
		return compare(c.Value) <= 0
	}
	return true
}

// TestConditions asks every table random questions: what the log leaves out is never what
// the question wants, and the cells that are used are right.
func TestConditions(t *testing.T) {
	log := storeOf(t, anyEvents(2, 3000)...)
	r := rand.New(rand.NewPCG(3, 0))
	for _, o := range []EventOptions{{}, everything} {
		for _, rel := range EventTables(log, o) {
			d := rel.Def()
			whole := scan(t, rel, &schema.Query{})
			if len(whole) < 20 {
				t.Fatalf("%s has %d rows", d.Name, len(whole))
			}
			found := 0
			for range 60 {
				q := randomQuery(r, d, whole)
				var want [][]schema.Value
				for _, row := range whole {
					if !slices.ContainsFunc(q.Constraints, func(c schema.Constraint) bool { return !meets(row, &c) }) {
						want = append(want, row)
					}
				}
				var got [][]schema.Value
				for _, row := range scan(t, rel, q) {
					if !slices.ContainsFunc(q.Constraints, func(c schema.Constraint) bool { return !meets(row, &c) }) {
						got = append(got, row)
					}
				}
				alike := func(a, b []schema.Value) bool {
					for i := range a {
						if q.Uses(i) && a[i] != b[i] {
							return false
						}
					}
					return true
				}
				if !slices.EqualFunc(want, got, alike) {
					t.Fatalf("%s with %+v: %+v: %d rows, not %d, or other cells", d.Name, o, q.Constraints, len(got), len(want))
				}
				found += len(want)
			}
			if found == 0 {
				t.Errorf("%s: no question found a row", d.Name)
			}
		}
	}
}

func randomQuery(r *rand.Rand, d *schema.Def, rows [][]schema.Value) *schema.Query {
	q := &schema.Query{Used: make([]bool, len(d.Columns))}
	for i := range q.Used {
		q.Used[i] = r.IntN(5) == 0
	}
	for range r.IntN(3) {
		i := r.IntN(len(d.Columns))
		if r.IntN(2) == 0 {
			i = d.Column([]string{"time", "eid", "pid"}[r.IntN(3)])
		}
		if i < 0 {
			continue
		}
		value := func() schema.Value {
			v := rows[r.IntN(len(rows))][i]
			switch {
			case v.IsNull() && d.Columns[i].Type == schema.Text:
				return schema.TextValue("")
			case v.IsNull():
				return schema.IntValue(0)
			case v.Kind() == schema.KindInt && r.IntN(3) == 0:
				return schema.IntValue(v.Int() + int64(r.IntN(3)) - 1)
			}
			return v
		}
		c := schema.Constraint{Column: i, Op: []schema.Op{schema.Eq, schema.Gt, schema.Ge, schema.Lt, schema.Le, schema.In}[r.IntN(6)]}
		if c.Op == schema.In {
			for range 1 + r.IntN(4) {
				c.Values = append(c.Values, value())
			}
		} else {
			c.Value = value()
		}
		q.Constraints = append(q.Constraints, c)
		q.Used[i] = true
	}
	return q
}

// selected is a log that remembers what it was asked for.
type selected struct{ last event.Selection }

func (s *selected) Scan(_ context.Context, sel event.Selection) (event.Cursor, error) {
	s.last = sel
	return nothing{}, nil
}

type nothing struct{}

func (nothing) Next() (event.Event, error) { return nil, nil }
func (nothing) Close() error               { return nil }

func TestSelections(t *testing.T) {
	n := schema.IntValue
	exec := []event.ID{event.KindExec}
	for _, c := range []struct {
		name, table string
		o           EventOptions
		used        []string
		where       map[string][]schema.Constraint
		want        event.Selection
	}{
		{name: "count", table: "exec_events", want: event.Selection{Kinds: exec, Columns: []string{}}},
		{
			name: "columns", table: "exec_events", used: []string{"pid", "process_id"},
			want: event.Selection{Kinds: exec, Columns: []string{"pid", "start", "boot_id"}},
		},
		{
			name: "a time", table: "process_events", used: []string{"time", "cmdline"},
			where: map[string][]schema.Constraint{"time": {{Op: schema.Gt, Value: n(100)}, {Op: schema.Le, Value: n(200)}}},
			want:  event.Selection{Kinds: exec, Columns: []string{"args", "time"}, From: 101_000_000_000, To: 200_999_999_999},
		},
		{
			name: "a second", table: "bpf_process_events",
			where: map[string][]schema.Constraint{"time": {{Op: schema.Eq, Value: n(100)}}},
			want:  event.Selection{Kinds: exec, Columns: []string{}, From: 100_000_000_000, To: 100_999_999_999},
		},
		{
			name: "seconds", table: "fork_events",
			where: map[string][]schema.Constraint{"time": {{Op: schema.In, Values: []schema.Value{n(7), n(5)}}, {Op: schema.Lt, Value: n(7)}, {Op: schema.Ge, Value: n(4)}}},
			want:  event.Selection{Kinds: []event.ID{event.KindFork}, Columns: []string{}, From: 5_000_000_000, To: 6_999_999_999},
		},
		{
			name: "times beyond all bounds", table: "exec_events",
			where: map[string][]schema.Constraint{"time": {{Op: schema.Ge, Value: n(-1 << 63)}, {Op: schema.Le, Value: n(1<<63 - 1)}, {Op: schema.Gt, Value: n(1<<63 - 1)}}},
			want:  event.Selection{Kinds: exec, Columns: []string{}},
		},
		{
			name: "numbers", table: "exec_events",
			where: map[string][]schema.Constraint{"eid": {{Op: schema.Gt, Value: n(7)}, {Op: schema.Lt, Value: n(10)}}, "pid": {{Op: schema.Eq, Value: n(3)}}, "memfd": {{Op: schema.Eq, Value: n(1)}}},
			want:  event.Selection{Kinds: exec, Columns: []string{}, AfterEID: 7, MaxEID: 9, Equal: []event.Equal{{Column: "pid", Values: []int64{3}}, {Column: "memfd", Values: []int64{1}}}},
		},
		{
			name: "eid as text", table: "socket_events",
			where: map[string][]schema.Constraint{"eid": {{Op: schema.Eq, Value: schema.TextValue("0000000042")}, {Op: schema.Gt, Value: schema.TextValue("0000000001")}}},
			want:  event.Selection{Kinds: []event.ID{event.KindConnect, event.KindAccept, event.KindBind}, Columns: []string{"family_number", "result"}, Equal: []event.Equal{{Column: "eid", Values: []int64{42}}}},
		},
		{
			name: "eid as a cursor", table: "socket_events", o: EventOptions{OmitAccept: true},
			where: map[string][]schema.Constraint{"eid": {{Op: schema.Gt, Value: n(42)}}},
			want:  event.Selection{Kinds: []event.ID{event.KindConnect, event.KindBind}, Columns: []string{"family_number", "result"}, AfterEID: 42},
		},
		{
			name: "text is no number", table: "process_events",
			where: map[string][]schema.Constraint{"pid": {{Op: schema.Eq, Value: schema.TextValue("x")}}, "path": {{Op: schema.Eq, Value: schema.TextValue("/bin/sh")}}, "parent": {{Op: schema.Eq, Value: n(1)}}},
			want:  event.Selection{Kinds: exec, Columns: []string{}, Equal: []event.Equal{{Column: "pid", Values: []int64{}}}},
		},
		{
			name: "a process made has another pid than its maker", table: "process_events", o: EventOptions{AllowFork: true},
			where: map[string][]schema.Constraint{"pid": {{Op: schema.Eq, Value: n(5)}}},
			want:  event.Selection{Kinds: []event.ID{event.KindExec, event.KindFork}, Columns: []string{"child_pid", "child_start", "child_ppid", "pid", "start", "parent_start"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log selected
			rel := eventTableNamed(t, &log, c.o, c.table)
			d := rel.Def()
			q := &schema.Query{Used: make([]bool, len(d.Columns))}
			for _, name := range c.used {
				q.Used[d.Column(name)] = true
			}
			for i := range d.Columns {
				for _, k := range c.where[d.Columns[i].Name] {
					k.Column = i
					q.Constraints = append(q.Constraints, k)
				}
			}
			if _, err := rel.Open(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, log.last, cmpopts.SortSlices(func(a, b event.Equal) bool { return a.Column > b.Column })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// eventCells returns rows of r as text by column, without those that are empty.
func eventCells(t *testing.T, r schema.Relation) []map[string]string {
	t.Helper()
	var out []map[string]string
	for _, row := range scan(t, r, &schema.Query{}) {
		m := map[string]string{}
		for i, v := range row {
			if v.IsNull() {
				m[r.Def().Columns[i].Name] = "NULL"
			} else if v.Text() != "" {
				m[r.Def().Columns[i].Name] = v.Text()
			}
		}
		out = append(out, m)
	}
	return out
}

func header(kind event.ID) event.Header {
	return event.Header{
		Kind: kind, Time: 1_800_000_000_123_456_789, NTime: 98_765_432_100, Source: "ebpf", Fidelity: "kernel",
		PID: 4242, TID: 4243, PPID: 77, Start: 36, PStart: 35, BootID: "0123456789abcdef", Path: "/usr/bin/bash", Comm: "bash",
		UID: 1000, GID: 1001, EUID: 0, EGID: 2, AUID: 4294967295, Session: 9, TTY: "pts0", CgroupID: 5151,
		ContainerID: "c0ffee", ContainerName: "web", Image: "nginx:1", PodName: "web-0", PodNamespace: "prod",
	}
}

func TestRowsOfPrograms(t *testing.T) {
	whole := &event.Exec{
		Header: header(event.KindExec), Filename: "./run.sh", Args: "bash\x00./run.sh\x00two words\x00it's\x00", ArgsLength: 30,
		Cwd: "/srv", Env: "LANG=C\x00LD_PRELOAD=/x.so\x00", Inode: 11, Mode: 0o104755, OwnerUID: 3, OwnerGID: 4,
		SUID: 5, SGID: 6, FSUID: 7, FSGID: 8, PathTruncated: true, ArgsTruncated: true, Syscall: "execveat", Ancestors: `[{"pid":77}]`,
		LeaderPID: 70, LeaderPath: "/bin/zsh", SpawnerPID: 71, SpawnerPath: "/bin/sh",
	}
	whole.Origin, whole.Disguise = "ssh", "argv0\x00args_cut\x00"
	bare := &event.Exec{Header: event.Header{Kind: event.KindExec, Time: 1_800_000_001_000_000_000, PID: 5}}
	log := storeOf(t, whole, bare)
	ours := map[string]string{
		"process_id": "01234567-4242-10", "parent_process_id": "01234567-77-z", "ancestors": `[{"pid":77}]`, "container_id": "c0ffee",
		"container_name": "web", "image": "nginx:1", "pod_name": "web-0", "pod_namespace": "prod", "fidelity": "kernel", "source": "ebpf",
		"origin": "ssh", "disguise": `["argv0","args_cut"]`,
	}
	with := func(m map[string]string) map[string]string {
		for k, v := range ours {
			m[k] = v
		}
		return m
	}
	want := []map[string]string{
		with(map[string]string{
			"pid": "4242", "path": "/usr/bin/bash", "mode": "0104755", "cmdline": "bash ./run.sh two words it's", "cmdline_size": "30",
			"env": "LANG=C LD_PRELOAD=/x.so", "env_count": "2", "env_size": "24", "cwd": "/srv", "auid": "4294967295", "uid": "1000", "euid": "0",
			"gid": "1001", "egid": "2", "owner_uid": "3", "owner_gid": "4", "atime": "NULL", "mtime": "NULL", "ctime": "NULL", "btime": "NULL",
			"overflows": "cmdline,path", "parent": "77", "time": "1800000000", "uptime": "98", "eid": "0000000001", "fsuid": "7", "suid": "5",
			"fsgid": "8", "sgid": "6", "syscall": "execveat", "status": "NULL", "ntime": "98765432100",
			"leader_pid": "70", "leader_path": "/bin/zsh", "spawner_pid": "71", "spawner_path": "/bin/sh",
		}),
		{
			"pid": "5", "cmdline_size": "0", "env_count": "0", "env_size": "0", "auid": "0", "uid": "0", "euid": "0", "gid": "0", "egid": "0",
			"owner_uid": "0", "owner_gid": "0", "atime": "NULL", "mtime": "NULL", "ctime": "NULL", "btime": "NULL", "parent": "-1",
			"time": "1800000001", "uptime": "0", "eid": "0000000002", "fsuid": "0", "suid": "0", "fsgid": "0", "sgid": "0", "syscall": "execve",
			"status": "NULL", "ntime": "0", "leader_pid": "NULL", "spawner_pid": "NULL",
		},
	}
	if diff := cmp.Diff(want, eventCells(t, eventTableNamed(t, log, EventOptions{}, "process_events"))); diff != "" {
		t.Error("process_events: ", diff)
	}
	want = []map[string]string{
		with(map[string]string{
			"tid": "4243", "pid": "4242", "parent": "77", "uid": "1000", "gid": "1001", "cid": "5151", "exit_code": "0", "probe_error": "1",
			"syscall": "exec", "path": "/usr/bin/bash", "cwd": "/srv", "cmdline": "bash ./run.sh 'two words' it's", "duration": "NULL",
			"json_cmdline": `["bash","./run.sh","two words","it's"]`, "ntime": "98765432100", "time": "1800000000", "eid": "1",
		}),
		{
			"tid": "0", "pid": "5", "parent": "0", "uid": "0", "gid": "0", "cid": "0", "exit_code": "0", "probe_error": "0", "syscall": "exec",
			"duration": "NULL", "json_cmdline": "[]", "ntime": "0", "time": "1800000001", "eid": "2",
		},
	}
	if diff := cmp.Diff(want, eventCells(t, eventTableNamed(t, log, EventOptions{}, "bpf_process_events"))); diff != "" {
		t.Error("bpf_process_events: ", diff)
	}
}

func TestRowsOfForks(t *testing.T) {
	log := storeOf(t,
		&event.Fork{Header: header(event.KindFork), ChildPID: 4300, ChildStart: 40, ChildPPID: 4242},
		&event.Fork{Header: header(event.KindFork), ChildPID: 4301, ChildStart: 41, ChildPPID: 77}, // CLONE_PARENT
	)
	if got := eventCells(t, eventTableNamed(t, log, EventOptions{}, "process_events")); got != nil {
		t.Errorf("forks are shown: %v", got)
	}
	var got []string
	for _, m := range eventCells(t, eventTableNamed(t, log, everything, "process_events")) {
		got = append(got, fmt.Sprintf("%s %s %s %s %s %s", m["pid"], m["parent"], m["path"], m["syscall"], m["process_id"], m["parent_process_id"]))
	}
	want := []string{
		"4300 4242 /usr/bin/bash clone 01234567-4300-14 01234567-4242-10",
		"4301 77 /usr/bin/bash clone 01234567-4301-15 01234567-77-z",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRowsOfSockets(t *testing.T) {
	socket := func(kind event.ID, result string) *event.Socket {
		return &event.Socket{
			Header: header(kind), Family: "inet6", Protocol: "tcp", FamilyNumber: unix.AF_INET6, Type: 1, ProtoNumber: 6, FD: 26,
			LocalAddress: "::1", RemoteAddress: "fe80::225:22ff:feb0:3684", LocalPort: 40000, RemotePort: 443, Result: result, DurationNs: 1500, Cookie: 12, NetNS: 13,
		}
	}
	local := socket(event.KindBind, "ok")
	local.FamilyNumber, local.LocalAddress, local.RemoteAddress, local.LocalPort, local.RemotePort, local.FD = unix.AF_UNIX, "", "", 0, 0, -1
	local.SocketPath = "/run/x.sock"
	netlink := socket(event.KindBind, "ok")
	netlink.FamilyNumber = unix.AF_NETLINK
	log := storeOf(t,
		socket(event.KindConnect, "ok"), socket(event.KindConnect, "ECONNREFUSED"), socket(event.KindConnect, "in_progress"),
		socket(event.KindAccept, "EAGAIN"), socket(event.KindListen, "ok"), socket(event.KindClose, "ok"), local, netlink,
	)
	want := map[string]string{
		"action": "connect", "pid": "4242", "path": "/usr/bin/bash", "fd": "1a", "auid": "4294967295", "family": "10", "protocol": "6",
		"local_address": "0000:0000:0000:0000:0000:0000:0000:0001", "remote_address": "fe80:0000:0000:0000:0225:22ff:feb0:3684",
		"local_port": "40000", "remote_port": "443", "time": "1800000000", "uptime": "98", "eid": "0000000001", "success": "1", "status": "succeeded",
		"process_id": "01234567-4242-10", "parent_process_id": "01234567-77-z", "container_id": "c0ffee", "container_name": "web",
		"image": "nginx:1", "pod_name": "web-0", "pod_namespace": "prod", "fidelity": "kernel", "source": "ebpf", "ntime": "98765432100",
	}
	if diff := cmp.Diff(want, eventCells(t, eventTableNamed(t, log, EventOptions{}, "socket_events"))[0]); diff != "" {
		t.Error("socket_events: ", diff)
	}
	want = map[string]string{
		"tid": "4243", "pid": "4242", "parent": "77", "uid": "1000", "gid": "1001", "cid": "5151", "exit_code": "0", "probe_error": "0",
		"syscall": "connect", "path": "/usr/bin/bash", "fd": "26", "family": "10", "type": "1", "protocol": "6", "local_address": "::1",
		"remote_address": "fe80::225:22ff:feb0:3684", "local_port": "40000", "remote_port": "443", "duration": "1500", "ntime": "98765432100",
		"time": "1800000000", "eid": "1", "process_id": "01234567-4242-10", "parent_process_id": "01234567-77-z", "container_id": "c0ffee",
		"container_name": "web", "image": "nginx:1", "pod_name": "web-0", "pod_namespace": "prod", "fidelity": "kernel", "source": "ebpf",
	}
	if diff := cmp.Diff(want, eventCells(t, eventTableNamed(t, log, EventOptions{}, "bpf_socket_events"))[0]); diff != "" {
		t.Error("bpf_socket_events: ", diff)
	}
	for _, c := range []struct {
		name string
		o    EventOptions
		rows []string // number, action, status or exit code, and what unix sockets have
	}{
		{"socket_events", EventOptions{}, []string{"1 connect succeeded", "3 connect in_progress"}},
		{"socket_events", EventOptions{AllowFailed: true}, []string{"1 connect succeeded", "2 connect failed", "3 connect in_progress"}},
		{"socket_events", EventOptions{AllowNullAccept: true}, []string{"1 connect succeeded", "3 connect in_progress", "4 accept no_client"}},
		{"socket_events", EventOptions{AllowNullAccept: true, OmitAccept: true}, []string{"1 connect succeeded", "3 connect in_progress"}},
		{"socket_events", EventOptions{AllowUnix: true}, []string{"1 connect succeeded", "3 connect in_progress", "7 bind succeeded /run/x.sock"}},
		{"bpf_socket_events", EventOptions{}, []string{"1 connect 0", "3 connect 18446744073709551501", "5 listen 0"}},
		{"bpf_socket_events", everything, []string{
			"1 connect 0", "2 connect 18446744073709551505", "3 connect 18446744073709551501",
			"4 accept 18446744073709551605", "5 listen 0", "7 bind 0 /run/x.sock",
		}},
	} {
		var got []string
		for _, m := range eventCells(t, eventTableNamed(t, log, c.o, c.name)) {
			row := strings.TrimLeft(m["eid"], "0") + " " + m["action"] + m["syscall"] + " " + m["status"] + m["exit_code"]
			if strings.HasPrefix(m["socket"]+m["local_address"], "/") {
				row += " " + m["socket"] + m["local_address"]
			}
			got = append(got, row)
		}
		if diff := cmp.Diff(c.rows, got); diff != "" {
			t.Errorf("%s with %+v: %s", c.name, c.o, diff)
		}
	}
}

// TestEventRowsCostNoAllocation reads two plain columns of many rows.
func TestEventRowsCostNoAllocation(t *testing.T) {
	var events []event.Event
	for range 4000 {
		events = append(events, &event.Exec{Header: header(event.KindExec), Args: "a\x00b\x00"})
	}
	rel := eventTableNamed(t, storeOf(t, events...), EventOptions{}, "process_events")
	q := &schema.Query{Used: make([]bool, len(rel.Def().Columns))}
	pid, path := rel.Def().Column("pid"), rel.Def().Column("path")
	q.Used[pid], q.Used[path] = true, true
	rows := 0
	got := testing.AllocsPerRun(5, func() {
		rows = 0
		c, err := rel.Open(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for {
			ok, err := c.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return
			}
			if c.Value(pid).Int() != 4242 || c.Value(path).Text() != "/usr/bin/bash" {
				t.Fatal("wrong cell")
			}
			rows++
		}
	})
	if rows != 4000 || got > 100 {
		t.Errorf("%v allocations for %d rows", got, rows)
	}
}
