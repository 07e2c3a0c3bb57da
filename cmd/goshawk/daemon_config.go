package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/schedule"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
	"github.com/goshawk-project/goshawk/internal/state"
	"github.com/goshawk-project/goshawk/internal/table"
)

// firstConfig gets the first configuration. Without one the daemon runs, and asks again; but
// a host that cannot enrol has no server, and ends.
func (d *daemon) firstConfig(ctx context.Context) error {
	// The tables before any configuration, which enrolment asks about this host.
	if err := d.apply(&config.Config{}, d.line); err != nil {
		return err
	}
	if d.remote != nil && d.remote.needed {
		if d.line.Bool("enroll_always") {
			if err := d.remote.node.Forget(""); err != nil {
				return err
			}
		}
		if _, err := d.remote.node.Key(ctx); err != nil {
			return err
		}
	}
	err := d.reload(ctx)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	d.logger.Error(err.Error())
	if d.line.Bool("config_enable_backup") {
		if err := d.restore(); err != nil {
			d.logger.Error(fmt.Sprintf("restore configuration: %v", err))
		}
	}
	return nil
}

// sources reads the configuration from where config_plugin says; local tells that it is this
// host's own.
func (d *daemon) sources(ctx context.Context) (list []config.Source, local bool, err error) {
	switch plugin := d.line.String("config_plugin"); plugin {
	case "filesystem":
		list, err = config.ReadFiles(d.line.String("config_path"))
		return list, true, err
	case "tls":
		text, err := d.remote.node.Config(ctx, d.line.String("config_tls_endpoint"), int(d.line.Int("config_tls_max_attempts")))
		return []config.Source{{Name: "tls_plugin", Text: text}}, false, err
	default:
		return nil, false, fmt.Errorf("--config_plugin: %q is not supported; plugins are filesystem, tls", plugin)
	}
}

// withLocalOptions adds the options of a configuration in files to flags, for what is opened
// before the configuration is in force. What is wrong with it is told then.
func withLocalOptions(flags *config.Flags) *config.Flags {
	if flags.String("config_plugin") != "filesystem" {
		return flags
	}
	list, err := config.ReadFiles(flags.String("config_path"))
	if err != nil {
		return flags
	}
	c, err := config.Load(list, loadOptions(true))
	if err != nil {
		return flags
	}
	f, _ := flags.With(c.Options, false)
	return f
}

// reload reads the configuration and puts it in force. When it is wrong the last good one
// stays.
func (d *daemon) reload(ctx context.Context) error {
	list, local, err := d.sources(ctx)
	if err == nil {
		err = d.load(list, local)
	}
	d.mu.Lock()
	d.valid = err == nil
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if d.line.Bool("config_enable_backup") {
		return d.backup(list)
	}
	return nil
}

// load puts a configuration in force, unless it is the one that is.
func (d *daemon) load(list []config.Source, local bool) error {
	c, err := config.Load(list, loadOptions(local))
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	d.mu.Lock()
	same := d.config != nil && d.config.Hash == c.Hash
	d.mu.Unlock()
	if same {
		return nil
	}
	f, problems := d.line.With(c.Options, !local)
	for _, p := range append(c.Problems, problems...) {
		d.warn(p.String())
	}
	d.warnIdle(f.Idle())
	if fmt.Sprint(auditingOf(f)) != fmt.Sprint(d.options.auditing) {
		d.warn("flags about audit count at the start, and from the command line, flag files or a configuration in files: these of the configuration are not in force")
	}
	if err := d.apply(c, f); err != nil {
		return err
	}
	d.mu.Lock()
	d.config = c
	d.mu.Unlock()
	d.logger.Info(fmt.Sprintf("configuration %s: %d queries, %d packs", c.Hash[:8], len(c.Schedule), len(c.Packs)))
	return nil
}

// warnIdle tells, once, which flags were given that mean nothing here.
func (d *daemon) warnIdle(names []string) {
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(d.idleTold, name) })
	if len(names) > 0 {
		d.idleTold = append(d.idleTold, names...)
		d.warn("accepted, and without effect here: " + strings.Join(names, ", "))
	}
}

// apply puts a configuration and its flags in force.
func (d *daemon) apply(c *config.Config, f *config.Flags) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	return d.put(c, f)
}

// put is apply, for whoever holds applying.
func (d *daemon) put(c *config.Config, f *config.Flags) error {
	d.inForce = c
	// The engine only when it would be another: queries that run keep theirs.
	key, err := json.Marshal([]any{c.Tables, c.Views, c.DisableSubscribers, f.Bool("audit_allow_fork_process_events"),
		f.Bool("audit_allow_failed_socket_events"), f.Bool("audit_allow_null_accept_socket_events"), f.Bool("audit_allow_unix"),
		f.Bool("audit_allow_accept_socket_events"), f.Bool("audit_fim_show_accesses"), d.extensionNames()})
	if err != nil {
		return err
	}
	d.mu.Lock()
	build := string(key) != d.engined
	d.mu.Unlock()
	if build {
		engine, err := d.buildEngine(c, f)
		if err != nil {
			return err
		}
		d.engines.set(engine)
		d.mu.Lock()
		d.engined = string(key)
		d.mu.Unlock()
	}
	d.flags.Store(f)
	if err := d.watchFiles(c, f); err != nil {
		return err
	}
	d.loggers.apply(f)
	d.state.SetLimits(f.Int("buffered_log_max"), f.Int("buffered_log_max_bytes"))
	d.watch.store.SetMaxAge(retention(c, f))
	set := schedule.Setting{Config: c, Flags: f, Host: d.hostIdentifier(), Results: d.loggers.results, Snapshots: d.loggers.snapshots}
	if f.Bool("disable_logging") {
		set.Results, set.Snapshots = nil, nil
	}
	d.scheduler.Set(set)
	return nil
}

// retention is how long events are kept: events_expiry, but three times the longest interval
// at least, so that a query that is late still finds them, as in osquery. 0 is for ever.
func retention(c *config.Config, f *config.Flags) time.Duration {
	expiry := f.Seconds("events_expiry")
	if expiry == 0 {
		return 0
	}
	longest := uint64(0)
	add := func(list []config.Query) {
		for _, q := range list {
			interval := q.Interval
			if interval == 0 {
				interval = uint64(f.Int("schedule_default_interval"))
			}
			if strings.Contains(strings.ToLower(q.SQL), "_events") {
				longest = max(longest, interval)
			}
		}
	}
	add(c.Schedule)
	for _, p := range c.Packs {
		add(p.Queries)
	}
	floor := (3*longest + 59) / 60 * 60
	return max(expiry, time.Duration(floor)*time.Second)
}

const domainBackup = "configurations" // by source: its text, of the last good configuration

// backup keeps the last good configuration for a start without one.
func (d *daemon) backup(list []config.Source) error {
	return d.state.Update(true, func(tx *state.Tx) error {
		old, err := tx.List(domainBackup)
		if err != nil {
			return err
		}
		for _, p := range old {
			if err := tx.Delete(domainBackup, p.Key); err != nil {
				return err
			}
		}
		for _, s := range list {
			if err := tx.Put(domainBackup, s.Name, string(s.Text)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *daemon) restore() error {
	old, err := d.state.List(domainBackup)
	if err != nil || len(old) == 0 {
		return err
	}
	d.logger.Info("Restoring backed up config from the database")
	var list []config.Source
	for _, p := range old {
		list = append(list, config.Source{Name: p.Key, Text: []byte(p.Value)})
	}
	return d.load(list, d.line.String("config_plugin") == "filesystem")
}

// refresh reads the configuration again each config_refresh, sooner after a failure, and
// when a signal asks for it.
func (d *daemon) refresh(ctx context.Context, hangup <-chan os.Signal) {
	failed := false
	for {
		wait := d.line.Seconds("config_refresh")
		if failed && wait > 0 {
			wait = d.line.Seconds("config_accelerated_refresh")
		}
		if wait == 0 {
			wait = 365 * 24 * time.Hour
		}
		napping, wake := context.WithCancel(ctx)
		asked := make(chan struct{})
		go func() { // ends with napping
			select {
			case <-hangup:
				close(asked)
				wake()
			case <-napping.Done():
			}
		}()
		_ = d.sleep(napping, wait)
		wake()
		if ctx.Err() != nil {
			return
		}
		select {
		case <-asked:
			d.logger.Info("SIGHUP: the configuration is read again")
		default:
		}
		err := d.reload(ctx)
		if failed = err != nil; failed && ctx.Err() == nil {
			d.logger.Error(err.Error())
		}
	}
}

// configHash is what osquery_info tells of the configuration.
func (d *daemon) configHash() (hash string, valid bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.config == nil {
		return "", false
	}
	return d.config.Hash, d.valid
}

// hostIdentifier is what lines call this host.
func (d *daemon) hostIdentifier() string {
	f := d.f()
	id := ""
	switch f.String("host_identifier") {
	case "uuid":
		id = d.cell("SELECT uuid FROM system_info")
	case "instance":
		id = d.env.InstanceID
	case "ephemeral":
		id = ephemeralID
	case "specified":
		id = f.String("specified_identifier")
	}
	if id == "" {
		id = d.cell("SELECT hostname FROM system_info")
	}
	return id
}

// cell returns the first cell of a query about this host, "" when there is none.
func (d *daemon) cell(text string) string {
	r := &firstRow{}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.engines.Query(ctx, text, r); err != nil && !errors.Is(err, errFirst) || len(r.row) == 0 {
		return ""
	}
	return schedule.CellText(r.row[0], "")
}

var errFirst = errors.New("the first row is enough")

// firstRow takes the first row of a query.
type firstRow struct {
	names []string
	row   []schema.Value
}

func (r *firstRow) Columns(names, _ []string) error { r.names = names; return nil }
func (r *firstRow) Row(row []schema.Value) error {
	r.row = append([]schema.Value(nil), row...)
	return errFirst
}
func (r *firstRow) Warning(string) {}

var _ sql.Receiver = (*firstRow)(nil)

// scheduleRows are the rows of osquery_schedule.
func (d *daemon) scheduleRows() []table.ScheduledQuery {
	var out []table.ScheduledQuery
	for _, q := range d.scheduler.Queries() {
		out = append(out, table.ScheduledQuery{
			Name: q.Name, SQL: q.SQL, Interval: int64(q.Interval), Executions: int64(q.Executions), LastExecuted: q.LastExecuted,
			Denylisted: q.Denylisted, OutputSize: q.OutputSize, WallTime: q.WallMS / 1000, WallMS: q.WallMS, LastWallMS: q.LastMS,
			UserMS: q.UserMS, LastUserMS: q.LastUserMS, SystemMS: q.SystemMS, LastSystemMS: q.LastSystemMS,
			AverageMemory: q.AverageMemory, LastMemory: q.LastMemory,
		})
	}
	return out
}

// packRows are the rows of osquery_packs.
func (d *daemon) packRows() []table.Pack {
	var out []table.Pack
	for _, p := range d.scheduler.Packs() {
		out = append(out, table.Pack{
			Name: p.Name, Platform: p.Platform, Version: p.Version, Shard: int64(p.Shard),
			CacheHits: int64(p.Hits), Executions: int64(p.Executions), Active: p.Active,
		})
	}
	return out
}
