package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Module is a kernel module loaded or unloaded: init_module(2), finit_module(2),
// delete_module(2).
type Module struct {
	Header
	Operation  string // load or unload
	Name       string
	ModulePath string // of the file it was loaded from
	Parameters string
	Flags      string // MODULE_INIT_* or O_*, joined by |
	Result     string // "ok" or an errno's name
	Syscall    string
	SHA256     string // of the file's contents, hexadecimal
	HashError  string // why there is none, where there should be
	Inode      uint64 // of the file, 0 unknown
}

// Reset empties e for use again.
func (e *Module) Reset() { *e = Module{} }

var moduleKind = kindOf[Module](Kind{
	ID: KindModule, Table: "module_events", Critical: true,
	Doc: "Kernel modules loaded and unloaded",
	Columns: columns(
		schema.Str("operation", func(e *Module) *string { return &e.Operation }, "load or unload"),
		schema.Str("name", func(e *Module) *string { return &e.Name }, "Name of the module"),
		schema.Str("module_path", func(e *Module) *string { return &e.ModulePath }, "File that it was loaded from"),
		schema.Str("parameters", func(e *Module) *string { return &e.Parameters }, "Parameters it was loaded with"),
		schema.Str("flags", func(e *Module) *string { return &e.Flags }, "Flags of the call, joined by |"),
		schema.Str("result", func(e *Module) *string { return &e.Result }, "ok, or the error's name"),
		schema.Str("syscall", func(e *Module) *string { return &e.Syscall }, "System call that asked for it"),
		schema.Int("inode", func(e *Module) *uint64 { return &e.Inode }, "Inode of that file", schema.OmitZero),
		schema.Str("sha256", func(e *Module) *string { return &e.SHA256 }, "SHA-256 of that file's contents, hexadecimal"),
		schema.Str("hash_error", func(e *Module) *string { return &e.HashError }, "Why there is none: slow (two seconds were not enough), or as filesystem_events has it"),
	),
})
