package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Exit is the end of a process: its last thread left.
type Exit struct {
	Header
	ExitCode   int32  // status given to exit(2), 0 to 255
	Signal     int32  // signal that killed it, 0 for none
	CoreDumped bool   // the kernel wrote a core
	DurationNs uint64 // from its start; Missing, as the three below, when all bits are set
	UserNs     uint64 // CPU time in user mode, all threads
	SystemNs   uint64 // CPU time in the kernel, all threads
	MaxRSS     uint64 // peak resident memory in bytes
}

// Missing is a number of an Exit that its source does not tell.
const Missing = 1<<64 - 1

// Reset empties e for use again.
func (e *Exit) Reset() { *e = Exit{} }

var exitKind = kindOf[Exit](Kind{
	ID: KindExit, Table: "exit_events", Critical: true,
	Doc: "Processes ended, one row when the last thread has left",
	Columns: columns(
		schema.Int("exit_code", func(e *Exit) *int32 { return &e.ExitCode }, "Status given to exit"),
		schema.Int("signal", func(e *Exit) *int32 { return &e.Signal }, "Signal that ended it, 0 for none"),
		schema.Bool("core_dumped", func(e *Exit) *bool { return &e.CoreDumped }, "1 when a core was dumped"),
		schema.Int("duration_ns", func(e *Exit) *uint64 { return &e.DurationNs }, "Life of the process in nanoseconds", schema.OmitUnset),
		schema.Int("user_time_ns", func(e *Exit) *uint64 { return &e.UserNs }, "CPU time in user mode in nanoseconds", schema.OmitUnset),
		schema.Int("system_time_ns", func(e *Exit) *uint64 { return &e.SystemNs }, "CPU time in the kernel in nanoseconds", schema.OmitUnset),
		schema.Int("max_rss_bytes", func(e *Exit) *uint64 { return &e.MaxRSS }, "Peak resident memory in bytes", schema.OmitUnset),
	),
})
