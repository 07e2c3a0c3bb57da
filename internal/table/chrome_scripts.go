package table

import (
	"context"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// chromeScript is a row of chrome_extension_content_scripts.
type chromeScript struct {
	*chromeExtension
	script, match string
}

// maxScripts bounds the pairs of scripts and patterns of one extension.
const maxScripts = 10_000

// contentScripts reads which scripts an extension puts into which pages
// (developer.chrome.com, "Content scripts").
func (e *chromeExtension) contentScripts() []*chromeScript {
	var m struct {
		Scripts []struct {
			Matches []loose
			JS      []loose
		} `json:"content_scripts"`
	}
	if !lenient([]byte(e.manifest), &m) {
		return nil
	}
	var out []*chromeScript
	for _, s := range m.Scripts {
		for _, script := range s.JS {
			for _, match := range s.Matches {
				if len(out) >= maxScripts {
					return out
				}
				out = append(out, &chromeScript{e, string(script), string(match)})
			}
		}
	}
	return out
}

func chromeContentScriptsTable(env *Env) schema.Relation {
	type row = *chromeScript
	t := &schema.Table[row]{
		Name: "chrome_extension_content_scripts",
		Doc:  "Scripts that extensions of browsers like Chrome put into pages, joined with users.",
		Columns: []schema.Column[row]{
			schema.Str("browser_type", func(r row) *string { return &r.browser }, "Browser: chrome, chromium, brave, edge …"),
			uidColumn(func(r row) *uint32 { return &r.uid }, schema.Index),
			schema.Str("identifier", func(r row) *string { return &r.id }, "Identifier of the extension"),
			schema.Str("version", func(r row) *string { return &r.version }, "Version of the extension").Collated("version"),
			schema.Str("script", func(r row) *string { return &r.script }, "Script, below the extension's directory"),
			schema.Str("match", func(r row) *string { return &r.match }, "Pattern of the addresses of pages"),
			schema.Str("profile_path", func(r row) *string { return &r.profilePath }, "Directory of the profile"),
			schema.Str("path", func(r row) *string { return &r.path }, "Directory of the extension"),
			schema.Calc("referenced", schema.BigInt, func(r row) schema.Value { return schema.BoolValue(r.referenced) }, "1 when the profile's settings name it"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachHome(t.Def(), q, func(s *scope, a *account) error {
			s.chromeProfiles(a, func(e *chromeExtension) { rows = append(rows, e.contentScripts()...) })
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}
