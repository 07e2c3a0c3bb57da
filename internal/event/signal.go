package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Signal is a signal sent by a process: kill(2), tkill(2), tgkill(2), rt_sigqueueinfo(2),
// pidfd_send_signal(2). One that goes to several processes is an event for each.
type Signal struct {
	Header
	Signal       int32 // 0 only asks whether it may be sent
	SignalName   string
	Result       string // "ok" or an errno's name
	Syscall      string
	RequestedPID int32 // as given: 0 or negative names a group (kill(2)); 0 when a pidfd was given
	TargetPath   string
	TargetComm   string
	TargetStart  uint64 // ns since boot, 0 unknown
	TargetPID    uint32
	TargetUID    uint32 // Unset unknown
	TargetAUID   uint32 // login user, Unset when none or unknown
}

// Reset empties e for use again.
func (e *Signal) Reset() { *e = Signal{} }

var signalKind = kindOf[Signal](Kind{
	ID: KindSignal, Table: "signal_events",
	Doc: "Signals sent from process to process",
	Columns: columns(
		schema.Int("signal", func(e *Signal) *int32 { return &e.Signal }, "Number of the signal; 0 only asks whether it may be sent"),
		schema.Str("signal_name", func(e *Signal) *string { return &e.SignalName }, "Name of the signal"),
		schema.Str("result", func(e *Signal) *string { return &e.Result }, "ok, or the error's name"),
		schema.Str("syscall", func(e *Signal) *string { return &e.Syscall }, "System call that sent it"),
		schema.Int("requested_pid", func(e *Signal) *int32 { return &e.RequestedPID }, "Process as the caller gave it; 0 and negative ones name a group"),
		schema.Int("target_pid", func(e *Signal) *uint32 { return &e.TargetPID }, "Process that it went to", schema.OmitZero),
		schema.Calc("target_process_id", schema.Text, func(e *Signal) schema.Value {
			return schema.TextValue(ProcessID(e.BootID, e.TargetPID, e.TargetStart))
		}, "Identity of that process").From("target_pid", "target_start", "boot_id"),
		schema.Int("target_start", func(e *Signal) *uint64 { return &e.TargetStart }, "Start of that process, nanoseconds since boot", schema.Internal),
		schema.Str("target_path", func(e *Signal) *string { return &e.TargetPath }, "Executable of that process"),
		schema.Str("target_comm", func(e *Signal) *string { return &e.TargetComm }, "Name of that process"),
		schema.Int("target_uid", func(e *Signal) *uint32 { return &e.TargetUID }, "Real user of that process", schema.OmitUnset),
		schema.Int("target_auid", func(e *Signal) *uint32 { return &e.TargetAUID }, "Login user of that process", schema.OmitUnset),
	),
})
