package table

import (
	"context"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

func kernelKeysTable(env *Env) schema.Relation {
	type row = *procfs.Key
	t := &schema.Table[row]{
		Name: "kernel_keys",
		Doc:  "Keys that the kernel keeps, as far as the agent may see them.",
		Columns: []schema.Column[row]{
			schema.Str("serial_number", func(k row) *string { return &k.Serial }, "Number, hexadecimal"),
			schema.Str("flags", func(k row) *string { return &k.Flags }, "State, a letter each; see proc_keys(5)"),
			schema.Int("usage", func(k row) *int64 { return &k.Usage }, "Threads and open files that refer to it"),
			schema.Str("timeout", func(k row) *string { return &k.Timeout }, "Time until it expires; perm for never, expd when it has"),
			schema.Str("permissions", func(k row) *string { return &k.Permissions }, "Permissions of possessor, user, group and others, hexadecimal"),
			schema.Int("uid", func(k row) *int64 { return &k.UID }, "Owner"),
			schema.Int("gid", func(k row) *int64 { return &k.GID }, "Group, -1 for none"),
			schema.Str("type", func(k row) *string { return &k.Type }, "Type: user, keyring, logon …"),
			schema.Str("description", func(k row) *string { return &k.Description }, "Description"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		list, err := env.FS.Keys()
		return pointers(list), err
	}
	return t.Bind()
}

func sharedMemoryTable(env *Env) schema.Relation {
	type row = *procfs.Segment
	bit := func(name string, mask int64, doc string) schema.Column[row] {
		return schema.Calc(name, schema.Integer, func(s row) schema.Value { return schema.BoolValue(s.Mode&mask != 0) }, doc)
	}
	t := &schema.Table[row]{
		Name: "shared_memory",
		Doc:  "System V shared memory.",
		Columns: []schema.Column[row]{
			schema.Int("shmid", func(s row) *int64 { return &s.ID }, "Number of the segment").As(schema.Integer),
			schema.Int("owner_uid", func(s row) *int64 { return &s.UID }, "Owner"),
			schema.Int("creator_uid", func(s row) *int64 { return &s.CreatorUID }, "User who made it"),
			schema.Int("pid", func(s row) *int64 { return &s.PID }, "Process that attached or detached it last"),
			schema.Int("creator_pid", func(s row) *int64 { return &s.CreatorPID }, "Process that made it"),
			schema.Int("atime", func(s row) *int64 { return &s.Attach }, "When it was last attached, unix seconds"),
			schema.Int("dtime", func(s row) *int64 { return &s.Detach }, "When it was last detached, unix seconds"),
			schema.Int("ctime", func(s row) *int64 { return &s.Change }, "When it was made or its owner changed, unix seconds"),
			schema.Calc("permissions", schema.Text, func(s row) schema.Value { return schema.TextValue(fmt.Sprintf("%04o", s.Mode&0o777)) }, "Permissions, octal"),
			schema.Int("size", func(s row) *int64 { return &s.Size }, "Size in bytes"),
			schema.Int("attached", func(s row) *int64 { return &s.Attached }, "How often it is attached").As(schema.Integer),
			schema.Calc("status", schema.Text, func(s row) schema.Value {
				if s.Mode&0o1000 != 0 { // SHM_DEST
					return schema.TextValue("dest")
				}
				return schema.TextValue("")
			}, "dest when it goes with its last user"),
			bit("locked", 0o2000, "1 when it is never swapped out"), // SHM_LOCKED
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		list, err := env.FS.Segments()
		return pointers(list), err
	}
	return t.Bind()
}

// ipv6 is a row of interface_ipv6.
type ipv6 struct {
	name                                        string
	hops, forwarding, redirects, advertisements int64
}

func interfaceIPv6Table(env *Env) schema.Relation {
	type row = *ipv6
	number := func(name string, at func(row) *int64, doc string) schema.Column[row] {
		return schema.Int(name, at, doc).As(schema.Integer)
	}
	t := &schema.Table[row]{
		Name: "interface_ipv6",
		Doc:  "How interfaces deal with IPv6.",
		Columns: []schema.Column[row]{
			schema.Str("interface", func(i row) *string { return &i.name }, "Name; default is for those to come, all for every one"),
			number("hop_limit", func(i row) *int64 { return &i.hops }, "Hop limit of packets that are sent"),
			number("forwarding_enabled", func(i row) *int64 { return &i.forwarding }, "1 when packets are forwarded"),
			number("redirect_accept", func(i row) *int64 { return &i.redirects }, "1 when redirects are heeded"),
			number("rtadv_accept", func(i row) *int64 { return &i.advertisements }, "1 when advertisements of routers are heeded, 2 also when forwarding"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		const dir = "net/ipv6/conf/"
		var rows []row
		for _, name := range env.FS.SysctlChildren(dir) {
			value := func(key string) int64 {
				s, _ := env.FS.Sysctl(dir + name + "/" + key)
				n, _ := strconv.ParseInt(s.Value, 10, 64)
				return n
			}
			rows = append(rows, &ipv6{name, value("hop_limit"), value("forwarding"), value("accept_redirects"), value("accept_ra")})
		}
		return rows, ctx.Err()
	}
	return t.Bind()
}

func securebootTable(env *Env) schema.Relation {
	type row = *[2]bool
	flag := func(name string, i int, doc string) schema.Column[row] {
		return schema.Calc(name, schema.Integer, func(r row) schema.Value { return schema.BoolValue(r[i]) }, doc)
	}
	t := &schema.Table[row]{
		Name: "secureboot",
		Doc:  "Whether the firmware checks what it boots; empty where it is not UEFI, or does not say.",
		Columns: []schema.Column[row]{
			flag("secure_boot", 0, "1 when Secure Boot is on"),
			flag("setup_mode", 1, "1 when anybody may enrol keys"),
			schema.Absent[row]("secure_mode", schema.Integer, "Of macOS", schema.Hidden),
			schema.Absent[row]("description", schema.Text, "Of macOS", schema.Hidden),
			schema.Absent[row]("allow_kernel_extensions", schema.Integer, "Of macOS", schema.Hidden),
			schema.Absent[row]("allow_mdm_operations", schema.Integer, "Of macOS", schema.Hidden),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		on, ok := env.FS.FirmwareFlag("SecureBoot")
		setup, _ := env.FS.FirmwareFlag("SetupMode")
		if !ok {
			return nil, nil
		}
		return []row{{on, setup}}, nil
	}
	return t.Bind()
}

// limits are the resources of setrlimit(2), by osquery's names.
var limits = []struct {
	name     string
	resource int
}{
	{"cpu", unix.RLIMIT_CPU}, {"fsize", unix.RLIMIT_FSIZE}, {"data", unix.RLIMIT_DATA}, {"stack", unix.RLIMIT_STACK}, {"core", unix.RLIMIT_CORE},
	{"nofile", unix.RLIMIT_NOFILE}, {"as", unix.RLIMIT_AS}, {"rss", unix.RLIMIT_RSS}, {"memlock", unix.RLIMIT_MEMLOCK}, {"nproc", unix.RLIMIT_NPROC},
	{"locks", unix.RLIMIT_LOCKS}, {"sigpending", unix.RLIMIT_SIGPENDING}, {"msgqueue", unix.RLIMIT_MSGQUEUE}, {"nice", unix.RLIMIT_NICE}, {"rtprio", unix.RLIMIT_RTPRIO},
}

func ulimitInfoTable(*Env) schema.Relation {
	type row = *[3]string
	t := &schema.Table[row]{
		Name: "ulimit_info",
		Doc:  "Limits of the agent's own process.",
		Columns: []schema.Column[row]{
			schema.Str("type", func(r row) *string { return &r[0] }, "What is limited"),
			schema.Str("soft_limit", func(r row) *string { return &r[1] }, "Limit, or unlimited"),
			schema.Str("hard_limit", func(r row) *string { return &r[2] }, "What it may be raised to, or unlimited"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		text := func(n uint64) string {
			if n == unix.RLIM_INFINITY {
				return "unlimited"
			}
			return strconv.FormatUint(n, 10)
		}
		var rows []row
		for _, l := range limits {
			var r unix.Rlimit
			if err := unix.Getrlimit(l.resource, &r); err != nil {
				return rows, fmt.Errorf("get limit %s: %w", l.name, err)
			}
			rows = append(rows, &[3]string{l.name, text(r.Cur), text(r.Max)})
		}
		return rows, nil
	}
	return t.Bind()
}
