package table

import (
	"bytes"
	"context"
	"encoding/binary"
	"runtime"

	"github.com/goshawk-project/goshawk/internal/schema"
)

const (
	maxUtmp = 16 << 20  // more than 40,000 sessions
	maxWtmp = 128 << 20 // more than 300,000, where nobody rotates it
)

// login is one record of utmp.
type login struct {
	kind, user, tty, host string
	time                  int64 // unix seconds
	pid                   int32
	number                int16 // ut_type
}

// loginKinds are osquery's words for ut_type (utmp(5)).
var loginKinds = [...]string{
	"empty", "runlevel", "boot_time", "new_time", "old_time", "init", "login", "user", "dead", "accounting",
}

// A utmp record of the GNU C library. Where 64-bit programs share the file with 32-bit
// ones (x86-64 and most others) session and time are 32 bits wide, else 64; the offsets
// are those of bits/utmp.h.
const (
	utmpPid, utmpLine, utmpUser, utmpHost = 4, 8, 44, 76
	utmpSize32, utmpTime32                = 384, 340
	utmpSize64, utmpTime64                = 400, 344
)

// utmpWide says whether this architecture's records have 64-bit times
// (__WORDSIZE_TIME64_COMPAT32 is 0).
const utmpWide = runtime.GOARCH == "arm64"

// parseUtmp reads utmp records, the last of which may be cut off.
func parseUtmp(b []byte, wide bool) []*login {
	size := utmpSize32
	if wide {
		size = utmpSize64
	}
	order := binary.NativeEndian
	var out []*login
	for ; len(b) >= size; b = b[size:] {
		l := &login{
			kind: "unknown",
			pid:  int32(order.Uint32(b[utmpPid:])),
			tty:  cString(b[utmpLine : utmpLine+32]),
			user: cString(b[utmpUser : utmpUser+32]),
			host: cString(b[utmpHost : utmpHost+256]),
		}
		if l.number = int16(order.Uint16(b)); l.number >= 0 && int(l.number) < len(loginKinds) {
			l.kind = loginKinds[l.number]
		}
		if wide {
			l.time = int64(order.Uint64(b[utmpTime64:]))
		} else {
			l.time = int64(int32(order.Uint32(b[utmpTime32:])))
		}
		out = append(out, l)
	}
	return out
}

// cString is the text before the first NUL of a fixed field, or all of it.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func loggedInUsersTable(env *Env) schema.Relation {
	t := &schema.Table[*login]{
		Name: "logged_in_users",
		Doc:  "Sessions and system events as login programs record them in utmp, init's own left out.",
		Columns: []schema.Column[*login]{
			schema.Str("type", func(l *login) *string { return &l.kind }, "Kind of record: user, login, boot_time, dead …"),
			schema.Str("user", func(l *login) *string { return &l.user }, "Login name"),
			schema.Str("tty", func(l *login) *string { return &l.tty }, "Terminal, without /dev/"),
			schema.Str("host", func(l *login) *string { return &l.host }, "Remote host, or the kernel's release for boot records"),
			schema.Int("time", func(l *login) *int64 { return &l.time }, "When the record was written, unix seconds"),
			schema.Int("pid", func(l *login) *int32 { return &l.pid }, "Login process").As(schema.Integer),
			schema.Absent[*login]("sid", schema.Text, "User's SID on Windows", schema.Hidden),
			schema.Absent[*login]("registry_hive", schema.Text, "User's registry hive on Windows", schema.Hidden),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*login, error) {
		r, err := openRoot(env.HostRoot)
		if err != nil {
			return nil, err
		}
		defer r.close()
		b, err := optional(r.readFile("/var/run/utmp", maxUtmp))
		if err != nil {
			return nil, err
		}
		var rows []*login
		for _, l := range parseUtmp(b, utmpWide) {
			if l.pid != 1 {
				rows = append(rows, l)
			}
		}
		return rows, nil
	}
	return t.Bind()
}

// entryNames are osquery's words for ut_type in the table last.
var entryNames = [...]string{
	"empty", "run-level", "boot-time", "new-time", "old-time", "init-process", "login-process", "user-process", "dead-process", "accounting",
}

func lastTable(env *Env) schema.Relation {
	t := &schema.Table[*login]{
		Name: "last",
		Doc:  "Logins, logouts and boots as wtmp keeps them, the oldest first.",
		Columns: []schema.Column[*login]{
			schema.Str("username", func(l *login) *string { return &l.user }, "Login name"),
			schema.Str("tty", func(l *login) *string { return &l.tty }, "Terminal, without /dev/"),
			schema.Int("pid", func(l *login) *int32 { return &l.pid }, "Process").As(schema.Integer),
			schema.Int("type", func(l *login) *int16 { return &l.number }, "Kind of record by number (utmp(5)): 7 a login, 8 its end, 2 a boot").As(schema.Integer),
			schema.Calc("type_name", schema.Text, func(l *login) schema.Value {
				if l.number >= 0 && int(l.number) < len(entryNames) {
					return schema.TextValue(entryNames[l.number])
				}
				return schema.TextValue("unknown")
			}, "Kind of record: user-process, dead-process, boot-time …"),
			schema.Int("time", func(l *login) *int64 { return &l.time }, "When, unix seconds").As(schema.Integer),
			schema.Str("host", func(l *login) *string { return &l.host }, "Remote host, or the kernel's release for boots"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*login, error) {
		r, err := openRoot(env.HostRoot)
		if err != nil {
			return nil, err
		}
		defer r.close()
		b, err := optional(r.readFile("/var/log/wtmp", maxWtmp))
		if err != nil {
			return nil, err
		}
		var rows []*login
		for _, l := range parseUtmp(b, utmpWide) {
			if l.number != 0 {
				rows = append(rows, l)
			}
		}
		return rows, nil
	}
	return t.Bind()
}
