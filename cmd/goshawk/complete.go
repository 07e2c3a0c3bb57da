package main

import (
	"slices"
	"strings"

	"github.com/reeflective/readline"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// sqlWords are what a query is written with: keywords, then functions.
var sqlWords = strings.Fields(`SELECT DISTINCT FROM WHERE GROUP BY HAVING ORDER LIMIT OFFSET AS ON USING
	JOIN LEFT RIGHT FULL INNER CROSS UNION ALL EXCEPT INTERSECT WITH RECURSIVE AND OR NOT IN IS NULL LIKE
	GLOB ESCAPE BETWEEN EXISTS CASE WHEN THEN ELSE END CAST COLLATE ASC DESC EXPLAIN QUERY PLAN CREATE TEMP VIEW
	count sum avg min max group_concat length lower upper substr replace trim coalesce ifnull
	datetime strftime round abs json_extract split regex_match regex_split concat concat_ws
	inet_aton in_cidr_block community_id_v1 md5 sha1 sha256 to_base64 from_base64 version_compare
	parent_directory`)

var dotCommands = []string{".tables", ".schema", ".mode", ".help", ".exit"}

// completer proposes how a word may go on.
type completer struct {
	tables []*schema.Def
	byName map[string]*schema.Def // lower case, with aliases
}

func newCompleter(tables []*schema.Def) completer {
	c := completer{tables: tables, byName: map[string]*schema.Def{}}
	for _, d := range tables {
		for _, name := range append([]string{d.Name}, d.Aliases...) {
			c.byName[strings.ToLower(name)] = d
		}
	}
	return c
}

// proposal is a word with what it is.
type proposal struct{ word, doc, kind string }

// complete is the line editor's hook.
func (c *completer) complete(line []rune, cursor int) readline.Completions {
	before := string(line[:cursor])
	prefix, proposals := c.propose(before, string(line[cursor:]))
	// The editor replaces everything since the last blank, so a word that follows
	// other text must carry it.
	start := strings.LastIndexAny(before, " \t\n") + 1
	carried := strings.TrimSuffix(before[start:], prefix)
	values := make([]readline.Completion, len(proposals))
	for i, p := range proposals {
		values[i] = readline.Completion{Value: carried + p.word, Display: p.word, Description: p.doc, Tag: p.kind}
	}
	return readline.CompleteRaw(values)
}

// propose returns the word that ends before, and what it may become.
func (c *completer) propose(before, after string) (prefix string, found []proposal) {
	text := strings.TrimLeft(before, " \t\n")
	if strings.HasPrefix(text, ".") {
		return c.proposeDot(text)
	}
	prefix = before[lastWord(before):]
	add := func(word, doc, kind string) {
		if len(word) >= len(prefix) && strings.EqualFold(word[:len(prefix)], prefix) {
			found = append(found, proposal{word, doc, kind})
		}
	}
	// Only the statement that the cursor is in counts.
	statement := before[strings.LastIndexByte(before, ';')+1:]
	if strings.Count(statement, "'")%2 != 0 {
		return prefix, nil // in a string
	}
	rest, _, _ := strings.Cut(after, ";")
	words := splitWords(statement[:len(statement)-len(prefix)])
	sources := c.sources(splitWords(statement + rest))

	if owner, ok := strings.CutSuffix(strings.TrimSpace(statement[:len(statement)-len(prefix)]), "."); ok {
		owner = owner[lastWord(owner):]
		for _, s := range sources {
			if strings.EqualFold(s.name, owner) {
				c.columns(s.def, add)
				return prefix, found
			}
		}
		return prefix, nil
	}
	if expectsTable(words) {
		for _, d := range c.tables {
			add(d.Name, d.Doc, "tables")
		}
		return prefix, found
	}
	var seen []*schema.Def
	for _, s := range sources {
		if !slices.Contains(seen, s.def) {
			seen = append(seen, s.def)
			c.columns(s.def, add)
		}
	}
	if prefix == "" {
		return prefix, found
	}
	for _, w := range sqlWords {
		if prefix[0] >= 'a' { // as the user writes them
			w = strings.ToLower(w)
		}
		add(w, "", "sql")
	}
	if len(sources) == 0 {
		for _, d := range c.tables {
			add(d.Name, d.Doc, "tables")
		}
	}
	return prefix, found
}

func (c *completer) proposeDot(text string) (prefix string, found []proposal) {
	command, argument, spaced := strings.Cut(text, " ")
	var words []proposal
	switch {
	case !spaced:
		argument = command
		for _, w := range dotCommands {
			words = append(words, proposal{w, "", "commands"})
		}
	case command == ".mode":
		for _, w := range formats {
			words = append(words, proposal{w, "", "formats"})
		}
	case command == ".tables" || command == ".schema":
		for _, d := range c.tables {
			words = append(words, proposal{d.Name, d.Doc, "tables"})
		}
	}
	for _, w := range words {
		if strings.HasPrefix(w.word, argument) {
			found = append(found, w)
		}
	}
	return argument, found
}

// columns adds all columns of a table, hidden ones and aliases too.
func (c *completer) columns(d *schema.Def, add func(word, doc, kind string)) {
	for i := range d.Columns {
		column := &d.Columns[i]
		if column.Has(schema.Internal) {
			continue
		}
		add(column.Name, column.Doc, "columns of "+d.Name)
		for _, a := range column.Aliases {
			add(a, column.Doc, "columns of "+d.Name)
		}
	}
}

// source is a table that a statement reads, under a name it gives it.
type source struct {
	name string
	def  *schema.Def
}

// sources finds the tables after FROM, JOIN and commas, with their aliases.
func (c *completer) sources(words []string) []source {
	var out []source
	for i, w := range words {
		def := c.byName[strings.ToLower(w)]
		if def == nil || !expectsTable(words[:i]) {
			continue
		}
		out = append(out, source{w, def})
		next := i + 1
		if next < len(words) && strings.EqualFold(words[next], "as") {
			next++
		}
		if next < len(words) && isWord(words[next]) && !slices.Contains(sqlWords, strings.ToUpper(words[next])) {
			out = append(out, source{words[next], def})
		}
	}
	return out
}

// expectsTable reports whether a table's name comes next after words.
func expectsTable(words []string) bool {
	for i := len(words) - 1; i >= 0; i-- {
		switch w := strings.ToUpper(words[i]); {
		case w == "FROM" || w == "JOIN":
			return i == len(words)-1 || words[len(words)-1] == ","
		case isWord(words[i]) && slices.Contains(sqlWords, w) && w != "AS":
			return false // another clause
		case w == "(" || w == ")" || w == ".":
			return false
		}
	}
	return false
}

// splitWords cuts SQL into words and single other characters; strings are left out.
func splitWords(text string) []string {
	var words []string
	for i := 0; i < len(text); {
		switch b := text[i]; {
		case isWordByte(b):
			end := i
			for end < len(text) && isWordByte(text[end]) {
				end++
			}
			words = append(words, text[i:end])
			i = end
		case b == '\'':
			if end := strings.IndexByte(text[i+1:], b); end >= 0 {
				i += end + 2
			} else {
				i = len(text)
			}
		case b == ' ' || b == '\t' || b == '\n':
			i++
		default:
			words = append(words, text[i:i+1])
			i++
		}
	}
	return words
}

// lastWord is where the word that ends text begins.
func lastWord(text string) int {
	i := len(text)
	for i > 0 && isWordByte(text[i-1]) {
		i--
	}
	return i
}

func isWord(s string) bool { return s != "" && isWordByte(s[0]) }

func isWordByte(b byte) bool {
	return b == '_' || '0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'z' || b >= 0x80
}
