package table

import (
	"context"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// ScheduledQuery is a row of osquery_schedule.
type ScheduledQuery struct {
	Name, SQL                    string
	Interval                     int64
	Executions, LastExecuted     int64
	Denylisted                   bool
	OutputSize                   int64
	WallTime, WallMS, LastWallMS int64
	UserMS, LastUserMS           int64
	SystemMS, LastSystemMS       int64
	AverageMemory, LastMemory    int64
}

// Pack is a row of osquery_packs.
type Pack struct {
	Name, Platform, Version string
	Shard                   int64
	CacheHits, Executions   int64
	Active                  bool
}

// Carve is a row of carves.
type Carve struct {
	Time            int64
	SHA256          string
	Size            int64
	Path, Status    string
	GUID, RequestID string
	begun           bool // by the query that asks
}

func osqueryScheduleTable(env *Env) schema.Relation {
	type row = *ScheduledQuery
	t := &schema.Table[row]{
		Name: "osquery_schedule",
		Doc:  "The queries of the schedule and of active packs, and what their runs cost.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(r row) *string { return &r.Name }, "Name in log lines"),
			schema.Str("query", func(r row) *string { return &r.SQL }, "Its SQL"),
			schema.Int("interval", func(r row) *int64 { return &r.Interval }, "Seconds between runs, before splay").As(schema.Integer),
			schema.Int("executions", func(r row) *int64 { return &r.Executions }, "Runs so far, also of processes before"),
			schema.Int("last_executed", func(r row) *int64 { return &r.LastExecuted }, "When it ran last, unix seconds"),
			schema.Bool("denylisted", func(r row) *bool { return &r.Denylisted }, "1 while it is not run, after the agent died of it or it came to its limits").Alias("blacklisted"),
			schema.Int("output_size", func(r row) *int64 { return &r.OutputSize }, "Bytes of all rows so far"),
			schema.Int("wall_time", func(r row) *int64 { return &r.WallTime }, "Seconds that the runs took"),
			schema.Int("wall_time_ms", func(r row) *int64 { return &r.WallMS }, "Milliseconds that the runs took"),
			schema.Int("last_wall_time_ms", func(r row) *int64 { return &r.LastWallMS }, "Milliseconds that the last run took"),
			schema.Int("user_time", func(r row) *int64 { return &r.UserMS }, "Milliseconds of CPU in user mode"),
			schema.Int("last_user_time", func(r row) *int64 { return &r.LastUserMS }, "Milliseconds of CPU in user mode of the last run"),
			schema.Int("system_time", func(r row) *int64 { return &r.SystemMS }, "Milliseconds of CPU in the kernel"),
			schema.Int("last_system_time", func(r row) *int64 { return &r.LastSystemMS }, "Milliseconds of CPU in the kernel of the last run"),
			schema.Int("average_memory", func(r row) *int64 { return &r.AverageMemory }, "Bytes by which the agent grew in a run, on average"),
			schema.Int("last_memory", func(r row) *int64 { return &r.LastMemory }, "Bytes by which the agent grew in the last run"),
		},
		Rows: func(context.Context, *schema.Query) ([]row, error) {
			if env.Schedule == nil {
				return nil, nil
			}
			return pointers(env.Schedule()), nil
		},
	}
	return t.Bind()
}

func osqueryPacksTable(env *Env) schema.Relation {
	type row = *Pack
	t := &schema.Table[row]{
		Name: "osquery_packs",
		Doc:  "Packs of queries, and whether they are for this host; the schedule itself is the one called main.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(r row) *string { return &r.Name }, "Name of the pack"),
			schema.Str("platform", func(r row) *string { return &r.Platform }, "Platforms that it is for, empty is all"),
			schema.Str("version", func(r row) *string { return &r.Version }, "Least version of osquery that it is for").Collated("version"),
			schema.Int("shard", func(r row) *int64 { return &r.Shard }, "Percent of hosts that it is for, 0 is all").As(schema.Integer),
			schema.Int("discovery_cache_hits", func(r row) *int64 { return &r.CacheHits }, "How often what discovery had found still held").As(schema.Integer),
			schema.Int("discovery_executions", func(r row) *int64 { return &r.Executions }, "How often its discovery queries ran").As(schema.Integer),
			schema.Bool("active", func(r row) *bool { return &r.Active }, "1 when its queries run"),
		},
		Rows: func(context.Context, *schema.Query) ([]row, error) {
			if env.Packs == nil {
				return nil, nil
			}
			return pointers(env.Packs()), nil
		},
	}
	return t.Bind()
}

func carvesTable(env *Env) schema.Relation {
	type row = *Carve
	t := &schema.Table[row]{
		Name: "carves",
		Doc:  "Files sent to the server, or on their way.",
		Columns: []schema.Column[row]{
			schema.Int("time", func(r row) *int64 { return &r.Time }, "When it was asked for, unix seconds"),
			schema.Str("sha256", func(r row) *string { return &r.SHA256 }, "SHA-256 of the archive").Collated("nocase"),
			schema.Int("size", func(r row) *int64 { return &r.Size }, "Bytes of the archive, -1 while not known"),
			schema.Str("path", func(r row) *string { return &r.Path }, "Files asked for, with commas", schema.Additional),
			schema.Str("status", func(r row) *string { return &r.Status }, "SCHEDULED, STARTING, PENDING, SUCCESS, or what failed"),
			schema.Str("carve_guid", func(r row) *string { return &r.GUID }, "Identifier of the carve", schema.Index).Collated("nocase"),
			schema.Str("request_id", func(r row) *string { return &r.RequestID }, "Identifier of the request that asked for it"),
			schema.Bool("carve", func(r row) *bool { return &r.begun }, "1 in a condition begins to carve the files that path names", schema.Additional),
		},
	}
	t.Rows = func(_ context.Context, q *schema.Query) ([]row, error) {
		if env.Carves == nil {
			return nil, nil
		}
		guid := ""
		if values, ok := q.Equals(t.Def().Column("carve")); ok && len(values) == 1 && values[0].Int() == 1 {
			if patterns := carvePatterns(q, t.Def().Column("path")); len(patterns) > 0 && env.Carve != nil {
				var err error
				if guid, err = env.Carve(patterns); err != nil {
					return nil, err
				}
			} else {
				q.Warning("carves: nothing is carved without a condition on path, or with disable_carver")
			}
		}
		list, err := env.Carves()
		if err != nil {
			return nil, err
		}
		rows := pointers(list)
		for _, r := range rows {
			r.begun = guid != "" && r.GUID == guid
		}
		return rows, nil
	}
	return t.Bind()
}

// carvePatterns are the values that path is asked to be equal to, or like.
func carvePatterns(q *schema.Query, column int) []string {
	if values, ok := q.Equals(column); ok {
		return texts(values)
	}
	if pattern, ok := like(q, column); ok {
		return []string{pattern}
	}
	return nil
}

func pointers[T any](list []T) []*T {
	out := make([]*T, len(list))
	for i := range list {
		out[i] = &list[i]
	}
	return out
}
