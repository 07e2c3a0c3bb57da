package event

import "github.com/goshawk-project/goshawk/internal/schema"

// BPF is a BPF program loaded, attached or detached: bpf(2).
type BPF struct {
	Header
	Operation    string // prog_load, prog_attach, prog_detach, raw_tracepoint_open, link_create, link_update, link_detach
	ProgramID    uint32 // the kernel's number of it, 0 unknown
	ProgramType  string // kprobe, tracepoint, xdp, lsm …
	ProgramName  string // as the kernel keeps it, 15 bytes at most
	Instructions uint32 // as loaded, 0 unknown
	AttachType   uint32 // BPF_* of enum bpf_attach_type, in link_create and prog_attach
	AttachPoint  string // name of a raw tracepoint
	Result       string // "ok" or an errno's name
}

// Reset empties e for use again.
func (e *BPF) Reset() { *e = BPF{} }

var bpfKind = kindOf[BPF](Kind{
	ID: KindBPF, Table: "bpf_events", Critical: true,
	Doc: "BPF programs loaded, attached and detached",
	Columns: columns(
		schema.Str("operation", func(e *BPF) *string { return &e.Operation }, "prog_load, prog_attach, prog_detach, raw_tracepoint_open, link_create, link_update or link_detach"),
		schema.Int("program_id", func(e *BPF) *uint32 { return &e.ProgramID }, "The kernel's number of the program", schema.OmitZero),
		schema.Str("program_type", func(e *BPF) *string { return &e.ProgramType }, "Type of the program: kprobe, tracepoint, xdp, lsm and so on"),
		schema.Str("program_name", func(e *BPF) *string { return &e.ProgramName }, "Name of the program, as its loader gave it to the kernel"),
		schema.Int("instructions", func(e *BPF) *uint32 { return &e.Instructions }, "Instructions of the program, when it is loaded", schema.OmitZero),
		schema.Int("attach_type", func(e *BPF) *uint32 { return &e.AttachType }, "Where it is attached, by number (enum bpf_attach_type)"),
		schema.Str("attach_point", func(e *BPF) *string { return &e.AttachPoint }, "Raw tracepoint that it is attached to"),
		schema.Str("result", func(e *BPF) *string { return &e.Result }, "ok, or the error's name"),
	),
})
