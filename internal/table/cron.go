package table

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// Where cron looks (cron(8)): files whose lines name a user, and those of one user each.
var (
	cronSystem = [...]string{"/etc/crontab"}
	cronDirs   = [...]string{"/etc/cron.d", "/var/spool/cron", "/var/spool/cron/crontabs"}
)

const maxText = 16 << 20 // of a file of lines

// cronEntry is a row of crontab.
type cronEntry struct {
	place
	event, minute, hour, dayOfMonth, month, dayOfWeek, command, path string
}

// parseCrontab reads crontab(5): a time in five fields or one that begins with @, then the
// command, with the user before it in the system's own files, as in osquery. Lines that set
// a variable are none.
func parseCrontab(b []byte, add func(*cronEntry)) {
	for line := range bytes.Lines(b) {
		words := strings.Fields(string(line))
		if len(words) < 2 || words[0][0] == '#' || isAssignment(words) {
			continue
		}
		e := &cronEntry{}
		if words[0][0] == '@' {
			e.event, words = words[0], words[1:]
		} else {
			if len(words) < 6 {
				continue
			}
			e.minute, e.hour, e.dayOfMonth, e.month, e.dayOfWeek = words[0], words[1], words[2], words[3], words[4]
			words = words[5:]
		}
		e.command = strings.Join(words, " ")
		add(e)
	}
}

// isAssignment reports whether a line sets a variable: NAME=value, or NAME = value.
func isAssignment(words []string) bool {
	name, _, ok := strings.Cut(words[0], "=")
	if !ok {
		return words[1] == "=" || strings.HasPrefix(words[1], "=")
	}
	return name != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_\"'") == ""
}

func crontabTable(env *Env) schema.Relation {
	type row = *cronEntry
	t := &schema.Table[row]{
		Name: "crontab",
		Doc:  "What cron runs: the lines of the system's and of each user's tables.",
		Columns: []schema.Column[row]{
			schema.Str("event", func(e row) *string { return &e.event }, "Time by name: @reboot, @daily …"),
			schema.Str("minute", func(e row) *string { return &e.minute }, "Minutes"),
			schema.Str("hour", func(e row) *string { return &e.hour }, "Hours"),
			schema.Str("day_of_month", func(e row) *string { return &e.dayOfMonth }, "Days of the month"),
			schema.Str("month", func(e row) *string { return &e.month }, "Months"),
			schema.Str("day_of_week", func(e row) *string { return &e.dayOfWeek }, "Days of the week"),
			schema.Str("command", func(e row) *string { return &e.command }, "Command; in /etc/crontab and /etc/cron.d with the user before it"),
			schema.Str("path", func(e row) *string { return &e.path }, "File it stands in"),
			pidColumn(func(e row) *place { return &e.place }),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachScope(t.Def(), q, func(s *scope) error {
			files := cronSystem[:]
			for _, dir := range cronDirs {
				for _, name := range s.entries(dir) {
					files = append(files[:len(files):len(files)], path.Join(dir, name))
				}
			}
			for _, file := range files {
				if !s.isFile(file) {
					continue
				}
				b, err := s.readFile(file, maxText)
				if err != nil {
					q.Warning(fmt.Sprintf("Table crontab is incomplete: %v", err))
					continue
				}
				parseCrontab(b, func(e *cronEntry) {
					e.place, e.path = s.place(), file
					rows = append(rows, e)
				})
			}
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}
