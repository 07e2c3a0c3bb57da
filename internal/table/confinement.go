package table

import (
	"context"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

func apparmorProfilesTable(env *Env) schema.Relation {
	type row = *procfs.Profile
	t := &schema.Table[row]{
		Name: "apparmor_profiles",
		Doc:  "Profiles of AppArmor that are loaded.",
		Columns: []schema.Column[row]{
			schema.Str("path", func(p row) *string { return &p.Path }, "Name, after those of the profiles that it is in, with // between", schema.Index),
			schema.Str("name", func(p row) *string { return &p.Name }, "Name"),
			schema.Str("attach", func(p row) *string { return &p.Attach }, "Pattern of the executables that it is for"),
			schema.Str("mode", func(p row) *string { return &p.Mode }, "enforce, complain, kill or unconfined"),
			schema.Str("sha1", func(p row) *string { return &p.SHA1 }, "SHA-1 of the compiled profile, where the kernel has that").Collated("nocase"),
			schema.Str("sha256", func(p row) *string { return &p.SHA256 }, "SHA-256 of the compiled profile, where the kernel has that").Collated("nocase"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		list, err := env.FS.Profiles()
		return pointers(list), err
	}
	return t.Bind()
}

func selinuxSettingsTable(env *Env) schema.Relation {
	type row = *procfs.SELinuxSetting
	t := &schema.Table[row]{
		Name: "selinux_settings",
		Doc:  "Settings of SELinux; permissions of classes are left out.",
		Columns: []schema.Column[row]{
			schema.Str("scope", func(s row) *string { return &s.Scope }, "booleans, initial_contexts, policy_capabilities, or empty", schema.Index),
			schema.Str("key", func(s row) *string { return &s.Key }, "Name", schema.Index),
			schema.Str("value", func(s row) *string { return &s.Value }, "Value; on or off of booleans"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		list, err := env.FS.SELinux()
		return pointers(list), err
	}
	return t.Bind()
}
