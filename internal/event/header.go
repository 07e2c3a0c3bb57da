package event

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// BootNow is the time now by the clock of Header.NTime; 0 when the kernel does not tell it.
func BootNow() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// Fidelity says where the names in an event were read.
const (
	// FidelityKernel: from kernel objects, which user space cannot rewrite.
	FidelityKernel = "kernel"
	// FidelityUser: from user memory, which another thread may have changed meanwhile.
	FidelityUser = "user"
	// FidelityState: filled in after the fact from /proc or a later record.
	FidelityState = "state"
)

// Header is what events of all kinds share. The process in it is the one that acted.
type Header struct {
	Kind     ID
	EID      int64  // number of the event in this agent's log, given by the store, from 1
	Time     int64  // unix ns, from the kernel's clock
	NTime    uint64 // ns since boot, suspend included (CLOCK_BOOTTIME)
	Source   string // "ebpf", "fanotify", "audit", "procfs", "runtime" or "agent"
	Fidelity string

	PID      uint32 // thread group, in the initial pid namespace
	TID      uint32
	PPID     uint32
	Start    uint64 // when the process started, ns since boot; 0 unknown
	PStart   uint64 // when its parent started
	BootID   string // the boot's id, 32 hex digits
	Path     string // the process's executable
	Comm     string
	UID      uint32 // Unset unknown, as the three below
	GID      uint32
	EUID     uint32
	EGID     uint32
	AUID     uint32 // login uid; 4294967295 unset
	Session  uint32 // audit session; 4294967295 unset
	TTY      string
	CgroupID uint64
	Origin   string // how the session that it belongs to began: ssh, console, cron …; empty unknown
	Disguise string // in what it is not what it seems, each ending in NUL

	// CgroupV1 and PIDNamespace tell the container where CgroupID does not. They come with
	// a record and are not kept.
	CgroupV1     uint64 // cgroup in the v1 hierarchy that the source watches; 0 none
	PIDNamespace uint32 // inode of the process's pid namespace; 0 the initial one
	ContainerPID uint32 // pid in that namespace; 0 in the initial one

	// Within is how long before NTime it may have happened, ns: a source that tells late, and
	// does not know when, says so. It is not kept.
	Within uint64

	ContainerID, ContainerName, Image, PodName, PodNamespace string
}

// Head implements Event for every struct that embeds a Header.
func (h *Header) Head() *Header { return h }

// Reset empties h for use again.
func (h *Header) Reset() { *h = Header{} }

// ProcessID prints the identity of a process: boot, pid and start time together name it
// for ever, across reuse of its pid. It is empty when the start time is unknown.
func ProcessID(bootID string, pid uint32, start uint64) string {
	if start == 0 || pid == 0 {
		return ""
	}
	return string(AppendProcessID(make([]byte, 0, 40), bootID, pid, start))
}

// AppendProcessID appends the identity of a process whose start time is known.
func AppendProcessID(dst []byte, bootID string, pid uint32, start uint64) []byte {
	dst = append(dst, bootID[:min(8, len(bootID))]...)
	dst = append(dst, '-')
	dst = strconv.AppendUint(dst, uint64(pid), 10)
	dst = append(dst, '-')
	return strconv.AppendUint(dst, start, 36)
}

func processID(h *Header) schema.Value {
	return schema.TextValue(ProcessID(h.BootID, h.PID, h.Start))
}

func parentProcessID(h *Header) schema.Value {
	return schema.TextValue(ProcessID(h.BootID, h.PPID, h.PStart))
}

func kindName(h *Header) schema.Value { return schema.TextValue(h.Kind.String()) }

var headerColumns = []schema.Column[*Header]{
	schema.Calc("kind", schema.Text, kindName, "Sort of event").From("kind_id"),
	schema.Int("kind_id", func(h *Header) *ID { return &h.Kind }, "Number of the kind", schema.Internal),
	schema.Time("time", func(h *Header) *int64 { return &h.Time }, "When it happened, unix seconds from the kernel's clock", schema.Additional),
	schema.Int("ntime", func(h *Header) *uint64 { return &h.NTime }, "When it happened, nanoseconds since boot"),
	schema.Int("eid", func(h *Header) *int64 { return &h.EID }, "Number of the event in this host's log, ascending", schema.Index),
	schema.Str("source", func(h *Header) *string { return &h.Source }, "Where the record came from: ebpf, fanotify, audit, procfs, runtime (what runs containers) or agent (of its own)"),
	schema.Str("fidelity", func(h *Header) *string { return &h.Fidelity }, "Whether names were read from kernel objects (kernel), user memory (user) or afterwards (state)"),
	schema.Int("pid", func(h *Header) *uint32 { return &h.PID }, "Process that acted (thread group)", schema.Index),
	schema.Int("tid", func(h *Header) *uint32 { return &h.TID }, "Thread that acted", schema.OmitZero),
	schema.Int("ppid", func(h *Header) *uint32 { return &h.PPID }, "Parent of the process"),
	schema.Calc("process_id", schema.Text, processID, "Identity of the process, unique across pid reuse and boots").From("pid", "start", "boot_id"),
	schema.Calc("parent_process_id", schema.Text, parentProcessID, "Identity of the parent").From("ppid", "parent_start", "boot_id"),
	schema.Int("start", func(h *Header) *uint64 { return &h.Start }, "Start of the process, nanoseconds since boot", schema.Internal),
	schema.Int("parent_start", func(h *Header) *uint64 { return &h.PStart }, "Start of the parent, nanoseconds since boot", schema.Internal),
	schema.Str("boot_id", func(h *Header) *string { return &h.BootID }, "Identity of the boot", schema.Internal),
	schema.Str("path", func(h *Header) *string { return &h.Path }, "Executable of the process, as the kernel resolved it"),
	schema.Str("comm", func(h *Header) *string { return &h.Comm }, "Name of the thread, which it may set itself"),
	schema.Int("uid", func(h *Header) *uint32 { return &h.UID }, "Real user", schema.OmitUnset),
	schema.Int("gid", func(h *Header) *uint32 { return &h.GID }, "Real group", schema.OmitUnset),
	schema.Int("euid", func(h *Header) *uint32 { return &h.EUID }, "Effective user", schema.OmitUnset),
	schema.Int("egid", func(h *Header) *uint32 { return &h.EGID }, "Effective group", schema.OmitUnset),
	schema.Int("auid", func(h *Header) *uint32 { return &h.AUID }, "Login user, 4294967295 when none logged in"),
	schema.Int("session_id", func(h *Header) *uint32 { return &h.Session }, "Audit session, 4294967295 when none"),
	schema.Str("tty", func(h *Header) *string { return &h.TTY }, "Controlling terminal"),
	schema.Int("cgroup_id", func(h *Header) *uint64 { return &h.CgroupID }, "Cgroup v2 of the process", schema.OmitZero),
	schema.Str("origin", func(h *Header) *string { return &h.Origin }, "How the session that the process belongs to began: ssh, console (a terminal's or display's login), cron, service, container (a pid namespace entered or made) or kernel"),
	schema.Strings("disguise", func(h *Header) *string { return &h.Disguise }, "In what the process is not what it seems, a JSON array: argv0 (names another program than the file), comm (the main thread has set itself another name), argv (overwritten since, to name another program), deleted, memfd, args_cut, args_padded"),
	schema.Int("container_pid", func(h *Header) *uint32 { return &h.ContainerPID }, "Pid of the process in its own pid namespace, unless that is the host's", schema.OmitZero),
	schema.Str("container_id", func(h *Header) *string { return &h.ContainerID }, "Container, empty on the host"),
	schema.Str("container_name", func(h *Header) *string { return &h.ContainerName }, "Name of the container"),
	schema.Str("image", func(h *Header) *string { return &h.Image }, "Image of the container"),
	schema.Str("pod_name", func(h *Header) *string { return &h.PodName }, "Pod of Kubernetes, or of podman"),
	schema.Str("pod_namespace", func(h *Header) *string { return &h.PodNamespace }, "Kubernetes namespace of the pod"),
}

// Shared is how many columns all kinds have, before their own.
var Shared = len(headerColumns)

// columns joins the shared columns with a kind's own.
func columns[T Event](own ...schema.Column[T]) []Column {
	out := make([]Column, 0, len(headerColumns)+len(own))
	for _, c := range headerColumns {
		out = append(out, schema.Map(c, Event.Head))
	}
	for _, c := range own {
		out = append(out, schema.Map(c, func(e Event) T { return e.(T) }))
	}
	return out
}
