package table

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// What ssh(1) knows and does: hosts whose keys were accepted, and its configuration.

var sshKnownHosts = [...]string{".ssh/known_hosts", ".ssh/known_hosts2"}

const (
	systemSSHConfig = "/etc/ssh/ssh_config"
	systemSSHDir    = "/etc/ssh/ssh_config.d"
)

// sshLine is a row of known_hosts, or of ssh_configs.
type sshLine struct {
	uid         uint32
	block, text string
	file        string
}

// eachLine calls f with each line that is neither empty nor a comment, without white space
// around it.
func eachLine(b []byte, f func(line string)) {
	for line := range bytes.Lines(b) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			f(string(line))
		}
	}
}

func knownHostsTable(env *Env) schema.Relation {
	type row = *sshLine
	t := &schema.Table[row]{
		Name: "known_hosts",
		Doc:  "Hosts that users have logged in to over SSH, joined with users: the lines of each user's known_hosts.",
		Columns: []schema.Column[row]{
			uidColumn(func(l row) *uint32 { return &l.uid }, schema.Additional),
			schema.Str("key", func(l row) *string { return &l.text }, "Line: names of the host, or their hash, type and key"),
			schema.Str("key_file", func(l row) *string { return &l.file }, "File it stands in"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachHome(t.Def(), q, func(s *scope, a *account) error {
			for _, name := range sshKnownHosts {
				file := join(a.home, name)
				b, err := optional(s.readFile(file, maxText))
				if err != nil {
					q.Warning(fmt.Sprintf("Table known_hosts is incomplete: %v", err))
				}
				eachLine(b, func(line string) { rows = append(rows, &sshLine{uid: a.uid, text: line, file: file}) })
			}
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}

// parseSSHConfig reads ssh_config(5): options, in the blocks that Host and Match begin.
func parseSSHConfig(b []byte, add func(block, option string)) {
	block := ""
	eachLine(b, func(line string) {
		word, _, _ := strings.Cut(strings.ReplaceAll(strings.ReplaceAll(line, "\t", " "), "=", " "), " ")
		if strings.EqualFold(word, "host") || strings.EqualFold(word, "match") {
			block = line
			return
		}
		add(block, line)
	})
}

func sshConfigsTable(env *Env) schema.Relation {
	type row = *sshLine
	t := &schema.Table[row]{
		Name: "ssh_configs",
		Doc:  "Options of ssh, joined with users: each user's configuration and, with user 0, the system's.",
		Columns: []schema.Column[row]{
			uidColumn(func(l row) *uint32 { return &l.uid }, schema.Additional),
			schema.Str("block", func(l row) *string { return &l.block }, "Line with Host or Match that it is under, empty for those that hold for all"),
			schema.Str("option", func(l row) *string { return &l.text }, "Option with its value"),
			schema.Str("ssh_config_file", func(l row) *string { return &l.file }, "File it stands in"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		read := func(s *scope, uid uint32, file string) {
			b, err := optional(s.readFile(file, maxText))
			if err != nil {
				q.Warning(fmt.Sprintf("Table ssh_configs is incomplete: %v", err))
			}
			parseSSHConfig(b, func(block, option string) { rows = append(rows, &sshLine{uid, block, option, file}) })
		}
		system := false
		err := env.eachHome(t.Def(), q, func(s *scope, a *account) error {
			if a.uid == 0 && !system {
				system = true
				read(s, 0, systemSSHConfig)
				for _, name := range s.entries(systemSSHDir) {
					if strings.HasSuffix(name, ".conf") {
						read(s, 0, systemSSHDir+"/"+name)
					}
				}
			}
			read(s, a.uid, join(a.home, ".ssh/config"))
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}
