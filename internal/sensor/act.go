package sensor

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
)

// act decodes rec_act: what was done to other processes, to the kernel, to mounts, namespaces
// and memory. What its fields mean depends on the call.
func (d *decoder) act(raw []byte, b *event.Batch) error {
	r, err := fixed[bpf.GoshawkRecAct](raw)
	if err != nil {
		return err
	}
	var texts [4]string
	for i, s := range []bpf.GoshawkSpan{r.Source, r.Target, r.Type, r.Data} {
		text, err := span(raw, s)
		if err != nil {
			return err
		}
		texts[i] = d.strings.get(text)
	}
	source, target, typ, data := texts[0], texts[1], texts[2], texts[3]
	call, ok := actCalls[bpf.GoshawkActCall(r.Call)]
	if !ok || call.kind != event.ID(r.Head.Kind) {
		return fmt.Errorf("%w, call %d of kind %d", errValue, r.Call, r.Head.Kind)
	}
	if call.kind == event.KindModule || r.Call == uint16(bpf.GoshawkActCallACT_KEXEC_FILE_LOAD) {
		if target, err = d.path(raw, r.Target, has(&r.Head, bpf.GoshawkFlagFLAG_PATH_CUT)); err != nil {
			return err
		}
		if r.Target.Len == 0 {
			target = ""
		}
	}
	if call.kind == event.KindBPF && (r.Head.Pid == d.self || r.Head.NsPid == d.self) && strings.HasPrefix(source, "on_") {
		d.count[event.KindBPF].own.Add(1) // what we attach ourselves
		return nil
	}
	e := b.Add(call.kind)
	h := e.Head()
	d.header(h, &r.Head)
	if has(&r.Head, bpf.GoshawkFlagFLAG_USER_TEXT) {
		h.Fidelity = event.FidelityUser
	}
	result := resultName(r.Result)
	switch e := e.(type) {
	case *event.Ptrace:
		e.Request, e.Result, e.TargetUID = call.name, result, event.Unset
		pid := r.Args[0]
		if call.name == "ptrace" {
			e.Request, pid = event.PtraceRequest(r.Args[0]), r.Args[1]
		}
		switch {
		case e.Request == "traceme":
			e.TargetPID = r.Head.Ppid
		case e.Request == "mem_write": // the kernel's own number
			e.TargetPID = uint32(pid)
		case int32(pid) > 0 && r.Head.PidNs == 0: // elsewhere it is another's number
			e.TargetPID = uint32(pid)
		}
		h.Fidelity = event.FidelityKernel
	case *event.Module:
		e.Operation, e.Name, e.ModulePath, e.Parameters, e.Result = call.name, source, target, typ, result
		if call.name == "load" {
			e.Flags, e.Inode = joinFlags(event.ModuleFlags, r.Args[2]), r.Object
		}
	case *event.BPF:
		d.program(e, r, source, typ)
		e.Result = result
	case *event.Mount:
		e.Source, e.Target, e.FilesystemType, e.Options = source, target, typ, data
		e.Operation, e.Syscall, e.Result = call.name, call.syscall, result
		switch bpf.GoshawkActCall(r.Call) {
		case bpf.GoshawkActCallACT_MOUNT:
			var flags uint64
			e.Operation, flags = event.MountOperation(r.Args[3])
			e.Flags = joinFlags(event.MountFlags, flags)
		case bpf.GoshawkActCallACT_UMOUNT:
			e.Flags = joinFlags(event.UmountFlags, r.Args[1])
		case bpf.GoshawkActCallACT_MOVE_MOUNT:
			if e.Flags = joinFlags(moveFlags, r.Args[4]); source == "" { // named by a descriptor: a new mount
				e.Operation = "mount"
			}
		}
	case *event.Namespace:
		e.Operation, e.Result, e.TargetPath, e.Inode = call.name, result, target, r.Object
		switch call.name {
		case "setns":
			e.Namespaces = namespaceNames(r.Args[1])
		case "unshare":
			e.Namespaces = namespaceNames(r.Args[0])
		case "clone":
			e.Namespaces = namespaceNames(r.Args[0])
			e.ChildPID, e.ChildStart = uint32(r.Args[1]), r.Args[2]
		}
	case *event.Syscall:
		e.Syscall, e.Object, e.Name, e.Result = call.syscall, typ, source, result
		rare(e, r, target)
	case *event.Memory:
		e.Operation, e.Result, e.Name = call.name, result, source
		switch call.name {
		case "memfd_create":
			e.Flags = joinFlags(memfdFlags, r.Args[1])
		case "mmap":
			e.Flags = joinFlags(mapFlags, r.Args[3])
			fallthrough
		default:
			e.Address, e.Length, e.Protection = r.Args[0], r.Args[1], joinFlags(protections, r.Args[2])
		}
	}
	return nil
}

// actCalls are the calls that rec_act tells of.
var actCalls = map[bpf.GoshawkActCall]struct {
	kind          event.ID
	name, syscall string
}{
	bpf.GoshawkActCallACT_PTRACE:            {event.KindPtrace, "ptrace", "ptrace"},
	bpf.GoshawkActCallACT_PROCESS_VM_READV:  {event.KindPtrace, "process_vm_readv", "process_vm_readv"},
	bpf.GoshawkActCallACT_PROCESS_VM_WRITEV: {event.KindPtrace, "process_vm_writev", "process_vm_writev"},
	bpf.GoshawkActCallACT_MEM_WRITE:         {event.KindPtrace, "mem_write", "write"},
	bpf.GoshawkActCallACT_MODULE_LOAD:       {event.KindModule, "load", ""},
	bpf.GoshawkActCallACT_MODULE_FREE:       {event.KindModule, "unload", ""},
	bpf.GoshawkActCallACT_BPF:               {event.KindBPF, "bpf", "bpf"},
	bpf.GoshawkActCallACT_MOUNT:             {event.KindMount, "mount", "mount"},
	bpf.GoshawkActCallACT_UMOUNT:            {event.KindMount, "umount", "umount2"},
	bpf.GoshawkActCallACT_MOVE_MOUNT:        {event.KindMount, "move", "move_mount"},
	bpf.GoshawkActCallACT_PIVOT_ROOT:        {event.KindMount, "pivot_root", "pivot_root"},
	bpf.GoshawkActCallACT_MOUNT_SETATTR:     {event.KindMount, "attributes", "mount_setattr"},
	bpf.GoshawkActCallACT_SETNS:             {event.KindNamespace, "setns", "setns"},
	bpf.GoshawkActCallACT_UNSHARE:           {event.KindNamespace, "unshare", "unshare"},
	bpf.GoshawkActCallACT_CHROOT:            {event.KindNamespace, "chroot", "chroot"},
	bpf.GoshawkActCallACT_CLONE:             {event.KindNamespace, "clone", "clone"},
	bpf.GoshawkActCallACT_MEMFD_CREATE:      {event.KindMemory, "memfd_create", "memfd_create"},
	bpf.GoshawkActCallACT_MPROTECT:          {event.KindMemory, "mprotect", "mprotect"},
	bpf.GoshawkActCallACT_MMAP:              {event.KindMemory, "mmap", "mmap"},
	bpf.GoshawkActCallACT_SOCKET:            {event.KindSyscall, "", "socket"},
	bpf.GoshawkActCallACT_IO_URING_SETUP:    {event.KindSyscall, "", "io_uring_setup"},
	bpf.GoshawkActCallACT_KEXEC_LOAD:        {event.KindSyscall, "", "kexec_load"},
	bpf.GoshawkActCallACT_KEXEC_FILE_LOAD:   {event.KindSyscall, "", "kexec_file_load"},
	bpf.GoshawkActCallACT_SETTIMEOFDAY:      {event.KindSyscall, "", "settimeofday"},
	bpf.GoshawkActCallACT_CLOCK_SETTIME:     {event.KindSyscall, "", "clock_settime"},
	bpf.GoshawkActCallACT_CLOCK_ADJTIME:     {event.KindSyscall, "", "clock_adjtime"},
	bpf.GoshawkActCallACT_ADJTIMEX:          {event.KindSyscall, "", "adjtimex"},
	bpf.GoshawkActCallACT_KEYCTL:            {event.KindSyscall, "", "keyctl"},
	bpf.GoshawkActCallACT_ADD_KEY:           {event.KindSyscall, "", "add_key"},
	bpf.GoshawkActCallACT_REQUEST_KEY:       {event.KindSyscall, "", "request_key"},
}

// program fills in what bpf(2) was asked for.
func (d *decoder) program(e *event.BPF, r *bpf.GoshawkRecAct, name, point string) {
	e.Operation = map[uint64]string{5: "prog_load", 8: "prog_attach", 9: "prog_detach", 17: "raw_tracepoint_open",
		28: "link_create", 29: "link_update", 34: "link_detach"}[r.Args[0]]
	if e.Operation == "" {
		e.Operation = strconv.FormatUint(r.Args[0], 10)
	}
	e.ProgramName, e.AttachPoint, e.ProgramID = name, point, uint32(r.Object)
	if r.Object != 0 || e.Operation == "prog_load" {
		e.ProgramType = programType(r.Value)
	}
	switch e.Operation {
	case "prog_load":
		e.Instructions, e.AttachType = uint32(r.Args[1]), uint32(r.Args[2])
	case "prog_attach", "prog_detach", "link_create":
		e.AttachType = uint32(r.Args[2])
	}
}

// programTypes are enum bpf_prog_type (linux/bpf.h), in bpftool's words.
var programTypes = [...]string{
	"unspec", "socket_filter", "kprobe", "sched_cls", "sched_act", "tracepoint", "xdp", "perf_event", "cgroup_skb", "cgroup_sock",
	"lwt_in", "lwt_out", "lwt_xmit", "sock_ops", "sk_skb", "cgroup_device", "sk_msg", "raw_tracepoint", "cgroup_sock_addr",
	"lwt_seg6local", "lirc_mode2", "sk_reuseport", "flow_dissector", "cgroup_sysctl", "raw_tracepoint_writable",
	"cgroup_sockopt", "tracing", "struct_ops", "ext", "lsm", "sk_lookup", "syscall", "netfilter",
}

func programType(n uint32) string {
	if int(n) < len(programTypes) {
		return programTypes[n]
	}
	return strconv.FormatUint(uint64(n), 10)
}

var (
	moveFlags = event.Flags{
		{unix.MOVE_MOUNT_F_SYMLINKS, "MOVE_MOUNT_F_SYMLINKS"}, {unix.MOVE_MOUNT_F_AUTOMOUNTS, "MOVE_MOUNT_F_AUTOMOUNTS"},
		{unix.MOVE_MOUNT_F_EMPTY_PATH, "MOVE_MOUNT_F_EMPTY_PATH"}, {unix.MOVE_MOUNT_T_SYMLINKS, "MOVE_MOUNT_T_SYMLINKS"},
		{unix.MOVE_MOUNT_T_AUTOMOUNTS, "MOVE_MOUNT_T_AUTOMOUNTS"}, {unix.MOVE_MOUNT_T_EMPTY_PATH, "MOVE_MOUNT_T_EMPTY_PATH"},
		{unix.MOVE_MOUNT_SET_GROUP, "MOVE_MOUNT_SET_GROUP"},
	}
	memfdFlags = event.Flags{
		{unix.MFD_CLOEXEC, "MFD_CLOEXEC"}, {unix.MFD_ALLOW_SEALING, "MFD_ALLOW_SEALING"}, {unix.MFD_HUGETLB, "MFD_HUGETLB"},
		{unix.MFD_NOEXEC_SEAL, "MFD_NOEXEC_SEAL"}, {unix.MFD_EXEC, "MFD_EXEC"},
	}
	mapFlags = event.Flags{
		{unix.MAP_SHARED, "MAP_SHARED"}, {unix.MAP_PRIVATE, "MAP_PRIVATE"}, {unix.MAP_FIXED, "MAP_FIXED"},
		{unix.MAP_ANONYMOUS, "MAP_ANONYMOUS"}, {unix.MAP_GROWSDOWN, "MAP_GROWSDOWN"}, {unix.MAP_LOCKED, "MAP_LOCKED"},
		{unix.MAP_NORESERVE, "MAP_NORESERVE"}, {unix.MAP_POPULATE, "MAP_POPULATE"}, {unix.MAP_STACK, "MAP_STACK"},
	}
	protections = event.Flags{{unix.PROT_READ, "PROT_READ"}, {unix.PROT_WRITE, "PROT_WRITE"}, {unix.PROT_EXEC, "PROT_EXEC"}}
	namespaces  = event.Flags{
		{unix.CLONE_NEWNS, "mnt"}, {unix.CLONE_NEWPID, "pid"}, {unix.CLONE_NEWNET, "net"}, {unix.CLONE_NEWUSER, "user"},
		{unix.CLONE_NEWUTS, "uts"}, {unix.CLONE_NEWIPC, "ipc"}, {unix.CLONE_NEWCGROUP, "cgroup"}, {unix.CLONE_NEWTIME, "time"},
	}
)

// joinFlags names bits with | between them.
func joinFlags(names event.Flags, flags uint64) string { return string(names.Append(nil, flags)) }

// namespaceNames names the namespaces in CLONE_NEW* flags.
func namespaceNames(flags uint64) string {
	b, _ := namespaces.AppendNames(nil, uint64(uint32(flags)), ',')
	return string(b)
}

// rareNumbers says which of the calls of bpf/rare.bpf.h a system call's number is, 0 none of them.
func rareNumbers() (calls [512]uint8) {
	for number, call := range map[int]bpf.GoshawkActCall{
		unix.SYS_SOCKET:          bpf.GoshawkActCallACT_SOCKET,
		unix.SYS_IO_URING_SETUP:  bpf.GoshawkActCallACT_IO_URING_SETUP,
		unix.SYS_KEXEC_LOAD:      bpf.GoshawkActCallACT_KEXEC_LOAD,
		unix.SYS_KEXEC_FILE_LOAD: bpf.GoshawkActCallACT_KEXEC_FILE_LOAD,
		unix.SYS_SETTIMEOFDAY:    bpf.GoshawkActCallACT_SETTIMEOFDAY,
		unix.SYS_CLOCK_SETTIME:   bpf.GoshawkActCallACT_CLOCK_SETTIME,
		unix.SYS_CLOCK_ADJTIME:   bpf.GoshawkActCallACT_CLOCK_ADJTIME,
		unix.SYS_ADJTIMEX:        bpf.GoshawkActCallACT_ADJTIMEX,
		unix.SYS_KEYCTL:          bpf.GoshawkActCallACT_KEYCTL,
		unix.SYS_ADD_KEY:         bpf.GoshawkActCallACT_ADD_KEY,
		unix.SYS_REQUEST_KEY:     bpf.GoshawkActCallACT_REQUEST_KEY,
	} {
		calls[number] = uint8(call)
	}
	return calls
}
