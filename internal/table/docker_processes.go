package table

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/goshawk-project/goshawk/internal/container"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// dockerProcess is a row of docker_container_processes.
type dockerProcess struct {
	process
	id     string
	user   string
	cpu    float64 // percent of one processor over its life, as ps(1) has it
	memory float64 // percent
}

// dockerContainerProcesses follows osquery 5.23.1, except that it starts no ps(1): Docker
// runs one on the host for each question. The processes are those of the container's cgroup,
// and start_time, which osquery copies from ps as the time elapsed, is when they started.
func dockerContainerProcesses(env *Env) schema.Relation {
	type row = *dockerProcess
	id := func(name, doc string, at func(*procfs.Status) *uint32) schema.Column[row] {
		return schema.Int(name, func(r row) *uint32 { return at(&r.status) }, doc)
	}
	number := func(name string, of func(row) int64, doc string) schema.Column[row] {
		return schema.Calc(name, schema.BigInt, func(r row) schema.Value { return schema.IntValue(of(r)) }, doc)
	}
	percent := func(name string, of func(row) float64, doc string) schema.Column[row] {
		return schema.Calc(name, schema.Double, func(r row) schema.Value { return schema.FloatValue(of(r)) }, doc)
	}
	t := &schema.Table[row]{
		Name: "docker_container_processes",
		Doc:  "Processes of a container, which is named by its ID or the beginning of it",
		Columns: []schema.Column[row]{
			schema.Str("id", func(r row) *string { return &r.id }, "Container ID", schema.Index, schema.Required).Collated("nocase"),
			schema.Int("pid", func(r row) *int { return &r.stat.PID }, "Process, as the host numbers it", schema.Index),
			schema.Str("name", func(r row) *string { return &r.stat.Comm }, "Name of the process"),
			schema.Str("cmdline", func(r row) *string { return &r.cmdline }, "Arguments joined by spaces"),
			schema.Calc("state", schema.Text, func(r row) schema.Value { return schema.TextValue(string(rune(r.stat.State))) }, "Process state, a letter of proc_pid_stat(5)"),
			id("uid", "User", func(s *procfs.Status) *uint32 { return &s.UID }),
			id("gid", "Group", func(s *procfs.Status) *uint32 { return &s.GID }),
			id("euid", "Effective user", func(s *procfs.Status) *uint32 { return &s.EUID }),
			id("egid", "Effective group", func(s *procfs.Status) *uint32 { return &s.EGID }),
			id("suid", "Saved user", func(s *procfs.Status) *uint32 { return &s.SUID }),
			id("sgid", "Saved group", func(s *procfs.Status) *uint32 { return &s.SGID }),
			number("wired_size", func(row) int64 { return 0 }, "Bytes of memory that cannot be paged out; always 0 on Linux"),
			number("resident_size", func(r row) int64 { return int64(r.stat.ResidentBytes()) }, "Bytes of memory resident"),
			number("total_size", func(r row) int64 { return int64(r.stat.Virtual) }, "Bytes of virtual memory"),
			schema.Int("start_time", func(r row) *int64 { return &r.start }, "When it started, unix seconds"),
			schema.Int("parent", func(r row) *int { return &r.stat.PPID }, "Parent"),
			schema.Int("pgroup", func(r row) *int { return &r.stat.PGroup }, "Process group"),
			schema.Int("threads", func(r row) *int { return &r.stat.Threads }, "Threads").As(schema.Integer),
			schema.Int("nice", func(r row) *int { return &r.stat.Nice }, "Nice level, -20 to 19").As(schema.Integer),
			schema.Str("user", func(r row) *string { return &r.user }, "Name that the host has for the effective user, or its number"),
			schema.Calc("time", schema.Text, func(r row) schema.Value { return schema.TextValue(psTime(r.used())) }, "Processor time used, [days-]hours:minutes:seconds"),
			percent("cpu", func(r row) float64 { return r.cpu }, "Processor time in percent of the time since its start"),
			percent("mem", func(r row) float64 { return r.memory }, "Resident memory in percent of the host's"),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		def := t.Def()
		ids, _ := dockerIDs(def, q)
		if len(ids) == 0 {
			return nil, nil
		}
		boot, err := procfs.BootTime()
		if err != nil {
			return nil, err
		}
		memory, err := env.FS.MemoryTotal()
		if err != nil {
			return nil, err
		}
		names := env.userNames(q)
		need := needs{status: true, cmdline: uses(def, q, "cmdline")}
		var rows []row
		err = eachProcess(ctx, env.FS, def, q, func(p *procfs.Process) error {
			shown, ok := shownContainer(p, ids)
			if !ok {
				return nil
			}
			r := &dockerProcess{id: shown}
			done, err := need.read(p, &r.process)
			if !done {
				return err
			}
			started := boot + int64(r.stat.StartTimeNs())
			r.start = started / 1e9
			if life := time.Now().UnixNano() - started; life > 0 {
				r.cpu = 100 * float64(r.used()) / float64(life)
			}
			if memory > 0 {
				r.memory = 100 * float64(r.stat.ResidentBytes()) / float64(memory)
			}
			if r.user = names[r.status.EUID]; r.user == "" {
				r.user = fmt.Sprint(r.status.EUID)
			}
			rows = append(rows, r)
			return err
		})
		return rows, err
	}
	return t
}

// used is the processor time that the process has had.
func (r *dockerProcess) used() time.Duration {
	return time.Duration(r.stat.UserMs()+r.stat.SysMs()) * time.Millisecond
}

// shownContainer returns the id of the container that a process is in, as a query for the
// beginnings in ids is shown it.
func shownContainer(p *procfs.Process, ids []string) (shown string, ok bool) {
	lines, err := p.Cgroup()
	if err != nil {
		return "", false
	}
	procfs.EachCgroup(lines, func(l procfs.CgroupLine) {
		if !ok {
			if r, is := container.ParsePath(string(l.Path)); is {
				shown, ok = shownID(r.ID, ids, true)
			}
		}
	})
	return shown, ok
}

// userNames are the host's names of users.
func (env *Env) userNames(q *schema.Query) map[uint32]string {
	r, err := openRoot(env.HostRoot)
	if err != nil {
		q.Warning(err.Error())
		return nil
	}
	defer r.close()
	accounts, err := (&scope{root: r}).accounts()
	if err != nil {
		q.Warning(err.Error())
	}
	names := make(map[uint32]string, len(accounts))
	for _, a := range accounts {
		if names[a.uid] == "" {
			names[a.uid] = a.name
		}
	}
	return names
}

// psTime prints processor time as ps(1) does.
func psTime(d time.Duration) string {
	s := int64(d / time.Second)
	var b strings.Builder
	if days := s / 86400; days > 0 {
		fmt.Fprintf(&b, "%d-", days)
	}
	fmt.Fprintf(&b, "%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	return b.String()
}
