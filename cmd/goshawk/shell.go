package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/reeflective/readline"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
)

const shellHelp = `SQL ends with a semicolon and may take several lines. Ctrl-C stops the query that runs.

.tables [PATTERN]     the tables whose name contains or matches PATTERN
.schema [TABLE]       how tables are declared
.mode [FORMAT]        how answers are printed: table, json, csv or line
.help                 this text
.exit                 the end; Ctrl-D is, too
`

// shell asks at a terminal until it is left.
type shell struct {
	*session
	input *readline.Shell
	names completer
}

// runShell runs a shell on this process's terminal. The line editor knows no other one.
func runShell(ctx context.Context, s *session, history string) error {
	sh := &shell{session: s, input: newInput(), names: newCompleter(s.Tables())}
	sh.input.Completer = sh.names.complete
	if err := sh.remember(history); err != nil {
		fmt.Fprintf(s.errOut, "warning: no history: %v\n", err)
	}
	fmt.Fprintf(s.out, "%d tables. SQL ends with a semicolon, .help says more.\n", len(s.Tables()))
	for ctx.Err() == nil {
		line, err := sh.input.Readline()
		switch {
		case errors.Is(err, readline.ErrInterrupt):
			continue
		case err == io.EOF:
			fmt.Fprintln(s.out)
			return nil
		case err != nil:
			return fmt.Errorf("read the terminal: %w", err)
		}
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if strings.HasPrefix(line, ".") {
			leave, err := sh.command(line)
			if leave {
				return nil
			}
			sh.complain(err)
			continue
		}
		sh.complain(sh.run(ctx, line))
	}
	return nil
}

func newInput() *readline.Shell {
	in := readline.NewShell()
	_ = in.Config.Set("enable-bracketed-paste", true) // pasted lines wait for Enter
	_ = in.Config.Set("completion-ignore-case", true)
	in.Prompt.Primary(func() string { return "goshawk> " })
	in.Prompt.Secondary(func() string { return "    ...> " })
	in.AcceptMultiline = func(line []rune) bool { return complete(string(line)) }
	return in
}

func (sh *shell) complain(err error) {
	if err != nil {
		fmt.Fprintf(sh.errOut, "error: %v\n", err)
	}
}

// remember keeps what is typed in a file that only this user can read: a query may tell
// what somebody is looking for.
func (sh *shell) remember(file string) error {
	if file == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return err
	}
	source, err := readline.NewHistoryFromFile(file)
	if err != nil {
		return err
	}
	sh.input.History.Add("history", source)
	return nil
}

// command carries out a line that begins with a dot.
func (sh *shell) command(line string) (leave bool, err error) {
	words := strings.Fields(strings.TrimRight(line, "; \t"))
	if len(words) > 2 {
		return false, fmt.Errorf("%s takes one argument at most", words[0])
	}
	argument := ""
	if len(words) == 2 {
		argument = words[1]
	}
	switch words[0] {
	case ".exit", ".quit":
		return true, nil
	case ".help":
		_, err = io.WriteString(sh.out, shellHelp)
	case ".tables":
		err = sh.list(argument, func(d *schema.Def) string { return d.Name })
	case ".schema":
		err = sh.list(argument, declaration)
	case ".mode":
		if argument == "" {
			_, err = fmt.Fprintln(sh.out, sh.format)
		} else if !slices.Contains(formats, argument) {
			err = fmt.Errorf("no format is called %q; formats are %s", argument, strings.Join(formats, ", "))
		} else {
			sh.format = argument
		}
	default:
		err = fmt.Errorf("no command is called %q; .help lists them", words[0])
	}
	return false, err
}

// list prints the tables that a pattern means: all that it matches, exactly one if it is
// a name, else all whose names contain it.
func (sh *shell) list(pattern string, show func(*schema.Def) string) error {
	var found []*schema.Def
	pattern = strings.ToLower(pattern)
	for _, d := range sh.Tables() {
		name := strings.ToLower(d.Name)
		if name == pattern || slices.ContainsFunc(d.Aliases, func(a string) bool { return strings.EqualFold(a, pattern) }) {
			found = []*schema.Def{d}
			break
		}
		if matched, _ := path.Match(strings.ReplaceAll(pattern, "%", "*"), name); matched || strings.Contains(name, pattern) {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("no table is called like %q; .tables lists all", pattern)
	}
	for _, d := range found {
		if _, err := fmt.Fprintln(sh.out, show(d)); err != nil {
			return err
		}
	}
	return nil
}

// declaration is a table as SQL declares it.
func declaration(d *schema.Def) string {
	var columns []string
	for i := range d.Columns {
		c := &d.Columns[i]
		if c.Has(schema.Internal) {
			continue
		}
		text := "`" + c.Name + "` " + c.Type.String()
		if c.Has(schema.Hidden) {
			text += " HIDDEN"
		}
		if c.Collate != "" {
			text += " COLLATE " + strings.ToUpper(c.Collate)
		}
		columns = append(columns, text)
	}
	return fmt.Sprintf("CREATE TABLE %s(%s);", d.Name, strings.Join(columns, ", "))
}

// complete reports whether what was typed can be carried out: nothing, a dot command,
// or statements of which the last has its semicolon, outside of quotes and comments.
func complete(line string) bool {
	if text := strings.TrimSpace(line); text == "" || text[0] == '.' {
		return true
	}
	var last byte
	for i := 0; i < len(line); i++ {
		rest := line[i:]
		end := -1 // length of what must be skipped, if any
		switch b := line[i]; {
		case strings.HasPrefix(rest, "--"):
			if end = strings.IndexByte(rest, '\n'); end < 0 {
				return last == ';'
			}
		case strings.HasPrefix(rest, "/*"):
			if end = strings.Index(rest[2:], "*/"); end < 0 {
				return false
			}
			end += 3
		case b == '\'' || b == '"' || b == '`' || b == '[':
			closing := b
			if b == '[' {
				closing = ']'
			}
			// A doubled quote ends one string and begins the next.
			if end = strings.IndexByte(rest[1:], closing); end < 0 {
				return false
			}
			end, last = end+1, b
		case strings.IndexByte(" \t\r\n\f", b) < 0:
			last = b
		}
		if end > 0 {
			i += end
		}
	}
	return last == ';'
}

var _ querier = (*sql.Engine)(nil)
