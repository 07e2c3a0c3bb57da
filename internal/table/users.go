package table

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"strconv"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// maxAccounts bounds /etc/passwd and /etc/group: about 300,000 lines.
const maxAccounts = 32 << 20

// account is one line of /etc/passwd.
type account struct {
	name, description, home, shell string
	uid, gid                       uint32
	pid                            int64
}

// group is one line of /etc/group.
type group struct {
	name    string
	gid     uint32
	members []string
	pid     int64
}

// parseAccounts reads /etc/passwd (passwd(5)) as forgivingly as the GNU C library, so that
// no line can log in and yet stay out of the table: blanks may lead, the fields after the
// group may be missing, numbers may have a sign. Comments, NIS's + and - lines, and lines
// without two numbers are left out.
func parseAccounts(b []byte) []account {
	var out []account
	for line := range bytes.Lines(b) {
		f := accountFields(line, 7)
		if len(f) < 4 {
			continue
		}
		uid, ok := parseID(f[2])
		gid, too := parseID(f[3])
		if !ok || !too {
			continue
		}
		for len(f) < 7 {
			f = append(f, nil)
		}
		out = append(out, account{
			name: string(f[0]), uid: uid, gid: gid,
			description: string(f[4]), home: string(f[5]), shell: string(f[6]),
		})
	}
	return out
}

// parseGroups reads /etc/group (group(5)), as forgiving as parseAccounts.
func parseGroups(b []byte) []group {
	var out []group
	for line := range bytes.Lines(b) {
		f := accountFields(line, 4)
		if len(f) < 3 {
			continue
		}
		gid, ok := parseID(f[2])
		if !ok {
			continue
		}
		g := group{name: string(f[0]), gid: gid}
		if len(f) == 4 {
			for m := range bytes.SplitSeq(f[3], []byte{','}) {
				if m = bytes.TrimSpace(m); len(m) > 0 {
					g.members = append(g.members, string(m))
				}
			}
		}
		out = append(out, g)
	}
	return out
}

// accountFields splits a line at its first n-1 colons; nil for a line that names nobody.
func accountFields(line []byte, n int) [][]byte {
	line = bytes.TrimLeft(bytes.TrimRight(line, "\r\n"), " \t\v\f")
	if len(line) == 0 || bytes.IndexByte([]byte("#+-:"), line[0]) >= 0 {
		return nil
	}
	return bytes.SplitN(line, []byte{':'}, n)
}

// parseID reads a user or group number as strtoul(3) does, a number that does not fit
// becoming the greatest one.
func parseID(b []byte) (uint32, bool) {
	b = bytes.TrimLeft(b, " \t\v\f")
	digits := bytes.TrimPrefix(b, []byte{'+'})
	negative := false
	if len(digits) == len(b) {
		digits = bytes.TrimPrefix(b, []byte{'-'})
		negative = len(digits) < len(b)
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	if len(digits) == 0 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(digits), 10, 32)
	if err != nil || negative && n != 0 {
		return math.MaxUint32, true
	}
	return uint32(n), true
}

// optional turns the absence of a file into no content: an image without /etc/passwd has
// no users, which is no error.
func optional(b []byte, err error) ([]byte, error) {
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func (s *scope) accounts() ([]account, error) {
	b, err := optional(s.readFile("/etc/passwd", maxAccounts))
	return parseAccounts(b), err
}

func (s *scope) groups() ([]group, error) {
	b, err := optional(s.readFile("/etc/group", maxAccounts))
	return parseGroups(b), err
}

// wanted returns a test for whether column i, constrained by = or IN to some values, may
// hold n. Without such a constraint it may hold anything.
func wanted(q *schema.Query, i int) func(n int64) bool {
	values, asked := q.Equals(i)
	if !asked {
		return func(int64) bool { return true }
	}
	set := make(map[int64]bool, len(values))
	for _, v := range values {
		set[v.Int()] = true
	}
	return func(n int64) bool { return set[n] }
}

func usersTable(env *Env) schema.Relation {
	t := &schema.Table[*account]{
		Name: "users",
		Doc:  "Local accounts: the lines of /etc/passwd, several with the same number included.",
		Columns: []schema.Column[*account]{
			schema.Int("uid", func(a *account) *uint32 { return &a.uid }, "User ID", schema.Index),
			schema.Int("gid", func(a *account) *uint32 { return &a.gid }, "Primary group ID"),
			signed("uid_signed", func(a *account) uint32 { return a.uid }, "User ID as a signed 32-bit number"),
			signed("gid_signed", func(a *account) uint32 { return a.gid }, "Primary group ID as a signed 32-bit number"),
			schema.Str("username", func(a *account) *string { return &a.name }, "Login name", schema.Additional),
			schema.Str("description", func(a *account) *string { return &a.description }, "Full name and other remarks (GECOS field)"),
			schema.Str("directory", func(a *account) *string { return &a.home }, "Home directory"),
			schema.Str("shell", func(a *account) *string { return &a.shell }, "Program started at login"),
			schema.Absent[*account]("uuid", schema.Text, "User's UUID on macOS, SID on Windows; empty on Linux", schema.Index).Collated("nocase"),
			schema.Int("pid_with_namespace", func(a *account) *int64 { return &a.pid }, namespaceDoc, schema.Hidden, schema.Additional).As(schema.Integer),
			schema.Absent[*account]("include_remote", schema.Integer, "Not supported: accounts of directory services are never listed", schema.Hidden, schema.Additional),
			schema.Absent[*account]("type", schema.Text, "Kind of account on Windows", schema.Hidden),
			schema.Absent[*account]("is_hidden", schema.Integer, "Hidden from the login window on macOS", schema.Hidden),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*account, error) {
		def := t.Def()
		keep := wanted(q, def.Column("uid"))
		var rows []*account
		err := env.eachScope(def, q, func(s *scope) error {
			accounts, err := s.accounts()
			for i := range accounts {
				if a := &accounts[i]; keep(int64(a.uid)) {
					a.pid = s.pid
					rows = append(rows, a)
				}
			}
			return err
		})
		return rows, err
	}
	return t.Bind()
}

// namespaceDoc is what pid_with_namespace means in every table that has it.
const namespaceDoc = "Process in whose mount namespace to look; 0 is the host"

// signed is a number that osquery shows once more as C's int32_t, for Apple's nobody, -2.
func signed[T any](name string, of func(T) uint32, doc string) schema.Column[T] {
	return schema.Calc(name, schema.BigInt, func(r T) schema.Value { return schema.IntValue(int64(int32(of(r)))) }, doc)
}

func groupsTable(env *Env) schema.Relation {
	t := &schema.Table[*group]{
		Name: "groups",
		Doc:  "Local groups: the lines of /etc/group, several with the same number included.",
		Columns: []schema.Column[*group]{
			schema.Int("gid", func(g *group) *uint32 { return &g.gid }, "Group ID", schema.Index),
			signed("gid_signed", func(g *group) uint32 { return g.gid }, "Group ID as a signed 32-bit number"),
			schema.Str("groupname", func(g *group) *string { return &g.name }, "Group's name"),
			schema.Int("pid_with_namespace", func(g *group) *int64 { return &g.pid }, namespaceDoc, schema.Hidden, schema.Additional).As(schema.Integer),
			schema.Absent[*group]("group_sid", schema.Text, "Group's SID on Windows", schema.Hidden, schema.Index),
			schema.Absent[*group]("comment", schema.Text, "Remarks on Windows", schema.Hidden),
			schema.Absent[*group]("is_hidden", schema.Integer, "Hidden from the login window on macOS", schema.Hidden),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*group, error) {
		def := t.Def()
		keep := wanted(q, def.Column("gid"))
		var rows []*group
		err := env.eachScope(def, q, func(s *scope) error {
			groups, err := s.groups()
			for i := range groups {
				if g := &groups[i]; keep(int64(g.gid)) {
					g.pid = s.pid
					rows = append(rows, g)
				}
			}
			return err
		})
		return rows, err
	}
	return t.Bind()
}

// membership is one user in one group.
type membership struct{ uid, gid uint32 }

// memberships returns who is in which group: the primary group first, then the groups
// that name the user, each pair once.
func memberships(accounts []account, groups []group, keep func(int64) bool) []*membership {
	byMember := map[string][]uint32{}
	for _, g := range groups {
		for _, m := range g.members {
			byMember[m] = append(byMember[m], g.gid)
		}
	}
	var out []*membership
	seen := map[membership]bool{}
	add := func(m membership) {
		if !seen[m] {
			seen[m] = true
			out = append(out, &m)
		}
	}
	for _, a := range accounts {
		if !keep(int64(a.uid)) {
			continue
		}
		add(membership{a.uid, a.gid})
		for _, gid := range byMember[a.name] {
			add(membership{a.uid, gid})
		}
	}
	return out
}

func userGroupsTable(env *Env) schema.Relation {
	t := &schema.Table[*membership]{
		Name: "user_groups",
		Doc:  "Which local user is in which local group.",
		Columns: []schema.Column[*membership]{
			schema.Int("uid", func(m *membership) *uint32 { return &m.uid }, "User ID", schema.Index, schema.Optimized),
			schema.Int("gid", func(m *membership) *uint32 { return &m.gid }, "Group ID", schema.Index),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*membership, error) {
		r, err := openRoot(env.HostRoot)
		if err != nil {
			return nil, err
		}
		defer r.close()
		s := &scope{root: r}
		accounts, err := s.accounts()
		if err != nil {
			return nil, err
		}
		groups, err := s.groups()
		if err != nil {
			return nil, err
		}
		return memberships(accounts, groups, wanted(q, t.Def().Column("uid"))), nil
	}
	return t.Bind()
}
