// Package container is which container, image and pod a process belongs to: told by its
// cgroup when the event happened, by its pid namespace where cgroups say nothing, and
// named by what the runtimes say of themselves.
//
// The Table belongs to the agent's goroutine: it completes events, and what it makes of
// them (a container started, entered, stopped) are events too. The Resolver asks the
// runtimes, on goroutines of its own that end with Run; what it learns goes the way of all
// events, over the agent's one channel. Neither knows the process table, the store or SQL.
package container

import "github.com/goshawk-project/goshawk/internal/event"

// Facts are what a runtime knows of a container. They do not change once they are made.
type Facts struct {
	Runtime      string
	Name         string
	Image        string // as it was asked for
	ImageID      string // of this host: sha256:…
	Digest       string // under which it was pulled: sha256:…
	Labels       string // a JSON object
	PodName      string
	PodNamespace string
	PodUID       string
	RootPath     string // root directory as the host sees it
	event.Confinement
}

// Request asks the Resolver about a container.
type Request struct {
	Ref
	Cgroup       uint64 // number of the container's cgroup; 0 not known
	V1           bool   // it is in the v1 hierarchy
	PID          uint32 // a process in it; 0 none known
	PIDNamespace uint32 // by which alone it is known; then ID is empty
}

// lasting reports whether an id names one container for ever: random digits do, names that
// somebody chose may be given again.
func lasting(id string) bool { return len(id) == 64 && isHex(id) }

// merge returns f with what it lacks taken from older.
func (f *Facts) merge(older *Facts) *Facts {
	if older == nil {
		return f
	}
	m := *f
	for _, p := range [...]struct{ to, from *string }{
		{&m.Runtime, &older.Runtime}, {&m.Name, &older.Name}, {&m.Image, &older.Image}, {&m.ImageID, &older.ImageID},
		{&m.Digest, &older.Digest}, {&m.Labels, &older.Labels}, {&m.PodName, &older.PodName},
		{&m.PodNamespace, &older.PodNamespace}, {&m.PodUID, &older.PodUID}, {&m.RootPath, &older.RootPath},
	} {
		if *p.to == "" {
			*p.to = *p.from
		}
	}
	if m.Confinement == (event.Confinement{}) {
		m.Confinement = older.Confinement
	}
	return &m
}

// whole reports whether the runtime itself has said all of it, and not only its files: those
// lack the labels of Kubernetes' pods and of podman.
func (f *Facts) whole() bool {
	return f != nil && f.Image != "" && f.ImageID != "" && f.Runtime != Podman
}

// size is the memory that f takes, about.
func (f *Facts) size() int {
	return 256 + len(f.Runtime) + len(f.Name) + len(f.Image) + len(f.ImageID) + len(f.Digest) + len(f.Labels) +
		len(f.PodName) + len(f.PodNamespace) + len(f.PodUID) + len(f.RootPath) +
		len(f.HostNamespaces) + len(f.Capabilities) + len(f.RuntimeSocket)
}

// describe puts facts and identity into an event about the container.
func describe(e *event.Container, r *Ref, f *Facts) {
	e.ContainerID, e.Runtime, e.PodUID, e.CgroupPath = r.ID, r.Runtime, r.PodUID, r.Root
	if f == nil {
		return
	}
	e.ContainerName, e.Image, e.PodName, e.PodNamespace = f.Name, f.Image, f.PodName, f.PodNamespace
	e.ImageID, e.Digest, e.Labels, e.RootPath, e.Confinement = f.ImageID, f.Digest, f.Labels, f.RootPath, f.Confinement
	if f.Runtime != "" {
		e.Runtime = f.Runtime
	}
	if f.PodUID != "" {
		e.PodUID = f.PodUID
	}
}

// factsOf is the reverse, for an event that brings them.
func factsOf(e *event.Container) *Facts {
	return &Facts{
		Runtime: e.Runtime, Name: e.ContainerName, Image: e.Image, ImageID: e.ImageID, Digest: e.Digest, Labels: e.Labels,
		PodName: e.PodName, PodNamespace: e.PodNamespace, PodUID: e.PodUID, RootPath: e.RootPath, Confinement: e.Confinement,
	}
}
