package table

import (
	"bytes"
	"context"
	"path"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// pythonSites are where packages for all users lie, pythonHomes those of one user, below
// the home directory, as patterns.
var (
	pythonSites = [...]string{
		"/usr/local/lib/python%/dist-packages", "/usr/local/lib/python%/site-packages",
		"/usr/lib/python%/dist-packages", "/usr/lib/python%/site-packages",
		"/usr/lib64/python%/site-packages", "/opt/%/lib/python%/site-packages",
	}
	pythonHomes = [...]string{
		".local/lib/python%/site-packages", ".pyenv/versions/%/lib/python%/site-packages",
		".local/pipx/venvs/%/lib/python%/site-packages",
	}
)

// pythonMetadata is how much of a METADATA file is read: the fields come first, and a
// README of any size after them.
const pythonMetadata = 64 << 10

// pythonPackage is a row of python_packages.
type pythonPackage struct {
	place
	name, version, summary, author, license, path, directory string
	uid                                                      uint32
}

// parseMetadata reads the fields of core metadata (packaging.python.org, "Core metadata
// specifications"), which end at an empty line. The first of each name counts.
func parseMetadata(b []byte, p *pythonPackage) {
	fields := map[string]*string{
		"name": &p.name, "version": &p.version, "summary": &p.summary, "author": &p.author, "license": &p.license,
		"license-expression": &p.license, "author-email": &p.author,
	}
	for line := range bytes.Lines(b) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return
		}
		key, value, ok := bytes.Cut(line, []byte{':'})
		if !ok || line[0] == ' ' || line[0] == '\t' {
			continue
		}
		if at := fields[strings.ToLower(string(key))]; at != nil && *at == "" {
			if v := string(bytes.TrimSpace(value)); v != "UNKNOWN" { // what setuptools writes for nothing
				*at = v
			}
		}
	}
}

// pythonSite calls add with the packages in one directory of them.
func (s *scope) pythonSite(site string, uid uint32, add func(*pythonPackage)) {
	dir := strings.TrimRight(site, "/")
	for _, name := range s.entries(dir) {
		at := path.Join(dir, name)
		var files []string
		switch {
		case strings.HasSuffix(name, ".dist-info"):
			files = []string{at + "/METADATA"}
		case strings.HasSuffix(name, ".egg-info"):
			files = []string{at + "/PKG-INFO", at} // distutils wrote one file
		default:
			continue
		}
		for _, file := range files {
			b, err := s.readHead(file, pythonMetadata)
			if err != nil {
				continue
			}
			p := &pythonPackage{place: s.place(), path: at, directory: site, uid: uid}
			parseMetadata(b, p)
			if p.name != "" {
				add(p)
			}
			break
		}
	}
}

func pythonPackagesTable(env *Env) schema.Relation {
	type row = *pythonPackage
	t := &schema.Table[row]{
		Name: "python_packages",
		Doc:  "Python packages of all users and, joined with users, of each.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(p row) *string { return &p.name }, "Package"),
			schema.Int("uid", func(p row) *uint32 { return &p.uid }, "User whose home directory it is in; 0 for one of all users", schema.Index),
			schema.Str("version", func(p row) *string { return &p.version }, "Version").Collated("version"),
			schema.Str("summary", func(p row) *string { return &p.summary }, "What it is, in one line"),
			schema.Str("author", func(p row) *string { return &p.author }, "Author, or the author's address"),
			schema.Str("license", func(p row) *string { return &p.license }, "License"),
			schema.Str("path", func(p row) *string { return &p.path }, "Directory of its metadata"),
			schema.Str("directory", func(p row) *string { return &p.directory }, "Directory of packages it is in", schema.Index, schema.Optimized),
			pidColumn(func(p row) *place { return &p.place }),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		def := t.Def()
		var rows []row
		add := func(p row) { rows = append(rows, p) }
		if dirs, asked := q.Equals(def.Column("directory")); asked {
			err := env.eachScope(def, q, func(s *scope) error {
				for _, dir := range texts(dirs) {
					s.pythonSite(dir, s.owner(dir), add)
				}
				return nil
			})
			return rows, err
		}
		if keep := wanted(q, def.Column("uid")); keep(0) {
			err := env.eachScope(def, q, func(s *scope) error {
				for _, pattern := range pythonSites {
					for _, site := range s.match(ctx, q, def.Name, pattern) {
						s.pythonSite(strings.TrimRight(site, "/"), 0, add)
					}
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
		err := env.eachHome(def, q, func(s *scope, a *account) error {
			for _, pattern := range pythonHomes {
				for _, site := range s.match(ctx, q, def.Name, join(a.home, pattern)) {
					s.pythonSite(strings.TrimRight(site, "/"), a.uid, add)
				}
			}
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}

// owner is the user whose home directory a path is in, as far as the path tells: the
// longest home that is a beginning of it, but / is none. 0 when there is no such user.
func (s *scope) owner(file string) (uid uint32) {
	accounts, err := s.accounts()
	if err != nil {
		return 0
	}
	best := 1
	for _, a := range accounts {
		if home := strings.TrimRight(a.home, "/"); len(home) > best && strings.HasPrefix(file, home+"/") {
			best, uid = len(home), a.uid
		}
	}
	return uid
}
