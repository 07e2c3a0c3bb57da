package main

import (
	"context"
	"strconv"

	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
	"github.com/goshawk-project/goshawk/internal/table"
)

// relations are all tables, in the order in which they are listed: events over log, the
// present state of the host, and the agent's own. status is nil when there is no agent,
// log is nil when only definitions are wanted.
func relations(env *table.Env, status func(context.Context) (table.SelfStatus, error), log event.Log) []schema.Relation {
	return relationsWith(env, status, log, table.EventOptions{})
}

func relationsWith(env *table.Env, status func(context.Context) (table.SelfStatus, error), log event.Log, o table.EventOptions) []schema.Relation {
	var defs []*schema.Def
	env.Tables = func() []*schema.Def { return defs }
	all := table.EventTables(log, o)
	subscribers := table.Subscribers(all)
	all = append(all, table.All(env)...)
	all = append(all, table.SelfTables(table.Self{Status: status, Subscribers: subscribers})...)
	for _, r := range all {
		defs = append(defs, r.Def())
	}
	return all
}

// here is what tables are told of this host when no agent runs.
func here(hostRoot string) *table.Env {
	return &table.Env{FS: procfs.At(hostRoot), HostRoot: hostRoot, SQLite: sqliteTable, Flags: func() []table.Flag { return flagRows(config.Defaults(), nil) }}
}

// definitions are the tables without anything behind them.
func definitions() []*schema.Def {
	var defs []*schema.Def
	for _, r := range relations(here(""), nil, nil) {
		defs = append(defs, r.Def())
	}
	return defs
}

// osqueryFlags are all flags of osquery, with what the flags of run say.
func (o *runOptions) osqueryFlags() []table.Flag {
	return flagRows(config.Defaults(), map[string]string{
		"enable_bpf_events": "true",
		"events_expiry":     strconv.FormatInt(o.expiry, 10),
		"events_max":        strconv.FormatInt(o.maxRows, 10),
		"database_path":     o.store(),
		"root_dir":          o.rootDir,
		"socket":            o.socketPath(),
	})
}

// flagRows are all flags with the values that set has for them, else those in f.
func flagRows(f *config.Flags, set map[string]string) []table.Flag {
	var rows []table.Flag
	for _, flag := range config.All() {
		row := table.Flag{
			Name: flag.Name, Type: flag.Type, Description: flag.Description, Default: flag.Default, Value: f.Text(flag.Name),
		}
		if v, ok := set[flag.Name]; ok {
			row.Value = v
		}
		rows = append(rows, row)
	}
	for _, name := range f.Custom() {
		rows = append(rows, table.Flag{Name: name, Type: "string", Description: "Set by the configuration", Value: f.Text(name)})
	}
	return rows
}

// sqliteTable is a table over a query of one SQLite file.
func sqliteTable(query string, columns []string, path string) schema.Relation {
	return sql.NewFileTable("file", query, columns, func() ([]string, error) { return []string{path}, nil })
}
