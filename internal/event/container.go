package event

import (
	"slices"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// What a Container event tells of.
const (
	ContainerCreate = "create" // its cgroup was made
	ContainerStart  = "start"  // its first program was executed
	ContainerExec   = "exec"   // a program was started in it from outside: docker exec and the like
	ContainerStop   = "stop"   // its first process ended, or its cgroup was removed
	ContainerRename = "rename" // its cgroup (v1) has another name
	ContainerAmend  = "amend"  // what the runtime knows of it has come, or has changed
)

// Operations on a cgroup, as a source tells them. The agent turns those on containers'
// cgroups into the above and keeps none of the others.
const (
	CgroupMkdir  = "mkdir"
	CgroupRmdir  = "rmdir"
	CgroupRename = "rename_cgroup"
)

// Container is a step in the life of a container. The container's id, name, image and pod
// are in the header; the process there is the one that made the step happen: the runtime
// for create, the container's first for start and stop, none for amend.
type Container struct {
	Header
	Operation  string
	Runtime    string // docker, podman, containerd, cri-o, runc …; empty when not known
	CgroupPath string // of the container, from the root of its hierarchy
	Cgroup     uint64 // its id
	Hierarchy  uint32 // of the cgroup, 0 for v2; not kept
	Args       string // of start and exec: argv, each string ending in NUL
	Digest     string // of the image, sha256:…
	ImageID    string
	Labels     string // a JSON object
	PodUID     string
	RootPath   string // the container's root directory as the host sees it
	Ended      uint32 // stop: the status of its first process as wait(2) gives it, plus 1; 0 not known
	DurationNs uint64 // stop: from its start
	Confinement
}

// Confinement is how far a container is kept from its host.
type Confinement struct {
	Privileged     Known
	HostNamespaces string // namespaces of the host that it shares, with commas
	Capabilities   string // those it has that lead out of a container, with commas
	RuntimeSocket  string // a runtime's socket that is mounted in it
}

// Known is a truth that may not be known.
type Known uint8

const (
	Unknown Known = iota
	No
	Yes
)

// Reset empties e for use again.
func (e *Container) Reset() { *e = Container{} }

func confinementColumns(at func(Event) *Confinement) []Column {
	privileged := func(e Event) schema.Value {
		if p := at(e).Privileged; p != Unknown {
			return schema.BoolValue(p == Yes)
		}
		return schema.Null
	}
	return []Column{
		schema.Calc("container_privileged", schema.Integer, privileged, "1 for a privileged container, 0 for another; NULL when not known").From("container_privilege"),
		schema.Int("container_privilege", func(e Event) *Known { return &at(e).Privileged }, "How container_privileged is kept", schema.Internal),
		schema.Str("host_namespaces", func(e Event) *string { return &at(e).HostNamespaces }, "Namespaces of the host that the container shares, with commas: ipc, mount, network, pid, uts"),
		schema.Str("container_capabilities", func(e Event) *string { return &at(e).Capabilities }, "Capabilities of the container that lead out of it, with commas, as SYS_ADMIN"),
		schema.Str("runtime_socket", func(e Event) *string { return &at(e).RuntimeSocket }, "Socket of a container runtime that is mounted in the container"),
	}
}

// exitStatus splits Ended as wait(2) does.
func exitCode(e *Container) schema.Value {
	if e.Ended == 0 {
		return schema.Null
	}
	return schema.IntValue(int64((e.Ended - 1) >> 8 & 0xff))
}

func exitSignal(e *Container) schema.Value {
	if e.Ended == 0 {
		return schema.Null
	}
	return schema.IntValue(int64((e.Ended - 1) & 0x7f))
}

var containerKind = kindOf[Container](Kind{
	ID: KindContainer, Table: "container_events", Critical: true,
	Doc: "Containers made, started, entered and stopped, and what their runtimes say of them",
	Columns: slices.Concat(columns(
		schema.Str("operation", func(e *Container) *string { return &e.Operation }, "create, start, exec (a program started from outside), stop, rename, or amend (the runtime has told more)"),
		schema.Str("runtime", func(e *Container) *string { return &e.Runtime }, "Runtime: docker, podman, containerd, cri-o, runc, crun, lxc, systemd-nspawn; empty when not known"),
		schema.Strings("args", func(e *Container) *string { return &e.Args }, "Arguments of the program, on start and exec, a JSON array"),
		schema.Calc("exit_code", schema.BigInt, exitCode, "On stop, status that the first process gave to exit; NULL when not known").From("end_status"),
		schema.Calc("signal", schema.BigInt, exitSignal, "On stop, signal that killed the first process, 0 for none; NULL when not known").From("end_status"),
		schema.Int("end_status", func(e *Container) *uint32 { return &e.Ended }, "Status of wait(2) plus 1", schema.Internal),
		schema.Int("duration_ns", func(e *Container) *uint64 { return &e.DurationNs }, "On stop, time since its start in nanoseconds", schema.OmitZero),
		schema.Str("image_id", func(e *Container) *string { return &e.ImageID }, "Identity of the image on this host"),
		schema.Str("image_digest", func(e *Container) *string { return &e.Digest }, "Digest under which the image was pulled"),
		schema.Raw("labels", func(e *Container) *string { return &e.Labels }, "Labels, a JSON object"),
		schema.Str("pod_uid", func(e *Container) *string { return &e.PodUID }, "Identity of the pod"),
		schema.Str("root_path", func(e *Container) *string { return &e.RootPath }, "Root directory of the container as the host sees it"),
		schema.Str("cgroup_path", func(e *Container) *string { return &e.CgroupPath }, "Cgroup of the container, from the root of its hierarchy"),
		schema.Int("container_cgroup_id", func(e *Container) *uint64 { return &e.Cgroup }, "Number of that cgroup", schema.OmitZero),
	), confinementColumns(func(e Event) *Confinement { return &e.(*Container).Confinement })),
})
