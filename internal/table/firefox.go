package table

import (
	"context"
	"encoding/json"
	"path"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// firefoxHomes are the directories of Firefox's profiles, below the home directory.
var firefoxHomes = [...]string{
	".mozilla/firefox", "snap/firefox/common/.mozilla/firefox", ".var/app/org.mozilla.firefox/.mozilla/firefox",
}

// firefoxAddon is a row of firefox_addons.
type firefoxAddon struct {
	uid                                                                uint32
	name, id, creator, kind, version, description, source, where, path string
	visible, active, disabled                                          bool
	autoupdate                                                         int64
}

// parseFirefoxExtensions reads a profile's extensions.json
// (toolkit/mozapps/extensions/internal/XPIDatabase.sys.mjs).
func parseFirefoxExtensions(b []byte) []*firefoxAddon {
	var file struct {
		Addons []struct {
			ID, Type, Version, SourceURI, Location, Path loose
			DefaultLocale                                struct{ Name, Creator, Description loose }
			Visible, Active                              bool
			SoftDisabled, AppDisabled, UserDisabled      bool
			ApplyBackgroundUpdates                       json.RawMessage
		}
	}
	if !lenient(b, &file) {
		return nil
	}
	var out []*firefoxAddon
	for _, a := range file.Addons {
		f := &firefoxAddon{
			name: string(a.DefaultLocale.Name), id: string(a.ID), creator: string(a.DefaultLocale.Creator), kind: string(a.Type),
			version: string(a.Version), description: string(a.DefaultLocale.Description), source: string(a.SourceURI),
			where: string(a.Location), path: string(a.Path), visible: a.Visible, active: a.Active,
			disabled: a.SoftDisabled || a.AppDisabled || a.UserDisabled,
		}
		_ = json.Unmarshal(a.ApplyBackgroundUpdates, &f.autoupdate) // a number, or nothing
		out = append(out, f)
	}
	return out
}

func firefoxAddonsTable(env *Env) schema.Relation {
	type row = *firefoxAddon
	t := &schema.Table[row]{
		Name: "firefox_addons",
		Doc:  "Add-ons of Firefox: extensions, themes, dictionaries.",
		Columns: []schema.Column[row]{
			uidColumn(func(f row) *uint32 { return &f.uid }, schema.Additional, schema.Optimized),
			schema.Str("name", func(f row) *string { return &f.name }, "Add-on's name"),
			schema.Str("identifier", func(f row) *string { return &f.id }, "Identifier", schema.Index),
			schema.Str("creator", func(f row) *string { return &f.creator }, "Who made it"),
			schema.Str("type", func(f row) *string { return &f.kind }, "Type: extension, theme, locale, dictionary …"),
			schema.Str("version", func(f row) *string { return &f.version }, "Version").Collated("version"),
			schema.Str("description", func(f row) *string { return &f.description }, "What it is"),
			schema.Str("source_url", func(f row) *string { return &f.source }, "Where it was installed from"),
			schema.Bool("visible", func(f row) *bool { return &f.visible }, "1 when it is shown in the list of add-ons"),
			schema.Bool("active", func(f row) *bool { return &f.active }, "1 when it is in use"),
			schema.Bool("disabled", func(f row) *bool { return &f.disabled }, "1 when the user, the browser or the blocklist disabled it"),
			schema.Int("autoupdate", func(f row) *int64 { return &f.autoupdate }, "1 when it updates itself by default, 2 always, 0 never").As(schema.Integer),
			schema.Str("location", func(f row) *string { return &f.where }, "Where it belongs to: app-profile, app-system-defaults …"),
			schema.Str("path", func(f row) *string { return &f.path }, "Its file or directory"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachHome(t.Def(), q, func(s *scope, a *account) error {
			for _, dir := range firefoxHomes {
				for _, profile := range s.entries(join(a.home, dir)) {
					b, err := s.readFile(path.Join(a.home, dir, profile, "extensions.json"), maxPreferences)
					if err != nil {
						continue
					}
					for _, f := range parseFirefoxExtensions(b) {
						f.uid = a.uid
						rows = append(rows, f)
					}
				}
			}
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}
