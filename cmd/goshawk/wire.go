package main

import (
	"context"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/table"
)

// relations are all tables, in the order in which they are listed: events, the present
// state of the host, and the agent's own. status is nil when there is no agent, log is nil
// when only definitions are wanted.
func relations(status func(context.Context) (table.SelfStatus, error), log event.Log) []schema.Relation {
	env := &table.Env{FS: procfs.At("")}
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
