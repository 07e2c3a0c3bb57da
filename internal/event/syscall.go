package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Syscall is a system call that few programs have reason for: a raw or packet socket,
// io_uring, another kernel to start, the clock set, keys kept in the kernel.
type Syscall struct {
	Header
	Syscall   string
	Operation string // keyctl: what was asked for; socket: raw or packet
	Object    string // the family, clock, type of key or file of a kernel
	Name      string // of a key or keyring; command line of a kernel
	Value     int64  // socket: the protocol; clocks: seconds since 1970, or to step; keyctl: the key
	Flags     string // joined by |
	Result    string // "ok" or an errno's name
}

// Reset empties e for use again.
func (e *Syscall) Reset() { *e = Syscall{} }

var syscallKind = kindOf[Syscall](Kind{
	ID: KindSyscall, Table: "syscall_events", Critical: true,
	Doc: "System calls that few programs have reason for: raw and packet sockets, io_uring, kexec, the clock set, keys",
	Columns: columns(
		schema.Str("syscall", func(e *Syscall) *string { return &e.Syscall }, "System call"),
		schema.Str("operation", func(e *Syscall) *string { return &e.Operation }, "keyctl: what was asked for; socket: raw or packet"),
		schema.Str("object", func(e *Syscall) *string { return &e.Object }, "What it is about: the family of a socket, a clock, the type of a key, the file of a kernel"),
		schema.Str("name", func(e *Syscall) *string { return &e.Name }, "Name of a key or keyring; command line of a kernel"),
		schema.Int("value", func(e *Syscall) *int64 { return &e.Value }, "socket: the protocol; clocks: seconds since 1970, or to step by; keyctl: the key's number", schema.OmitZero),
		schema.Str("flags", func(e *Syscall) *string { return &e.Flags }, "Flags of the call, joined by |"),
		schema.Str("result", func(e *Syscall) *string { return &e.Result }, "ok, or the error's name"),
	),
})
