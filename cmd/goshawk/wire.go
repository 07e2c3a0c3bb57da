package main

import (
	"context"
	"strconv"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/table"
)

// relations are all tables, in the order in which they are listed: events over log, the
// present state of the host, and the agent's own. status is nil when there is no agent,
// log is nil when only definitions are wanted.
func relations(env *table.Env, status func(context.Context) (table.SelfStatus, error), log event.Log) []schema.Relation {
	var defs []*schema.Def
	env.Tables = func() []*schema.Def { return defs }
	all := table.EventTables(log, table.EventOptions{})
	subscribers := table.Subscribers(all)
	all = append(all, table.All(env)...)
	all = append(all, table.SelfTables(table.Self{Status: status, Subscribers: subscribers})...)
	for _, r := range all {
		defs = append(defs, r.Def())
	}
	return all
}

// here is what tables are told of this host when no agent runs.
func here() *table.Env { return &table.Env{FS: procfs.At("")} }

// definitions are the tables without anything behind them.
func definitions() []*schema.Def {
	var defs []*schema.Def
	for _, r := range relations(here(), nil, nil) {
		defs = append(defs, r.Def())
	}
	return defs
}

// osqueryFlags are osquery's names for what the flags of run say.
func (o *runOptions) osqueryFlags() []table.Flag {
	return []table.Flag{
		{Name: "disable_events", Value: "false"},
		{Name: "enable_bpf_events", Value: "true"},
		{Name: "events_expiry", Value: strconv.FormatInt(o.expiry, 10)},
		{Name: "events_max", Value: strconv.FormatInt(o.maxRows, 10)},
		{Name: "database_path", Value: o.store()},
	}
}
