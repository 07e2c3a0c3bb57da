package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Memory is memory made ready to be executed that no file on disk stands behind, or a file made
// that is on no disk: memfd_create(2), mprotect(2), mmap(2). The last two are told once for each
// process.
type Memory struct {
	Header
	Operation  string // memfd_create, mprotect or mmap
	Name       string // memfd_create: of the file
	Address    uint64 // mprotect: of the memory; mmap: as asked for
	Length     uint64 // bytes
	Protection string // PROT_*, joined by |
	Flags      string // MFD_* or MAP_*, joined by |
	Result     string // "ok" or an errno's name
}

// Reset empties e for use again.
func (e *Memory) Reset() { *e = Memory{} }

var memoryKind = kindOf[Memory](Kind{
	ID: KindMemory, Table: "memory_events", Critical: true,
	Doc: "Files made in memory, and memory made executable that is writable or anonymous",
	Columns: columns(
		schema.Str("operation", func(e *Memory) *string { return &e.Operation }, "memfd_create, mprotect or mmap; the last two once for each process"),
		schema.Str("name", func(e *Memory) *string { return &e.Name }, "Name of the file made in memory"),
		schema.Int("address", func(e *Memory) *uint64 { return &e.Address }, "Address of the memory", schema.OmitZero),
		schema.Int("length", func(e *Memory) *uint64 { return &e.Length }, "Bytes of the memory", schema.OmitZero),
		schema.Str("protection", func(e *Memory) *string { return &e.Protection }, "Protection asked for, PROT_* joined by |"),
		schema.Str("flags", func(e *Memory) *string { return &e.Flags }, "Flags of the call, joined by |"),
		schema.Str("result", func(e *Memory) *string { return &e.Result }, "ok, or the error's name"),
	),
})
