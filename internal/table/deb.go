package table

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
)

const (
	dpkgDirectory = "/var/lib/dpkg"
	maxDpkgStatus = 64 << 20 // ten times that of a desktop with everything
	maxDpkgList   = 16 << 20 // the files of one package
)

// debPackage is one paragraph of dpkg's status file (deb-status in dpkg's sources,
// deb822(5)).
type debPackage struct {
	place
	name, version, source, arch, status, maintainer, section, priority string
	admindir                                                           string
	size                                                               int64 // KiB
}

// parseDpkgStatus reads paragraphs of fields. Fields that run over several lines (Depends,
// Conffiles, Description) are none of ours, so their continuations are passed over.
func parseDpkgStatus(b []byte, add func(p *debPackage)) {
	p := &debPackage{}
	flush := func() {
		if p.name != "" {
			add(p)
		}
		p = &debPackage{}
	}
	for line := range bytes.Lines(b) {
		line = bytes.TrimRight(line, "\r\n")
		if len(bytes.TrimSpace(line)) == 0 {
			flush()
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		key, value, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			continue
		}
		v := string(bytes.TrimSpace(value))
		switch strings.ToLower(string(key)) {
		case "package":
			p.name = v
		case "version":
			p.version = v
		case "source":
			p.source = v
		case "architecture":
			p.arch = v
		case "status":
			p.status = v
		case "maintainer":
			p.maintainer = v
		case "section":
			p.section = v
		case "priority":
			p.priority = v
		case "installed-size":
			p.size, _ = strconv.ParseInt(v, 10, 64)
		}
	}
	flush()
}

// revision is the Debian revision of a version: what follows its last hyphen
// (deb-version(7)).
func (p *debPackage) revision() string {
	if i := strings.LastIndexByte(p.version, '-'); i >= 0 {
		return p.version[i+1:]
	}
	return ""
}

// installed says whether dpkg holds anything of the package.
func (p *debPackage) installed() bool {
	return p.version != "" && !strings.HasSuffix(p.status, " not-installed")
}

// dpkgDirectories are the databases that a query asks for by admindir.
func dpkgDirectories(def *schema.Def, q *schema.Query) []string {
	if values, asked := q.Equals(def.Column("admindir")); asked {
		return texts(values)
	}
	return []string{dpkgDirectory}
}

// debPackages reads a database: its status file or, in images without dpkg, a directory
// of them (status.d, as distroless images have it).
func (s *scope) debPackages(admindir string, add func(*debPackage)) error {
	take := func(p *debPackage) {
		p.place, p.admindir = s.place(), admindir
		if p.status == "" {
			p.status = "install ok installed" // status.d names only what is there
		}
		if p.installed() {
			add(p)
		}
	}
	b, err := s.readFile(join(admindir, "status"), maxDpkgStatus)
	if err == nil {
		parseDpkgStatus(b, take)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range s.entries(join(admindir, "status.d")) {
		if strings.HasSuffix(name, ".md5sums") {
			continue
		}
		if b, err := s.readFile(join(admindir, "status.d/"+name), maxDpkgList); err == nil {
			parseDpkgStatus(b, take)
		}
	}
	return nil
}

func debPackagesTable(env *Env) schema.Relation {
	type row = *debPackage
	t := &schema.Table[row]{
		Name: "deb_packages",
		Doc:  "Packages in dpkg's database: installed ones, and those of which something is left.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(p row) *string { return &p.name }, "Package"),
			schema.Str("version", func(p row) *string { return &p.version }, "Version, as dpkg compares it").Collated("version_dpkg"),
			schema.Str("source", func(p row) *string { return &p.source }, "Source package, where its name or version differs"),
			schema.Int("size", func(p row) *int64 { return &p.size }, "Installed size in KiB, as the package declares it"),
			schema.Str("arch", func(p row) *string { return &p.arch }, "Architecture"),
			schema.Calc("revision", schema.Text, func(p row) schema.Value { return schema.TextValue(p.revision()) }, "Debian revision: what follows the version's last hyphen"),
			schema.Str("status", func(p row) *string { return &p.status }, "What is wanted, whether something is wrong, and the state: install ok installed"),
			schema.Str("maintainer", func(p row) *string { return &p.maintainer }, "Maintainer"),
			schema.Str("section", func(p row) *string { return &p.section }, "Section"),
			schema.Str("priority", func(p row) *string { return &p.priority }, "Priority"),
			schema.Str("admindir", func(p row) *string { return &p.admindir }, "Directory of dpkg's database", schema.Additional, schema.Optimized),
			pidColumn(func(p row) *place { return &p.place }),
			mountColumn(func(p row) *place { return &p.place }),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachScope(t.Def(), q, func(s *scope) error {
			for _, dir := range dpkgDirectories(t.Def(), q) {
				if err := s.debPackages(dir, func(p *debPackage) { rows = append(rows, p) }); err != nil {
					q.Warning(err.Error())
				}
			}
			return nil
		})
		return rows, err
	}
	return t.Bind()
}

// packageFile is a file that a package put there.
type packageFile struct {
	pkg, path, admindir string
	user, group, mode   string
	sha256              string
	size                int64
}

func debPackageFilesTable(env *Env) schema.Relation {
	type row = *packageFile
	t := newStreamed("deb_package_files", "Files and directories of installed packages, as dpkg lists them.", []schema.Column[row]{
		schema.Str("package", func(f row) *string { return &f.pkg }, "Package", schema.Index, schema.Optimized),
		schema.Str("path", func(f row) *string { return &f.path }, "Path", schema.Index),
		schema.Str("admindir", func(f row) *string { return &f.admindir }, "Directory of dpkg's database", schema.Additional, schema.Optimized),
	})
	t.scan = func(ctx context.Context, q *schema.Query, yield func(row) error) error {
		only := packageNames(t.def, q)
		return env.eachScope(t.def, q, func(s *scope) error {
			for _, dir := range dpkgDirectories(t.def, q) {
				for _, name := range s.entries(join(dir, "info")) {
					pkg, ok := strings.CutSuffix(name, ".list")
					if !ok {
						continue
					}
					pkg, _, _ = strings.Cut(pkg, ":") // of a package of several architectures at once
					if only != nil && !only[pkg] {
						continue
					}
					b, err := s.readFile(join(dir, "info/"+name), maxDpkgList)
					if err != nil {
						q.Warning(fmt.Sprintf("Table deb_package_files is incomplete: %v", err))
						continue
					}
					for line := range bytes.Lines(b) {
						path := string(bytes.TrimRight(line, "\r\n"))
						if path == "/." || path == "" {
							continue
						}
						if err := yield(&packageFile{pkg: pkg, path: path, admindir: dir}); err != nil {
							return err
						}
					}
				}
			}
			return nil
		})
	}
	return t
}

// packageNames are the packages that a query asks for by name; nil means all.
func packageNames(def *schema.Def, q *schema.Query) map[string]bool {
	values, asked := q.Equals(def.Column("package"))
	if !asked {
		return nil
	}
	only := map[string]bool{}
	for _, v := range values {
		only[v.Text()] = true
	}
	return only
}
