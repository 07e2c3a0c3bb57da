package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Fork is a process made by fork(2), vfork(2), clone(2) or clone3(2); threads are not.
// The process in the header is the caller; the child is named apart, since CLONE_PARENT
// may give it another parent.
type Fork struct {
	Header
	ChildPID   uint32
	ChildStart uint64 // ns since boot
	ChildPPID  uint32 // the child's parent: the caller, or its parent with CLONE_PARENT
}

// Reset empties e for use again.
func (e *Fork) Reset() { *e = Fork{} }

func childProcessID(e *Fork) schema.Value {
	return schema.TextValue(ProcessID(e.BootID, e.ChildPID, e.ChildStart))
}

var forkKind = kindOf[Fork](Kind{
	ID: KindFork, Table: "fork_events", Critical: true,
	Doc: "Processes made by fork, vfork, clone or clone3; threads are not listed",
	Columns: columns(
		schema.Int("child_pid", func(e *Fork) *uint32 { return &e.ChildPID }, "Process made"),
		schema.Calc("child_process_id", schema.Text, childProcessID, "Identity of the process made").From("child_pid", "child_start", "boot_id"),
		schema.Int("child_start", func(e *Fork) *uint64 { return &e.ChildStart }, "Start of the child, nanoseconds since boot", schema.Internal),
		schema.Int("child_ppid", func(e *Fork) *uint32 { return &e.ChildPPID }, "Parent of the process made; differs from pid with CLONE_PARENT"),
	),
})
