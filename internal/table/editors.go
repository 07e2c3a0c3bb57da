package table

import (
	"archive/zip"
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// vscodeHomes are the directories of Visual Studio Code and what descends from it, below
// the home directory.
var vscodeHomes = [...]struct{ dir, edition string }{
	{".vscode", "vscode"}, {".vscode-server", "vscode"},
	{".vscode-insiders", "vscode_insiders"}, {".vscode-server-insiders", "vscode_insiders"},
	{".vscode-oss", "vscodium"}, {".vscodium-server", "vscodium"},
	{".cursor", "cursor"}, {".cursor-server", "cursor"},
	{".windsurf", "windsurf"}, {".windsurf-server", "windsurf"},
	{".trae", "trae"},
}

// vscodeExtension is a row of vscode_extensions.
type vscodeExtension struct {
	uid                                                        uint32
	name, uuid, version, path, publisher, publisherID, edition string
	installed                                                  int64
	prerelease                                                 bool
}

// parseVSCodeExtensions reads an extensions.json
// (src/vs/platform/extensionManagement/common/extensionsProfileScannerService.ts).
func parseVSCodeExtensions(b []byte) []*vscodeExtension {
	var list []struct {
		Identifier struct{ ID, UUID loose }
		Version    loose
		Location   struct{ Path loose }
		Metadata   struct {
			PublisherDisplayName, PublisherID loose
			InstalledTimestamp                json.Number
			IsPreReleaseVersion               bool
		}
	}
	if !lenient(b, &list) {
		return nil
	}
	var out []*vscodeExtension
	for _, e := range list {
		if e.Identifier.ID == "" {
			continue
		}
		x := &vscodeExtension{
			name: string(e.Identifier.ID), uuid: string(e.Identifier.UUID), version: string(e.Version), path: string(e.Location.Path),
			publisher: string(e.Metadata.PublisherDisplayName), publisherID: string(e.Metadata.PublisherID), prerelease: e.Metadata.IsPreReleaseVersion,
		}
		x.installed, _ = e.Metadata.InstalledTimestamp.Int64()
		out = append(out, x)
	}
	return out
}

func vscodeExtensionsTable(env *Env) schema.Relation {
	type row = *vscodeExtension
	t := &schema.Table[row]{
		Name: "vscode_extensions",
		Doc:  "Extensions of Visual Studio Code and its kin.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(e row) *string { return &e.name }, "Publisher and name of the extension"),
			schema.Str("uuid", func(e row) *string { return &e.uuid }, "UUID in the marketplace").Collated("nocase"),
			schema.Str("version", func(e row) *string { return &e.version }, "Version").Collated("version"),
			schema.Str("path", func(e row) *string { return &e.path }, "Its directory"),
			schema.Str("publisher", func(e row) *string { return &e.publisher }, "Publisher's name"),
			schema.Str("publisher_id", func(e row) *string { return &e.publisherID }, "Publisher's UUID"),
			schema.Int("installed_at", func(e row) *int64 { return &e.installed }, "When it was installed, unix milliseconds"),
			schema.Bool("prerelease", func(e row) *bool { return &e.prerelease }, "1 for a version before its release"),
			uidColumn(func(e row) *uint32 { return &e.uid }, schema.Additional, schema.Optimized),
			schema.Str("vscode_edition", func(e row) *string { return &e.edition }, "Edition: vscode, vscode_insiders, vscodium, cursor, windsurf, trae"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachHome(t.Def(), q, func(s *scope, a *account) error {
			for _, h := range vscodeHomes {
				b, err := s.readFile(path.Join(a.home, h.dir, "extensions/extensions.json"), maxManifest)
				if err != nil {
					continue
				}
				for _, e := range parseVSCodeExtensions(b) {
					e.uid, e.edition = a.uid, h.edition
					rows = append(rows, e)
				}
			}
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}

// jetbrainsHome is where JetBrains' products keep plugins, below the home directory: one
// directory for each product and version. jetbrainsProducts are their beginnings.
const jetbrainsHome = ".local/share/JetBrains"

var jetbrainsProducts = [...]struct{ dir, product string }{
	{"CLion", "clion"}, {"DataGrip", "datagrip"}, {"GoLand", "goland"},
	{"IntelliJIdea", "intellij_idea"}, {"IdeaIC", "intellij_idea_community_edition"},
	{"PhpStorm", "phpstorm"}, {"PyCharmCE", "pycharm_community_edition"}, {"PyCharm", "pycharm"},
	{"ReSharper", "resharper"}, {"Rider", "rider"}, {"RubyMine", "rubymine"}, {"RustRover", "rust_rover"},
	{"WebStorm", "webstorm"},
}

// jetbrainsPlugin is a row of jetbrains_plugins.
type jetbrainsPlugin struct {
	uid                                  uint32
	product, name, version, vendor, path string
}

// pluginXML is what a plugin says of itself in META-INF/plugin.xml
// (plugins.jetbrains.com/docs/intellij/plugin-configuration-file.html).
type pluginXML struct {
	Name    string `xml:"name"`
	Version string `xml:"version"`
	Vendor  string `xml:"vendor"`
}

// jarPlugin reads a plugin's description from a jar; false when it has none.
func (r root) jarPlugin(file string) (x pluginXML, ok bool) {
	fd, err := r.open(file, true)
	if err != nil {
		return x, false
	}
	defer unix.Close(fd)
	n, err := openRegular(fd)
	if err != nil {
		return x, false
	}
	f := os.NewFile(uintptr(n), file)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return x, false
	}
	jar, err := zip.NewReader(f, info.Size())
	if err != nil {
		return x, false
	}
	for _, entry := range jar.File {
		if entry.Name != "META-INF/plugin.xml" {
			continue
		}
		in, err := entry.Open()
		if err != nil {
			return x, false
		}
		defer in.Close()
		d := xml.NewDecoder(io.LimitReader(in, maxManifest))
		d.Strict = false
		if d.Decode(&x) != nil {
			return x, false
		}
		x = pluginXML{strings.TrimSpace(x.Name), strings.TrimSpace(x.Version), strings.TrimSpace(x.Vendor)}
		return x, x != pluginXML{}
	}
	return x, false
}

// jetbrainsProduct calls add with the plugins of one version of a product: a jar each, or
// a directory with jars in lib.
func (s *scope) jetbrainsProduct(dir string, add func(at string, x pluginXML)) {
	for _, name := range s.entries(dir) {
		at := path.Join(dir, name)
		if strings.HasSuffix(name, ".jar") {
			if x, ok := s.jarPlugin(at); ok {
				add(at, x)
			}
			continue
		}
		jars := slices.DeleteFunc(s.entries(at+"/lib"), func(n string) bool { return !strings.HasSuffix(n, ".jar") })
		// The plugin's own before those of libraries, which seldom describe a plugin.
		slices.SortStableFunc(jars, func(x, y string) int {
			own := func(n string) int {
				if strings.HasPrefix(strings.ToLower(n), strings.ToLower(name)) {
					return 0
				}
				return 1
			}
			return cmp.Or(own(x)-own(y), len(x)-len(y))
		})
		for _, jar := range jars {
			if x, ok := s.jarPlugin(path.Join(at, "lib", jar)); ok {
				add(at, x)
				break
			}
		}
	}
}

func jetbrainsPluginsTable(env *Env) schema.Relation {
	type row = *jetbrainsPlugin
	t := &schema.Table[row]{
		Name: "jetbrains_plugins",
		Doc:  "Plugins of JetBrains' development environments.",
		Columns: []schema.Column[row]{
			schema.Str("product_type", func(p row) *string { return &p.product }, "Product: goland, intellij_idea, pycharm …"),
			uidColumn(func(p row) *uint32 { return &p.uid }, schema.Index),
			schema.Str("name", func(p row) *string { return &p.name }, "Plugin's name"),
			schema.Str("version", func(p row) *string { return &p.version }, "Version").Collated("version"),
			schema.Str("vendor", func(p row) *string { return &p.vendor }, "Who made it"),
			schema.Str("path", func(p row) *string { return &p.path }, "Its jar or directory"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachHome(t.Def(), q, func(s *scope, a *account) error {
			for _, version := range s.entries(join(a.home, jetbrainsHome)) {
				for _, p := range jetbrainsProducts {
					if !strings.HasPrefix(version, p.dir) {
						continue
					}
					s.jetbrainsProduct(path.Join(a.home, jetbrainsHome, version), func(at string, x pluginXML) {
						rows = append(rows, &jetbrainsPlugin{uid: a.uid, product: p.product, name: x.Name, version: x.Version, vendor: x.Vendor, path: at})
					})
					break
				}
			}
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}
