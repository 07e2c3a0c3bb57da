package table

import (
	"context"
	"path"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
)

const (
	portageDirectory = "/var/db/pkg"
	portageWorld     = "/var/lib/portage/world"
	maxPortageFile   = 1 << 20
)

// portagePackage is a row of portage_packages.
type portagePackage struct {
	name, version, slot, repository string
	built, eapi, size               int64
	world                           bool
}

// splitPortage parts the name of a package from its version: the version begins at the
// last hyphen before a digit, but for the revision -rN (PMS, 3.1.2 and 3.2).
func splitPortage(s string) (name, version string) {
	end := len(s)
	if i := strings.LastIndex(s, "-r"); i >= 0 && i+2 < len(s) && strings.Trim(s[i+2:], "0123456789") == "" {
		end = i
	}
	for i := strings.LastIndexByte(s[:end], '-'); i > 0; i = strings.LastIndexByte(s[:i], '-') {
		if i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9' {
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

func portagePackagesTable(env *Env) schema.Relation {
	type row = *portagePackage
	t := &schema.Table[row]{
		Name: "portage_packages",
		Doc:  "Packages in Gentoo's database.",
		Columns: []schema.Column[row]{
			schema.Str("package", func(p row) *string { return &p.name }, "Category and package"),
			schema.Str("version", func(p row) *string { return &p.version }, "Version").Collated("version"),
			schema.Str("slot", func(p row) *string { return &p.slot }, "Slot"),
			schema.Int("build_time", func(p row) *int64 { return &p.built }, "When it was built, unix seconds"),
			schema.Str("repository", func(p row) *string { return &p.repository }, "Repository it comes from"),
			schema.Int("eapi", func(p row) *int64 { return &p.eapi }, "Version of the package's format"),
			schema.Int("size", func(p row) *int64 { return &p.size }, "Installed size in bytes"),
			schema.Bool("world", func(p row) *bool { return &p.world }, "1 when it was asked for by name").As(schema.Integer),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachScope(t.Def(), q, func(s *scope) error {
			text := func(dir, name string) string {
				b, _ := s.readFile(path.Join(dir, name), maxPortageFile)
				return strings.TrimSpace(string(b))
			}
			world := map[string]bool{}
			for _, line := range strings.Fields(text("/", portageWorld)) {
				line, _, _ = strings.Cut(line, ":")
				world[line] = true
			}
			for _, category := range s.entries(portageDirectory) {
				for _, pkg := range s.entries(path.Join(portageDirectory, category)) {
					dir := path.Join(portageDirectory, category, pkg)
					if strings.HasPrefix(pkg, "-") || !s.isDir(dir) { // -MERGING- is on its way
						continue
					}
					name, version := splitPortage(pkg)
					p := &portagePackage{name: category + "/" + name, version: version, slot: text(dir, "SLOT"), repository: text(dir, "repository")}
					p.built, _ = strconv.ParseInt(text(dir, "BUILD_TIME"), 10, 64)
					p.eapi, _ = strconv.ParseInt(text(dir, "EAPI"), 10, 64)
					p.size, _ = strconv.ParseInt(text(dir, "SIZE"), 10, 64)
					p.world = world[p.name]
					rows = append(rows, p)
				}
			}
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}
