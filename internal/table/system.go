package table

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

func uptimeTable(env *Env) schema.Relation {
	part := func(name string, of func(time.Duration) int64, doc string) schema.Column[time.Duration] {
		return schema.Calc(name, schema.Integer, func(d time.Duration) schema.Value { return schema.IntValue(of(d)) }, doc)
	}
	t := &schema.Table[time.Duration]{
		Name: "uptime",
		Doc:  "Time since boot, suspended time included, one row.",
		Columns: []schema.Column[time.Duration]{
			part("days", func(d time.Duration) int64 { return int64(d / (24 * time.Hour)) }, "Whole days"),
			part("hours", func(d time.Duration) int64 { return int64(d / time.Hour % 24) }, "Whole hours beyond the days"),
			part("minutes", func(d time.Duration) int64 { return int64(d / time.Minute % 60) }, "Whole minutes beyond the hours"),
			part("seconds", func(d time.Duration) int64 { return int64(d / time.Second % 60) }, "Whole seconds beyond the minutes"),
			part("total_seconds", func(d time.Duration) int64 { return int64(d / time.Second) }, "Whole seconds in all").As(schema.BigInt),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]time.Duration, error) {
		d, err := env.FS.Uptime()
		if err != nil {
			return nil, err
		}
		return []time.Duration{d}, nil
	}
	return t.Bind()
}

// moment is a point in time as the table time shows it.
type moment struct {
	utc   time.Time
	local *time.Location
}

func (m moment) zone() string {
	name, _ := m.utc.In(m.local).Zone()
	return name
}

func timeTable(env *Env) schema.Relation {
	number := func(name string, of func(time.Time) int, doc string) schema.Column[moment] {
		return schema.Calc(name, schema.Integer, func(m moment) schema.Value { return schema.IntValue(int64(of(m.utc))) }, doc)
	}
	text := func(name string, of func(moment) string, doc string) schema.Column[moment] {
		return schema.Calc(name, schema.Text, func(m moment) schema.Value { return schema.TextValue(of(m)) }, doc)
	}
	iso := func(m moment) string { return m.utc.Format("2006-01-02T15:04:05Z") }
	t := &schema.Table[moment]{
		Name: "time",
		Doc:  "The present time in UTC, one row.",
		Columns: []schema.Column[moment]{
			text("weekday", func(m moment) string { return m.utc.Weekday().String() }, "Day of the week, in English"),
			number("year", time.Time.Year, "Year"),
			number("month", func(t time.Time) int { return int(t.Month()) }, "Month, 1 to 12"),
			number("day", time.Time.Day, "Day of the month"),
			number("hour", time.Time.Hour, "Hour, 0 to 23"),
			number("minutes", time.Time.Minute, "Minute"),
			number("seconds", time.Time.Second, "Second"),
			text("timezone", func(moment) string { return "UTC" }, "Time zone of these columns, always UTC"),
			text("local_timezone", moment.zone, "Abbreviation of this host's time zone"),
			schema.Calc("unix_time", schema.Integer, func(m moment) schema.Value { return schema.IntValue(m.utc.Unix()) }, "Unix seconds"),
			text("timestamp", func(m moment) string { return m.utc.Format("Mon Jan _2 15:04:05 2006 UTC") }, "Date and time as asctime(3) writes them"),
			text("datetime", iso, "Date and time in ISO 8601").Alias("date_time"),
			text("iso_8601", iso, "Date and time in ISO 8601"),
			schema.Absent[moment]("win_timestamp", schema.BigInt, "Windows' count of 100 ns", schema.Hidden),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]moment, error) {
		return []moment{{time.Now().UTC(), env.localZone()}}, nil
	}
	return t.Bind()
}

const maxZone = 1 << 20

// localZone is the host's time zone, which is not the agent's when the host's root is
// somewhere else.
func (env *Env) localZone() *time.Location {
	if env.HostRoot == "" || env.HostRoot == "/" {
		return time.Local
	}
	r, err := openRoot(env.HostRoot)
	if err != nil {
		return time.UTC
	}
	defer r.close()
	b, err := r.readFile("/etc/localtime", maxZone)
	if err != nil {
		return time.UTC // localtime(5): UTC when there is none
	}
	zone, err := time.LoadLocationFromTZData("local", b)
	if err != nil {
		return time.UTC
	}
	return zone
}

// kernelInfo is the running kernel and how it was booted.
type kernelInfo struct{ version, arguments, path, device string }

// parseCommandLine takes the kernel image and the root device out of a kernel command
// line; the other words are the arguments.
func (k *kernelInfo) parseCommandLine(line string) {
	var rest []string
	for word := range strings.FieldsSeq(line) {
		if v, ok := strings.CutPrefix(word, "BOOT_IMAGE="); ok {
			k.path = v
		} else if v, ok := strings.CutPrefix(word, "root="); ok {
			k.device = v
		} else {
			rest = append(rest, word)
		}
	}
	k.arguments = strings.Join(rest, " ")
}

func kernelInfoTable(env *Env) schema.Relation {
	t := &schema.Table[*kernelInfo]{
		Name: "kernel_info",
		Doc:  "The running kernel, one row.",
		Columns: []schema.Column[*kernelInfo]{
			schema.Str("version", func(k *kernelInfo) *string { return &k.version }, "Release, as uname -r prints it").Collated("version"),
			schema.Str("arguments", func(k *kernelInfo) *string { return &k.arguments }, "Command line without image and root device"),
			schema.Str("path", func(k *kernelInfo) *string { return &k.path }, "Kernel image, as the boot loader names it"),
			schema.Str("device", func(k *kernelInfo) *string { return &k.device }, "Root device, as the boot loader names it"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*kernelInfo, error) {
		var k kernelInfo
		var err error
		if k.version, err = env.FS.Release(); err != nil {
			return nil, err
		}
		line, err := env.FS.CommandLine()
		if err != nil {
			q.Warning(err.Error())
		}
		k.parseCommandLine(line)
		return []*kernelInfo{&k}, nil
	}
	return t.Bind()
}

func kernelModulesTable(env *Env) schema.Relation {
	t := &schema.Table[*procfs.Module]{
		Name: "kernel_modules",
		Doc:  "Kernel modules as the kernel itself lists them; a module that hides is not among them.",
		Columns: []schema.Column[*procfs.Module]{
			schema.Str("name", func(m *procfs.Module) *string { return &m.Name }, "Module's name"),
			schema.Int("size", func(m *procfs.Module) *int64 { return &m.Size }, "Memory in bytes"),
			schema.Str("used_by", func(m *procfs.Module) *string { return &m.UsedBy }, "Modules that use it, separated by a comma; - for none"),
			schema.Str("status", func(m *procfs.Module) *string { return &m.Status }, "Live, Loading or Unloading"),
			schema.Str("address", func(m *procfs.Module) *string { return &m.Address }, "Address in the kernel, zero without the privilege to see it"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*procfs.Module, error) {
		modules, err := env.FS.Modules()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // a kernel without modules
		}
		rows := make([]*procfs.Module, len(modules))
		for i := range modules {
			rows[i] = &modules[i]
		}
		return rows, err
	}
	return t.Bind()
}
