package table

import (
	"context"
	"os"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// OsqueryVersion is the version of osquery whose tables, flags and protocols these are;
// fleet managers choose their queries by it.
const OsqueryVersion = "5.23.1"

// info is the row of osquery_info.
type info struct {
	uuid, instance, version, hash string
	valid                         bool
	start                         int64
}

func osqueryInfoTable(env *Env) schema.Relation {
	type row = *info
	number := func(name string, n func() int64, doc string) schema.Column[row] {
		return schema.Calc(name, schema.Integer, func(row) schema.Value { return schema.IntValue(n()) }, doc)
	}
	fixed := func(name, value, doc string) schema.Column[row] {
		return schema.Calc(name, schema.Text, func(row) schema.Value { return schema.TextValue(value) }, doc)
	}
	t := &schema.Table[row]{
		Name: "osquery_info",
		Doc:  "This agent, in osquery's terms, one row.",
		Columns: []schema.Column[row]{
			number("pid", func() int64 { return int64(os.Getpid()) }, "Agent's process"),
			schema.Str("uuid", func(i row) *string { return &i.uuid }, "Host's UUID, as in system_info").Collated("nocase"),
			schema.Str("instance_id", func(i row) *string { return &i.instance }, "Identifier of this installation, kept with its store"),
			schema.Str("version", func(i row) *string { return &i.version }, "Version of osquery that the agent is compatible with").Collated("version"),
			schema.Str("config_hash", func(i row) *string { return &i.hash }, "SHA-1 of the configuration in force").Collated("nocase"),
			schema.Bool("config_valid", func(i row) *bool { return &i.valid }, "1 when the configuration was loaded and is valid"),
			schema.Calc("extensions", schema.Text, func(row) schema.Value {
				if env.Extensions == nil {
					return schema.TextValue("inactive")
				}
				return schema.TextValue("active")
			}, "Whether osquery extensions can attach: active or inactive"),
			fixed("build_platform", "linux", "Platform of the build, as the official packages name it"),
			fixed("build_distro", "centos7", "Distribution of the build, as the official packages name it"),
			schema.Int("start_time", func(i row) *int64 { return &i.start }, "When the agent started, unix seconds", schema.OmitZero).As(schema.Integer),
			number("watcher", func() int64 {
				if env.Watcher == 0 {
					return -1
				}
				return int64(env.Watcher)
			}, "Process that watches the agent, -1 when there is none"),
			number("platform_mask", func() int64 { return 9 }, "osquery's bits for POSIX (1) and Linux (8)"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		i := &info{instance: env.InstanceID, version: env.Version}
		if i.version == "" {
			i.version = OsqueryVersion
		}
		if !env.StartTime.IsZero() {
			i.start = env.StartTime.Unix()
		}
		if env.Config != nil {
			i.hash, i.valid = env.Config()
		}
		var err error
		_, _, i.uuid, err = env.identity(env.FS.Hardware())
		return []row{i}, err
	}
	return t.Bind()
}

// Flag is a flag as osquery_flags shows it.
type Flag struct {
	Name        string
	Type        string // bool, string, int32, uint32, uint64: gflags' names
	Description string // one phrase, no full stop
	Default     string
	Value       string
	ShellOnly   bool
}

func osqueryFlagsTable(env *Env) schema.Relation {
	type row = *Flag
	t := &schema.Table[row]{
		Name: "osquery_flags",
		Doc:  "The flags that osquery knows, with the values in force here.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(f row) *string { return &f.Name }, "Flag's name"),
			schema.Str("type", func(f row) *string { return &f.Type }, "Type: bool, string, int32, uint32, uint64"),
			schema.Str("description", func(f row) *string { return &f.Description }, "What it is for"),
			schema.Str("default_value", func(f row) *string { return &f.Default }, "Value when not set"),
			schema.Str("value", func(f row) *string { return &f.Value }, "Value in force"),
			schema.Bool("shell_only", func(f row) *bool { return &f.ShellOnly }, "1 for flags of the interactive shell"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		if env.Flags == nil {
			return nil, nil
		}
		flags := env.Flags()
		rows := make([]row, len(flags))
		for i := range flags {
			rows[i] = &flags[i]
		}
		return rows, nil
	}
	return t.Bind()
}

// Extension is one that is registered over osquery's extension socket.
type Extension struct {
	UUID                     int64
	Name, Version, SDK, Path string
	Type                     string // core or extension
	Tables                   []string
}

func osqueryExtensionsTable(env *Env) schema.Relation {
	type row = *Extension
	t := &schema.Table[row]{
		Name: "osquery_extensions",
		Doc:  "The agent itself, and the osquery extensions that are registered.",
		Columns: []schema.Column[row]{
			schema.Int("uuid", func(e row) *int64 { return &e.UUID }, "Number of the extension, 0 for the agent"),
			schema.Str("name", func(e row) *string { return &e.Name }, "Name"),
			schema.Str("version", func(e row) *string { return &e.Version }, "Version").Collated("version"),
			schema.Str("sdk_version", func(e row) *string { return &e.SDK }, "Version of osquery's SDK that it was built with").Collated("version"),
			schema.Str("path", func(e row) *string { return &e.Path }, "Socket where it answers"),
			schema.Str("type", func(e row) *string { return &e.Type }, "core or extension"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		if env.Extensions == nil {
			return nil, nil
		}
		socket, list := env.Extensions()
		version := env.Version
		if version == "" {
			version = OsqueryVersion
		}
		rows := []row{{Name: "core", Version: version, SDK: "0.0.0", Path: socket, Type: "core"}}
		for i := range list {
			list[i].Type = "extension"
			rows = append(rows, &list[i])
		}
		return rows, nil
	}
	return t.Bind()
}

// registered is a row of osquery_registry.
type registered struct {
	registry, name string
	owner          int64
}

// plugins are those that are no tables: osquery's names of what the daemon can do.
var plugins = [...]registered{
	{"config", "filesystem", 0}, {"config", "tls", 0}, {"distributed", "tls", 0}, {"enroll", "tls", 0},
	{"logger", "filesystem", 0}, {"logger", "stdout", 0}, {"logger", "syslog", 0}, {"logger", "tls", 0},
}

func osqueryRegistryTable(env *Env) schema.Relation {
	type row = *registered
	number := func(name string, n int64, doc string) schema.Column[row] {
		return schema.Calc(name, schema.Integer, func(row) schema.Value { return schema.IntValue(n) }, doc)
	}
	t := &schema.Table[row]{
		Name: "osquery_registry",
		Doc:  "What this agent offers, in osquery's terms: its tables, those of extensions, and its plugins.",
		Columns: []schema.Column[row]{
			schema.Str("registry", func(r row) *string { return &r.registry }, "Kind of plugin: table, config, logger, distributed, enroll"),
			schema.Str("name", func(r row) *string { return &r.name }, "Name"),
			schema.Int("owner_uuid", func(r row) *int64 { return &r.owner }, "Extension that owns it; 0 is the agent itself").As(schema.Integer),
			number("internal", 0, "1 for a plugin that only the agent uses"),
			number("active", 1, "1 when it can be used"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		owners := map[string]int64{}
		if env.Extensions != nil {
			_, list := env.Extensions()
			for _, e := range list {
				for _, name := range e.Tables {
					owners[name] = e.UUID
				}
			}
		}
		var rows []row
		for i := range plugins {
			rows = append(rows, &plugins[i])
		}
		for _, def := range env.Tables() {
			for _, name := range append([]string{def.Name}, def.Aliases...) {
				rows = append(rows, &registered{"table", name, owners[name]})
			}
		}
		return rows, nil
	}
	return t.Bind()
}
