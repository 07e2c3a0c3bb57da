package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Ptrace is a process that reached into another: ptrace(2), process_vm_readv(2),
// process_vm_writev(2), or a write to /proc/PID/mem (proc(5)), which may be its own. The header is the one that reached; with traceme it is the tracee,
// and Target its parent.
type Ptrace struct {
	Header
	Request     string // attach, seize, traceme, poketext …; process_vm_readv, process_vm_writev, mem_write
	Result      string // "ok" or an errno's name
	TargetPath  string
	TargetComm  string
	TargetStart uint64 // ns since boot, 0 unknown
	TargetPID   uint32
	TargetUID   uint32 // Unset unknown
}

// Reset empties e for use again.
func (e *Ptrace) Reset() { *e = Ptrace{} }

var ptraceKind = kindOf[Ptrace](Kind{
	ID: KindPtrace, Table: "ptrace_events", Critical: true,
	Doc: "Processes that traced another, or read or wrote its memory",
	Columns: columns(
		schema.Str("request", func(e *Ptrace) *string { return &e.Request }, "What was asked of ptrace (attach, seize, traceme, poketext and so on), or process_vm_readv, process_vm_writev, or mem_write: a write to /proc/PID/mem"),
		schema.Str("result", func(e *Ptrace) *string { return &e.Result }, "ok, or the error's name"),
		schema.Int("target_pid", func(e *Ptrace) *uint32 { return &e.TargetPID }, "Process reached into", schema.OmitZero),
		schema.Calc("target_process_id", schema.Text, func(e *Ptrace) schema.Value {
			return schema.TextValue(ProcessID(e.BootID, e.TargetPID, e.TargetStart))
		}, "Identity of that process").From("target_pid", "target_start", "boot_id"),
		schema.Int("target_start", func(e *Ptrace) *uint64 { return &e.TargetStart }, "Start of that process, nanoseconds since boot", schema.Internal),
		schema.Str("target_path", func(e *Ptrace) *string { return &e.TargetPath }, "Executable of that process"),
		schema.Str("target_comm", func(e *Ptrace) *string { return &e.TargetComm }, "Name of that process"),
		schema.Int("target_uid", func(e *Ptrace) *uint32 { return &e.TargetUID }, "Real user of that process", schema.OmitUnset),
	),
})
