package table

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"

	"gopkg.in/ini.v1"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// Where packages come from: the sources of apt, and the repositories of yum and dnf.

const (
	aptDirectory = "/etc/apt"
	aptLists     = "/var/lib/apt/lists"
	maxSources   = 65_536 // of one file
)

// aptSource is a row of apt_sources: one suite of one repository.
type aptSource struct {
	place
	name, source, uri                                       string
	release, version, maintainer, components, architectures string
	lists                                                   string // what its Release file's name begins with
}

// newAptSource makes a row; nil when uri has no place in it. Names are made as osquery makes them.
func newAptSource(uri, suite string) *aptSource {
	uri = strings.TrimRight(uri, "/")
	_, at, ok := strings.Cut(uri, "://")
	if !ok || at == "" || suite == "" {
		return nil
	}
	a := &aptSource{uri: uri, name: at + " " + suite}
	// apt's URItoFileName(): apt-pkg/contrib/strutl.cc.
	file := at + "/dists/" + strings.TrimRight(suite, "/")
	if strings.HasSuffix(suite, "/") { // a repository without suites
		file = at + "/" + strings.Trim(suite, "/")
	}
	a.lists = strings.ReplaceAll(strings.ReplaceAll(file, "_", "%5f"), "/", "_")
	return a
}

// parseAptLine reads a line of sources.list(5): type, options in brackets, URI, suite, components.
func parseAptLine(line string) *aptSource {
	line, _, _ = strings.Cut(line, "#")
	words := strings.Fields(line)
	if len(words) < 3 || words[0] != "deb" && words[0] != "deb-src" {
		return nil
	}
	words = words[1:]
	if strings.HasPrefix(words[0], "[") {
		for len(words) > 0 && !strings.HasSuffix(words[0], "]") {
			words = words[1:]
		}
		if len(words) > 0 {
			words = words[1:]
		}
	}
	if len(words) < 2 {
		return nil
	}
	return newAptSource(words[0], words[1])
}

// parseAptStanzas reads the deb822 form of sources.list(5).
func parseAptStanzas(b []byte, add func(*aptSource)) {
	fields := map[string]string{}
	key := ""
	flush := func() {
		if no := strings.ToLower(strings.TrimSpace(fields["enabled"])); no != "no" && no != "false" && no != "0" && no != "off" && no != "disable" && no != "without" {
			n := 0
			for _, uri := range strings.Fields(fields["uris"]) {
				for _, suite := range strings.Fields(fields["suites"]) {
					if a := newAptSource(uri, suite); a != nil && n < maxSources {
						n++
						add(a)
					}
				}
			}
		}
		clear(fields)
		key = ""
	}
	for line := range bytes.Lines(b) {
		text := strings.TrimRight(string(line), "\r\n")
		switch {
		case strings.HasPrefix(text, "#"):
		case strings.TrimSpace(text) == "":
			flush()
		case text[0] == ' ' || text[0] == '\t':
			if key == "uris" || key == "suites" {
				fields[key] += text
			}
		default:
			k, v, _ := strings.Cut(text, ":")
			key = strings.ToLower(strings.TrimSpace(k))
			if key == "uris" || key == "suites" || key == "enabled" {
				fields[key] = v
			}
		}
	}
	flush()
}

// parseRelease reads the head of a Release file (Debian's RepositoryFormat).
func (a *aptSource) parseRelease(b []byte) {
	for line := range bytes.Lines(b) {
		key, value, _ := strings.Cut(string(line), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Codename":
			a.release = value
		case "Version":
			a.version = value
		case "Origin":
			a.maintainer = value
		case "Components":
			a.components = value
		case "Architectures":
			a.architectures = value
		case "MD5Sum", "SHA1", "SHA256", "SHA512":
			return
		}
	}
}

// aptSources reads all sources of apt, and what their Release files said when they were fetched.
func (s *scope) aptSources(warn func(error), add func(*aptSource)) {
	files := []string{aptDirectory + "/sources.list"}
	for _, name := range s.entries(aptDirectory + "/sources.list.d") {
		if e := path.Ext(name); e == ".list" || e == ".sources" {
			files = append(files, path.Join(aptDirectory, "sources.list.d", name))
		}
	}
	lists := s.entries(aptLists)
	for _, file := range files {
		b, err := optional(s.readFile(file, maxText))
		if err != nil {
			warn(err)
		}
		one := func(a *aptSource) {
			a.place, a.source = s.place(), file
			for _, name := range lists {
				rest, ok := strings.CutPrefix(name, a.lists)
				if ok && (rest == "_InRelease" || rest == "_Release") {
					if head, err := s.readHead(path.Join(aptLists, name), maxRelease); err == nil {
						a.parseRelease(head)
						break
					}
				}
			}
			add(a)
		}
		if path.Ext(file) == ".sources" {
			parseAptStanzas(b, one)
			continue
		}
		eachLine(b, func(line string) {
			if a := parseAptLine(line); a != nil {
				one(a)
			}
		})
	}
}

func aptSourcesTable(env *Env) schema.Relation {
	type row = *aptSource
	t := &schema.Table[row]{
		Name: "apt_sources",
		Doc:  "Repositories that apt fetches packages from.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(a row) *string { return &a.name }, "Place and suite"),
			schema.Str("source", func(a row) *string { return &a.source }, "File it stands in"),
			schema.Str("base_uri", func(a row) *string { return &a.uri }, "URI"),
			schema.Str("release", func(a row) *string { return &a.release }, "Code name of the release; this and what follows as last fetched"),
			schema.Str("version", func(a row) *string { return &a.version }, "Version of the release").Collated("version_dpkg"),
			schema.Str("maintainer", func(a row) *string { return &a.maintainer }, "Who publishes it"),
			schema.Str("components", func(a row) *string { return &a.components }, "Components"),
			schema.Str("architectures", func(a row) *string { return &a.architectures }, "Architectures"),
			pidColumn(func(a row) *place { return &a.place }),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachScope(t.Def(), q, func(s *scope) error {
			s.aptSources(func(err error) { q.Warning(fmt.Sprintf("Table apt_sources is incomplete: %v", err)) },
				func(a row) { rows = append(rows, a) })
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}

// yumSource is a row of yum_sources.
type yumSource struct {
	place
	name, baseURL, mirrorList, enabled, check, key string
}

// yumOptions are how yum and dnf read their files (dnf.conf(5)): lines that begin with white space go on, and what
// follows a # within a line is part of it.
var yumOptions = ini.LoadOptions{
	IgnoreInlineComment: true, AllowPythonMultilineValues: true, SkipUnrecognizableLines: true, IgnoreContinuation: true,
	AllowBooleanKeys: true, PreserveSurroundedQuote: true, UnescapeValueDoubleQuotes: false,
}

// parseYum reads a file of repositories, but for its section main, whose directories of
// further files it returns.
func parseYum(b []byte, add func(*yumSource)) (directories []string, err error) {
	f, err := ini.LoadSources(yumOptions, b)
	if err != nil {
		return nil, err
	}
	for _, s := range f.Sections() {
		value := func(key string) string {
			if !s.HasKey(key) {
				return ""
			}
			return strings.Join(strings.Fields(s.Key(key).Value()), " ")
		}
		switch s.Name() {
		case ini.DefaultSection:
		case "main":
			directories = append(directories, strings.FieldsFunc(value("reposdir"), func(r rune) bool { return r == ',' || r == ' ' })...)
		default:
			y := &yumSource{name: value("name"), baseURL: value("baseurl"), mirrorList: value("mirrorlist"), enabled: value("enabled"),
				check: value("gpgcheck"), key: value("gpgkey")}
			if y.name == "" {
				y.name = s.Name()
			}
			add(y)
		}
	}
	return directories, nil
}

var (
	yumFiles       = []string{"/etc/yum.conf", "/etc/dnf/dnf.conf"}
	yumDirectories = []string{"/etc/yum.repos.d", "/etc/yum/repos.d", "/etc/distro.repos.d"}
)

func yumSourcesTable(env *Env) schema.Relation {
	type row = *yumSource
	t := &schema.Table[row]{
		Name: "yum_sources",
		Doc:  "Repositories that yum and dnf fetch packages from.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(y row) *string { return &y.name }, "Name"),
			schema.Str("baseurl", func(y row) *string { return &y.baseURL }, "URL"),
			schema.Str("mirrorlist", func(y row) *string { return &y.mirrorList }, "URL of a list of mirrors"),
			schema.Str("enabled", func(y row) *string { return &y.enabled }, "0 when it is not used; empty is the default, which is 1"),
			schema.Str("gpgcheck", func(y row) *string { return &y.check }, "1 when the signatures of packages are checked; empty is as in section main"),
			schema.Str("gpgkey", func(y row) *string { return &y.key }, "URLs of the keys"),
			pidColumn(func(y row) *place { return &y.place }),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachScope(t.Def(), q, func(s *scope) error {
			read := func(file string) []string {
				b, err := optional(s.readFile(file, maxManifest))
				var more []string
				if err == nil {
					more, err = parseYum(b, func(y row) {
						y.place = s.place()
						rows = append(rows, y)
					})
				}
				if err != nil {
					q.Warning(fmt.Sprintf("Table yum_sources is incomplete: %q: %v", file, err))
				}
				return more
			}
			dirs, seen := yumDirectories, map[string]bool{}
			for _, file := range yumFiles {
				dirs = append(dirs[:len(dirs):len(dirs)], read(file)...)
			}
			for _, dir := range dirs {
				if dir = path.Clean("/" + dir); seen[dir] {
					continue
				}
				seen[dir] = true
				for _, name := range s.entries(dir) {
					if path.Ext(name) == ".repo" {
						read(path.Join(dir, name))
					}
				}
			}
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}
