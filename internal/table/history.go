package table

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// historyFiles are where shells keep what was typed, below the home directory; osquery's
// list, and fish's.
var historyFiles = [...]string{".bash_history", ".zsh_history", ".zhistory", ".history", ".sh_history", ".ash_history", ".local/share/fish/fish_history"}

const maxHistory = 64 << 20

// typed is a row of shell_history.
type typed struct {
	uid           uint32
	time          int64
	command, file string
}

// parseHistory reads a shell's history: lines, which bash precedes with #TIME when told to
// keep times, and zsh begins with ": TIME:SECONDS;"; fish writes "- cmd: " and "  when: ".
func parseHistory(b []byte, add func(*typed) error) error {
	var when string // of the line that follows, in bash's way
	var last *typed // fish's, whose time follows it
	flush := func() error {
		if last == nil {
			return nil
		}
		row := last
		last = nil
		return add(row)
	}
	for line := range bytes.Lines(b) {
		text := strings.TrimRight(string(line), "\r\n")
		if when == "" && len(text) > 1 && text[0] == '#' && strings.Trim(text[1:], "0123456789") == "" {
			when = text[1:]
			continue
		}
		if last != nil {
			if seconds, ok := strings.CutPrefix(text, "  when: "); ok {
				last.time, _ = strconv.ParseInt(seconds, 10, 64)
				continue
			}
			if strings.HasPrefix(text, "  ") { // paths:
				continue
			}
		}
		if err := flush(); err != nil {
			return err
		}
		if command, ok := strings.CutPrefix(text, "- cmd: "); ok && when == "" {
			last = &typed{command: command}
			continue
		}
		row := &typed{command: text}
		if when != "" {
			row.time, _ = strconv.ParseInt(when, 10, 64)
			when = ""
		} else if seconds, command, ok := parseZsh(text); ok {
			row.time, row.command = seconds, command
		}
		if row.command == "" {
			continue
		}
		if err := add(row); err != nil {
			return err
		}
	}
	return flush()
}

// parseZsh reads ": 1700000000:0;command" (zshoptions(1), EXTENDED_HISTORY).
func parseZsh(line string) (seconds int64, command string, ok bool) {
	rest, ok := strings.CutPrefix(line, ":")
	if !ok {
		return 0, "", false
	}
	head, command, ok := strings.Cut(rest, ";")
	if !ok {
		return 0, "", false
	}
	start, took, ok := strings.Cut(strings.TrimLeft(head, " "), ":")
	if _, err := strconv.ParseUint(took, 10, 64); !ok || err != nil {
		return 0, "", false
	}
	seconds, err := strconv.ParseInt(start, 10, 64)
	return seconds, command, err == nil
}

func shellHistoryTable(env *Env) schema.Relation {
	type row = *typed
	t := newStreamed("shell_history", "What was typed into shells that keep a history, joined with users.", []schema.Column[row]{
		uidColumn(func(h row) *uint32 { return &h.uid }, schema.Additional, schema.Optimized),
		schema.Int("time", func(h row) *int64 { return &h.time }, "When, unix seconds; 0 when the shell kept no times").As(schema.Integer),
		schema.Str("command", func(h row) *string { return &h.command }, "The line"),
		schema.Str("history_file", func(h row) *string { return &h.file }, "File it stands in"),
	})
	t.scan = func(ctx context.Context, q *schema.Query, yield func(row) error) error {
		return env.eachHome(t.def, q, func(s *scope, a *account) error {
			for _, name := range historyFiles {
				file := join(a.home, name)
				b, err := optional(s.readFile(file, maxHistory))
				if err != nil {
					q.Warning(fmt.Sprintf("Table shell_history is incomplete: %v", err))
				}
				err = parseHistory(b, func(h row) error {
					h.uid, h.file = a.uid, file
					return yield(h)
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return t
}
