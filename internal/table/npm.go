package table

import (
	"context"
	"encoding/json"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// npmSites are where node looks for packages that are installed globally, as patterns;
// osquery's list, and nvm's for root.
var npmSites = [...]string{
	"/usr/local/lib", "/usr/lib", "/usr/share/nodejs", "/opt/homebrew/lib",
	"/home/%/.npm-global/lib", "/home/%/.nvm/versions/node/%/lib", "/root/.nvm/versions/node/%/lib",
}

const (
	maxManifest = 4 << 20 // of a package.json, and other files that describe a package
	npmDepth    = 100     // osquery's default of max_depth
	maxModules  = 1 << 18 // directories looked into by one scan
)

// loose is text where a manifest has a string; what is not one is nothing, as manifests are
// written by hand.
type loose string

// UnmarshalJSON implements json.Unmarshaler.
func (l *loose) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*l = loose(s)
	}
	return nil
}

// npmPackage is a row of npm_packages.
type npmPackage struct {
	place
	name, version, description, author, license, homepage, path, directory string
	depth, maxDepth                                                        int64
}

// parsePackageJSON reads a package.json (docs.npmjs.com, "package.json").
func parsePackageJSON(b []byte) (*npmPackage, bool) {
	var m struct {
		Name, Version, Description, Homepage loose
		Author, License                      json.RawMessage
		Licenses                             []struct{ Type, URL loose }
	}
	// A field of another type leaves the others as they are.
	if err := json.Unmarshal(b, &m); err != nil {
		if _, ok := err.(*json.UnmarshalTypeError); !ok {
			return nil, false
		}
	}
	p := &npmPackage{name: string(m.Name), version: string(m.Version), description: string(m.Description), homepage: string(m.Homepage)}
	p.author, p.license = member(m.Author, "name"), member(m.License, "type")
	if p.license == "" {
		p.license = member(m.License, "url")
	}
	if p.license == "" && len(m.Licenses) > 0 {
		p.license = string(m.Licenses[0].Type)
	}
	return p, true
}

// member is a JSON string, or that member of a JSON object.
func member(b json.RawMessage, name string) string {
	var s string
	if json.Unmarshal(b, &s) == nil {
		return s
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(b, &object) != nil || json.Unmarshal(object[name], &s) != nil {
		return ""
	}
	return s
}

// npmSite calls add with the packages below one directory that has node_modules in it, and
// below those packages.
func (s *scope) npmSite(ctx context.Context, site string, maxDepth int64, add func(*npmPackage)) {
	type level struct {
		dir   string
		depth int64
	}
	// By device and inode: links can lead in circles.
	type identity struct {
		device uint64
		inode  uint64
	}
	seen := map[identity]bool{}
	for todo := []level{{strings.TrimRight(site, "/"), 0}}; len(todo) > 0 && len(seen) < maxModules && ctx.Err() == nil; {
		at := todo[0]
		todo = todo[1:]
		modules := at.dir + "/node_modules"
		if at.depth == 0 && strings.HasSuffix(at.dir, "/nodejs") { // Debian's packages lie there themselves
			modules = at.dir
		}
		st, err := s.stat(modules, true)
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || seen[identity{st.Dev, st.Ino}] {
			continue
		}
		seen[identity{st.Dev, st.Ino}] = true
		var dirs []string
		for _, name := range s.entries(modules) {
			if !strings.HasPrefix(name, "@") {
				dirs = append(dirs, path.Join(modules, name))
				continue
			}
			for _, scoped := range s.entries(path.Join(modules, name)) {
				dirs = append(dirs, path.Join(modules, name, scoped))
			}
		}
		for _, dir := range dirs {
			manifest := dir + "/package.json"
			b, err := s.readFile(manifest, maxManifest)
			if err != nil {
				continue
			}
			if p, ok := parsePackageJSON(b); ok {
				p.place, p.path, p.directory, p.depth, p.maxDepth = s.place(), manifest, site, at.depth, maxDepth
				add(p)
			}
			if maxDepth < 0 || at.depth < maxDepth {
				todo = append(todo, level{dir, at.depth + 1})
			}
		}
	}
}

func npmPackagesTable(env *Env) schema.Relation {
	type row = *npmPackage
	t := &schema.Table[row]{
		Name: "npm_packages",
		Doc:  "Node packages that are installed globally, or below a directory, and the packages in them.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(p row) *string { return &p.name }, "Package"),
			schema.Str("version", func(p row) *string { return &p.version }, "Version").Collated("version"),
			schema.Str("description", func(p row) *string { return &p.description }, "What it is"),
			schema.Str("author", func(p row) *string { return &p.author }, "Author"),
			schema.Str("license", func(p row) *string { return &p.license }, "License"),
			schema.Str("homepage", func(p row) *string { return &p.homepage }, "Home page"),
			schema.Str("path", func(p row) *string { return &p.path }, "Path of its package.json"),
			schema.Str("directory", func(p row) *string { return &p.directory }, "Directory whose node_modules it is in or below", schema.Index, schema.Optimized),
			schema.Int("depth", func(p row) *int64 { return &p.depth }, "How many packages it is inside of").As(schema.Integer),
			schema.Int("max_depth", func(p row) *int64 { return &p.maxDepth }, "How deep to look, 100 unless told otherwise; -1 for any depth", schema.Hidden, schema.Additional).As(schema.Integer),
			pidColumn(func(p row) *place { return &p.place }),
			mountColumn(func(p row) *place { return &p.place }),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		def := t.Def()
		depth := int64(npmDepth)
		if values, asked := q.Equals(def.Column("max_depth")); asked && len(values) > 0 {
			depth = values[0].Int()
		}
		var rows []row
		add := func(p row) { rows = append(rows, p) }
		dirs, asked := q.Equals(def.Column("directory"))
		err := env.eachScope(def, q, func(s *scope) error {
			if asked {
				for _, dir := range texts(dirs) {
					s.npmSite(ctx, dir, depth, add)
				}
				return ctx.Err()
			}
			for _, pattern := range npmSites {
				for _, site := range s.match(ctx, q, def.Name, pattern) {
					s.npmSite(ctx, site, depth, add)
				}
			}
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}
