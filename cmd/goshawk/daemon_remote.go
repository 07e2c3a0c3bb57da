package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/goshawk-project/goshawk/internal/agent"
	"github.com/goshawk-project/goshawk/internal/canary"
	"github.com/goshawk-project/goshawk/internal/config"
	api "github.com/goshawk-project/goshawk/internal/remote"
	"github.com/goshawk-project/goshawk/internal/schedule"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
	"github.com/goshawk-project/goshawk/internal/table"
)

// remoteParts are what speaks to a server.
type remoteParts struct {
	node        *api.Node
	distributed *api.Distributed
	carver      *api.Carver // nil: files are not carved
	needed      bool        // the daemon makes no sense without the server
	queries     bool        // the server is asked for queries
	running     atomic.Pointer[string]
}

// ephemeralID names this process.
var ephemeralID = newUUID()

// openRemote makes what speaks to the server, nil when nothing does.
func (d *daemon) openRemote() (*remoteParts, error) {
	f := d.line
	p := &remoteParts{
		needed:  f.String("config_plugin") == "tls" || d.loggers.tls,
		queries: !f.Bool("disable_distributed") && f.String("distributed_plugin") == "tls",
	}
	if f.String("tls_hostname") == "" {
		if p.needed {
			return nil, failf(exitUsage, "--tls_hostname: a server is needed for --config_plugin=tls and --logger_plugin=tls")
		}
		return nil, nil
	}
	client, err := api.NewClient(api.Options{
		Hostname: f.String("tls_hostname"), ServerCerts: f.String("tls_server_certs"), ClientCert: f.String("tls_client_cert"),
		ClientKey: f.String("tls_client_key"), Proxy: f.String("proxy_hostname"), KeepAlive: f.Bool("tls_session_reuse"),
		SessionTimeout: f.Seconds("tls_session_timeout"), AcceptGzip: f.Bool("tls_accept_gzip"), Version: table.OsqueryVersion,
		Timeout: d.timeout, Now: d.now,
	})
	if err != nil {
		return nil, failf(exitUsage, "%w", err)
	}
	p.node = &api.Node{
		Client: client, State: d.state, Logger: d.logger, EnrollEndpoint: f.String("enroll_tls_endpoint"),
		Secret: secretOf(f), SecretName: f.String("tls_enroll_override"), Details: d.details,
		MaxAttempts: int(min(f.Int("tls_enroll_max_attempts"), 1<<30)), MaxInterval: f.Seconds("tls_enroll_max_interval"),
		NoEnrollment: f.Bool("disable_enrollment"), NoReenrollment: f.Bool("disable_reenrollment"),
		Now: d.now, Sleep: d.sleep,
	}
	p.distributed = &api.Distributed{
		Node: p.node, Engine: d.engines,
		Read:       func() string { return d.f().String("distributed_tls_read_endpoint") },
		Write:      func() string { return d.f().String("distributed_tls_write_endpoint") },
		Attempts:   func() int { return int(min(d.f().Int("distributed_tls_max_attempts"), 100)) },
		Interval:   func() time.Duration { return d.f().Seconds("distributed_interval") },
		Denylist:   func() time.Duration { return d.f().Seconds("distributed_denylist_duration") },
		LogQueries: func() bool { return d.f().Bool("distributed_loginfo") },
		Text:       func(v schema.Value) string { return schedule.CellText(v, d.f().String("nullvalue")) },
		Usage:      remoteUsage, Running: func(id string) { p.running.Store(&id) },
	}
	if !f.Bool("disable_carver") {
		p.carver = &api.Carver{
			Node: p.node, Start: func() string { return f.String("carver_start_endpoint") }, Continue: func() string { return f.String("carver_continue_endpoint") },
			BlockSize: func() int { return int(f.Int("carver_block_size")) }, Compress: func() bool { return f.Bool("carver_compression") },
			Expiry: func() time.Duration { return f.Seconds("carver_expiry") }, HashMax: func() int64 { return d.f().Int("read_max") },
			Root: d.env.HostRoot, Dir: d.options.store(),
		}
		p.carver.Init()
		d.env.Carves, d.env.Carve = p.carves, p.carve
	}
	d.loggers.server(p.node)
	return p, nil
}

func (p *remoteParts) start(d *daemon, start func(func(context.Context))) {
	if p.queries {
		if err := p.distributed.Forget(); err != nil {
			d.warn(fmt.Sprintf("distributed queries: %v", err))
		}
		start(p.distributed.Run)
	}
	if p.carver != nil {
		start(p.carver.Run)
	}
}

// carves are the rows of the table.
func (p *remoteParts) carves() ([]table.Carve, error) {
	list, err := p.carver.List()
	if err != nil {
		return nil, err
	}
	var out []table.Carve
	for _, c := range list {
		out = append(out, table.Carve{Time: c.Time, SHA256: c.SHA256, Size: c.Size, Path: c.Path, Status: c.Status, GUID: c.GUID, RequestID: c.RequestID})
	}
	return out, nil
}

// carve begins to carve the files that patterns match, for the distributed query that runs.
func (p *remoteParts) carve(patterns []string) (string, error) {
	var paths []string
	for _, pattern := range patterns {
		found, err := config.Glob(pattern)
		if err != nil {
			return "", err
		}
		paths = append(paths, found...)
	}
	if len(paths) == 0 {
		return "", nil
	}
	id := ""
	if running := p.running.Load(); running != nil {
		id = *running
	}
	return p.carver.Request(paths, id)
}

// secretOf returns what reads the enrolment secret when it is needed.
func secretOf(f *config.Flags) func() (string, error) {
	path, env := f.String("enroll_secret_path"), f.String("enroll_secret_env")
	return func() (string, error) {
		if path == "" {
			return os.Getenv(env), nil
		}
		b, err := os.ReadFile(path)
		return strings.TrimSpace(string(b)), err
	}
}

// details describe this host to the server.
func (d *daemon) details(ctx context.Context) (identifier string, details []byte, err error) {
	details = []byte{'{'}
	for _, name := range [...]string{"os_version", "osquery_info", "system_info", "platform_info"} {
		r := &firstRow{}
		err := d.engines.Query(ctx, "SELECT * FROM "+name, r)
		if err != nil && !errors.Is(err, errFirst) || len(r.row) == 0 {
			continue // as in osquery, what is not known is left out
		}
		if len(details) > 1 {
			details = append(details, ',')
		}
		details = append(schema.AppendString(details, name), ":{"...)
		for i, column := range r.names {
			if i > 0 {
				details = append(details, ',')
			}
			details = append(schema.AppendString(details, column), ':')
			details = schema.AppendString(details, schedule.CellText(r.row[i], ""))
		}
		details = append(details, '}')
	}
	if err := ctx.Err(); err != nil {
		return "", nil, err
	}
	return d.hostIdentifier(), append(details, '}'), nil
}

// Query implements ctl.Handler. What happened before the question is part of the answer.
func (d *daemon) Query(ctx context.Context, text string, r sql.Receiver) error {
	if err := d.agent.Sync(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, agent.ErrStopped) {
		r.Warning(fmt.Sprintf("the newest events are missing: %v", err))
	}
	return d.engines.Query(ctx, text, r)
}

// Status implements ctl.Handler.
func (d *daemon) Status(ctx context.Context) ([]byte, error) {
	return (&answers{agent: d.agent, store: d.watch.store}).Status(ctx)
}

// self is the agent as its tables show it.
func (d *daemon) self(ctx context.Context) (table.SelfStatus, error) {
	return (&answers{agent: d.agent}).self(ctx)
}

func (d *daemon) tellSilent(silent []canary.Result) {
	d.warn(tellSilent(silent))
	_ = d.agent.TellLosses(context.Background()) // fails when the agent has ended, which tells them too
}
