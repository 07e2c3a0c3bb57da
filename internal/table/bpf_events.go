package table

import (
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// bpfProcessEvents is the bpf_process_events that osquery had to version 5.23.
func bpfProcessEvents() *eventTable {
	return &eventTable{
		name:    "bpf_process_events",
		doc:     "Programs started, as osquery's BPF publisher told them",
		kinds:   []event.ID{event.KindExec},
		columns: [][]event.Column{over(slices.Concat(bpfProcessColumns, additions[*event.Exec]()))},
	}
}

var bpfProcessColumns = bpfColumns([]schema.Column[*event.Exec]{
	schema.Calc("exit_code", schema.Text, func(*event.Exec) schema.Value { return schema.TextValue("0") }, "What the system call returned: 0, since only programs started are told"),
	schema.Calc("probe_error", schema.Integer, func(e *event.Exec) schema.Value { return schema.BoolValue(e.ArgsTruncated || e.PathTruncated) }, "1 when arguments, path or directory were cut").From("args_truncated", "path_truncated"),
	schema.Calc("syscall", schema.Text, func(*event.Exec) schema.Value { return schema.TextValue("exec") }, "System call: exec"),
	schema.Str("path", func(e *event.Exec) *string { return &e.Path }, "File executed").From("path"),
	schema.Str("cwd", func(e *event.Exec) *string { return &e.Cwd }, "Working directory").From("cwd"),
	schema.Calc("cmdline", schema.Text, func(e *event.Exec) schema.Value { return schema.TextValue(quoted(e.Args)) }, "Arguments joined by spaces, those with white space in '…'").From("args"),
	schema.Absent[*event.Exec]("duration", schema.Integer, "Not known: time spent in the system call"),
	schema.Calc("json_cmdline", schema.Text, func(e *event.Exec) schema.Value { return schema.TextValue(string(schema.AppendList(nil, e.Args))) }, "Arguments, a JSON array", schema.Hidden).From("args"),
})

// bpfSocketEvents is the bpf_socket_events that osquery had to version 5.23. The options
// for socket_events hold for it too.
func bpfSocketEvents(o EventOptions) *eventTable {
	return &eventTable{
		name:     "bpf_socket_events",
		doc:      "Sockets connected, bound, listening and accepted, as osquery's BPF publisher told them",
		kinds:    []event.ID{event.KindConnect, event.KindAccept, event.KindBind, event.KindListen},
		columns:  [][]event.Column{over(slices.Concat(bpfSocketColumns, additions[*event.Socket]()))},
		keep:     o.keepSocket,
		keepUses: []string{"family_number", "result"},
	}
}

var bpfSocketColumns = bpfColumns([]schema.Column[*event.Socket]{
	schema.Calc("exit_code", schema.Text, socketExitCode, "What the system call returned: 0, or the error's number negated, as 64 bits without a sign; empty when not known").From("result"),
	schema.Calc("probe_error", schema.Integer, func(*event.Socket) schema.Value { return schema.IntValue(0) }, "1 when something could not be read: never"),
	schema.Calc("syscall", schema.Text, socketAction, "System call: connect, bind, listen or accept").From("kind_id"),
	schema.Str("path", func(e *event.Socket) *string { return &e.Path }, "Executable of the process").From("path"),
	schema.Calc("fd", schema.Text, fdDecimal, "File descriptor; empty when not known").From("fd"),
	schema.Int("family", func(e *event.Socket) *uint16 { return &e.FamilyNumber }, "Address family number (AF_*)").As(schema.Integer).From("family_number"),
	schema.Int("type", func(e *event.Socket) *uint16 { return &e.Type }, "Socket type number (SOCK_*)").As(schema.Integer).From("type_number"),
	schema.Int("protocol", func(e *event.Socket) *uint16 { return &e.ProtoNumber }, "Protocol number (IPPROTO_*)").As(schema.Integer).From("protocol_number"),
	schema.Calc("local_address", schema.Text, func(e *event.Socket) schema.Value { return orPath(e.LocalAddress, false, e) }, "Own address, or path of a unix socket").From("local_address", "kind_id", "socket_path"),
	schema.Calc("remote_address", schema.Text, func(e *event.Socket) schema.Value { return orPath(e.RemoteAddress, true, e) }, "Peer's address, or path of a unix socket").From("remote_address", "kind_id", "socket_path"),
	schema.Int("local_port", func(e *event.Socket) *uint16 { return &e.LocalPort }, "Own port, 0 when not known").As(schema.Integer).From("local_port"),
	schema.Int("remote_port", func(e *event.Socket) *uint16 { return &e.RemotePort }, "Peer's port, 0 when not known").As(schema.Integer).From("remote_port"),
	schema.Int("duration", func(e *event.Socket) *uint64 { return &e.DurationNs }, "Time spent in the system call in nanoseconds", schema.OmitZero).As(schema.Integer).From("duration_ns"),
})

// bpfColumns puts between those that both tables begin and end with what one has.
func bpfColumns[T event.Event](between []schema.Column[T]) []schema.Column[T] {
	return slices.Concat([]schema.Column[T]{
		schema.Int("tid", func(e T) *uint32 { return &e.Head().TID }, "Thread").From("tid"),
		schema.Int("pid", func(e T) *uint32 { return &e.Head().PID }, "Process").From("pid"),
		schema.Int("parent", func(e T) *uint32 { return &e.Head().PPID }, "Parent, 0 when not known").From("ppid"),
		schema.Int("uid", func(e T) *uint32 { return &e.Head().UID }, "Real user").From("uid"),
		schema.Int("gid", func(e T) *uint32 { return &e.Head().GID }, "Real group").From("gid"),
		schema.Int("cid", func(e T) *uint64 { return &e.Head().CgroupID }, "Cgroup v2 of the process").As(schema.Integer).From("cgroup_id"),
	}, between, []schema.Column[T]{
		schema.Calc("ntime", schema.Text, func(e T) schema.Value { return schema.TextValue(strconv.FormatUint(e.Head().NTime, 10)) }, "When it happened, nanoseconds since boot").From("ntime"),
		schema.Time("time", func(e T) *int64 { return &e.Head().Time }, "When it happened, unix seconds from the kernel's clock", schema.Hidden, schema.Additional).From("time"),
		schema.Int("eid", func(e T) *int64 { return &e.Head().EID }, "Number of the event in this host's log, ascending", schema.Hidden).As(schema.Integer).From("eid"),
	})
}

// quoted joins arguments by spaces; one with white space in it is put between
// apostrophes, of which those that it has itself are left as they are.
func quoted(list string) string {
	args := schema.SplitList(list)
	for i, arg := range args {
		if strings.ContainsAny(arg, " \t\n\v\f\r") {
			args[i] = "'" + arg + "'"
		}
	}
	return strings.Join(args, " ")
}

func fdDecimal(e *event.Socket) schema.Value {
	if e.FD < 0 {
		return schema.TextValue("")
	}
	return schema.TextValue(strconv.Itoa(int(e.FD)))
}

// orPath is address, or of a unix socket its path on the side that the call names.
func orPath(address string, remote bool, e *event.Socket) schema.Value {
	if address == "" && remote == (e.Kind == event.KindConnect) {
		address = e.SocketPath
	}
	return schema.TextValue(address)
}

// errnos are the numbers of errors by name. Names that mean the same number are all there.
var errnos = func() map[string]uint64 {
	byName := map[string]uint64{"EWOULDBLOCK": uint64(unix.EWOULDBLOCK), "EDEADLOCK": uint64(unix.EDEADLOCK)}
	for n := range syscall.Errno(200) {
		if name := unix.ErrnoName(n); name != "" {
			byName[name] = uint64(n)
		}
	}
	return byName
}()

func socketExitCode(e *event.Socket) schema.Value {
	name := e.Result
	switch name {
	case "ok":
		return schema.TextValue("0")
	case "in_progress":
		name = "EINPROGRESS"
	}
	if n, ok := errnos[name]; ok {
		return schema.TextValue(strconv.FormatUint(-n, 10))
	}
	return schema.TextValue("")
}
