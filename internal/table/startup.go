package table

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// Where systemd listens: itself, for root, and through the bus.
const (
	systemdSocket = "/run/systemd/private"
	busSocket     = "/run/dbus/system_bus_socket"
	systemdWait   = 10 * time.Second
)

// systemdUnit is a row of systemd_units.
type systemdUnit struct {
	systemd.UnitStatus
	jobID                             int64
	objectPath, jobPath               string
	fileState, fragment, user, source string
}

// dialSystemd connects to the service manager of the host.
func (env *Env) dialSystemd(ctx context.Context) (*systemd.Conn, error) {
	at := func(socket string) string { return "unix:path=" + filepath.Join("/", env.HostRoot, socket) }
	conn, err := systemd.NewConnection(func() (*dbus.Conn, error) { return dialBus(ctx, at(systemdSocket), false) })
	if err == nil {
		return conn, nil
	}
	conn, other := systemd.NewConnection(func() (*dbus.Conn, error) { return dialBus(ctx, at(busSocket), true) })
	if other == nil {
		return conn, nil
	}
	return nil, errors.Join(err, other)
}

func dialBus(ctx context.Context, address string, hello bool) (*dbus.Conn, error) {
	conn, err := dbus.Dial(address, dbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err == nil && hello {
		err = conn.Hello()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// eachUnit calls add with each unit that systemd has loaded, and the properties asked for.
// A host without systemd has none.
func (env *Env) eachUnit(ctx context.Context, q *schema.Query, fileState, fragment, user, source bool, add func(*systemdUnit)) {
	ctx, cancel := context.WithTimeout(ctx, systemdWait)
	defer cancel()
	conn, err := env.dialSystemd(ctx)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			q.Warning(fmt.Sprintf("ask systemd: %v", err))
		}
		return
	}
	defer conn.Close()
	units, err := conn.ListUnitsContext(ctx)
	if err != nil {
		q.Warning(fmt.Sprintf("list units of systemd: %v", err))
		return
	}
	text := func(wanted bool, get func(context.Context, string, string) (*systemd.Property, error), unit, name string) string {
		if !wanted {
			return ""
		}
		p, err := get(ctx, unit, name)
		if err != nil {
			return ""
		}
		s, _ := p.Value.Value().(string)
		return s
	}
	for _, s := range units {
		u := &systemdUnit{UnitStatus: s, jobID: int64(s.JobId), objectPath: string(s.Path), jobPath: string(s.JobPath)}
		u.fileState = text(fileState, conn.GetUnitPropertyContext, s.Name, "UnitFileState")
		u.fragment = text(fragment, conn.GetUnitPropertyContext, s.Name, "FragmentPath")
		u.source = text(source, conn.GetUnitPropertyContext, s.Name, "SourcePath")
		u.user = text(user && strings.HasSuffix(s.Name, ".service"), conn.GetServicePropertyContext, s.Name, "User")
		add(u)
	}
	if err := ctx.Err(); err != nil {
		q.Warning(fmt.Sprintf("ask systemd for the properties of %d units: %v", len(units), err))
	}
}

func systemdUnitsTable(env *Env) schema.Relation {
	type row = *systemdUnit
	t := &schema.Table[row]{
		Name: "systemd_units",
		Doc:  "Units that systemd has loaded.",
		Columns: []schema.Column[row]{
			schema.Str("id", func(u row) *string { return &u.Name }, "Unit's name"),
			schema.Str("description", func(u row) *string { return &u.Description }, "What it is"),
			schema.Str("load_state", func(u row) *string { return &u.LoadState }, "loaded, not-found, masked …"),
			schema.Str("active_state", func(u row) *string { return &u.ActiveState }, "active, inactive, failed …"),
			schema.Str("sub_state", func(u row) *string { return &u.SubState }, "State in words of its own type: running, exited, mounted …"),
			schema.Str("unit_file_state", func(u row) *string { return &u.fileState }, "enabled, disabled, static, masked …"),
			schema.Str("following", func(u row) *string { return &u.Followed }, "Unit whose state it follows"),
			schema.Str("object_path", func(u row) *string { return &u.objectPath }, "Its path on D-Bus"),
			schema.Int("job_id", func(u row) *int64 { return &u.jobID }, "Queued job, 0 when there is none"),
			schema.Str("job_type", func(u row) *string { return &u.JobType }, "Type of that job"),
			schema.Str("job_path", func(u row) *string { return &u.jobPath }, "That job's path on D-Bus"),
			schema.Str("fragment_path", func(u row) *string { return &u.fragment }, "Unit file"),
			schema.Str("user", func(u row) *string { return &u.user }, "User that a service runs as, when it names one"),
			schema.Str("source_path", func(u row) *string { return &u.source }, "File that the unit was made from"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		uses := func(name string) bool { return q.Uses(t.Def().Column(name)) }
		env.eachUnit(ctx, q, uses("unit_file_state"), uses("fragment_path"), uses("user"), uses("source_path"), func(u row) { rows = append(rows, u) })
		return rows, ctx.Err()
	}
	return t.Bind()
}

// startupItem is a row of startup_items.
type startupItem struct{ name, path, args, kind, source, status, user string }

// Where programs to start at boot and at login are named: scripts, and desktop entries
// (freedesktop.org, "Desktop Application Autostart").
const (
	initScripts   = "/etc/init.d"
	autostart     = "/etc/xdg/autostart"
	userAutostart = ".config/autostart"
	userScripts   = ".config/autostart-scripts"
)

// startupScripts calls add with each script in a directory.
func (s *scope) startupScripts(dir, user string, add func(*startupItem)) {
	for _, name := range s.entries(dir) {
		if file := path.Join(dir, name); s.isFile(file) && name != "README" {
			add(&startupItem{name: name, path: file, kind: "Startup Item", source: dir, status: "enabled", user: user})
		}
	}
}

// startupEntries calls add with each desktop entry in a directory. Hidden ones are disabled.
func (s *scope) startupEntries(dir, user string, add func(*startupItem)) {
	for _, name := range s.entries(dir) {
		b, err := s.readFile(path.Join(dir, name), maxManifest)
		if err != nil {
			continue
		}
		item := &startupItem{name: name, kind: "Startup Item", source: dir, status: "enabled", user: user}
		group := ""
		for line := range strings.Lines(string(b)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "[") {
				group = line
			}
			key, value, ok := strings.Cut(line, "=")
			if !ok || group != "" && group != "[Desktop Entry]" {
				continue
			}
			switch value = strings.TrimSpace(value); strings.TrimSpace(key) {
			case "Name":
				item.name = value
			case "Exec":
				item.path, item.args, _ = strings.Cut(value, " ")
			case "Hidden":
				if value == "true" {
					item.status = "disabled"
				}
			}
		}
		add(item)
	}
}

func startupItemsTable(env *Env) schema.Relation {
	type row = *startupItem
	t := &schema.Table[row]{
		Name: "startup_items",
		Doc:  "What starts at boot or at login: scripts, desktop entries, units of systemd.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(i row) *string { return &i.name }, "Name"),
			schema.Str("path", func(i row) *string { return &i.path }, "Program, script or unit file"),
			schema.Str("args", func(i row) *string { return &i.args }, "Arguments of the program"),
			schema.Str("type", func(i row) *string { return &i.kind }, "Startup Item or systemd unit"),
			schema.Str("source", func(i row) *string { return &i.source }, "Directory it stands in, or what the unit was made from"),
			schema.Str("status", func(i row) *string { return &i.status }, "enabled or disabled; active, inactive, failed … for units"),
			schema.Str("username", func(i row) *string { return &i.user }, "User at whose login, or as whom, it starts"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		add := func(i row) { rows = append(rows, i) }
		err := env.eachScope(t.Def(), q, func(s *scope) error {
			accounts, err := s.accounts()
			if err != nil {
				return err
			}
			seen := map[string]bool{}
			for _, a := range accounts {
				if a.home != "" && !seen[a.home] {
					seen[a.home] = true
					s.startupEntries(join(a.home, userAutostart), a.name, add)
					s.startupScripts(join(a.home, userScripts), a.name, add)
				}
			}
			s.startupScripts(initScripts, "", add)
			s.startupEntries(autostart, "", add)
			return nil
		})
		if err != nil {
			return nil, err
		}
		env.eachUnit(ctx, q, false, true, true, true, func(u *systemdUnit) {
			add(&startupItem{name: u.Name, path: u.fragment, kind: "systemd unit", source: u.source, status: u.ActiveState, user: u.user})
		})
		return rows, ctx.Err()
	}
	return t.Bind()
}
