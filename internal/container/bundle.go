package container

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

// Where runtimes keep what a container was made from, below the host's root; TASKS hold a
// directory for each namespace of containerd's, STORES what podman, CRI-O and buildah share.
var (
	tasks = []string{
		"/run/containerd/io.containerd.runtime.v2.task",
		"/run/docker/containerd/daemon/io.containerd.runtime.v2.task",
		"/run/k3s/containerd/io.containerd.runtime.v2.task",
		"/var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task",
	}
	stores = []string{
		"/var/lib/containers/storage/overlay-containers", "/var/lib/containers/storage/vfs-containers",
		"/var/lib/containers/storage/btrfs-containers", "/run/containers/storage/overlay-containers",
	}
	lists  = [...]string{"containers.json", "volatile-containers.json"}
	states = []struct{ dir, file, runtime string }{
		{"/run/runc", "state.json", Runc},
		{"/run/crun", "status", Crun},
	}
)

const dockerContainers = "/var/lib/docker/containers"

// maxSpec bounds an OCI configuration: 2 MiB of environment, and the rest.
const maxSpec = 4 << 20

// readBundles looks for a container with a lasting id where runtimes keep their files; nil
// when it is nowhere.
func (r *Resolver) readBundles(id string) *Facts {
	for _, t := range tasks {
		for _, ns := range r.files.list(t) {
			f := r.readSpec(filepath.Join(t, ns, id))
			switch {
			case f == nil:
				continue
			case ns == "moby":
				f.Runtime = Docker
				if more := r.readDocker(id); more != nil {
					f = more.merge(f)
				}
			case f.Runtime == "":
				f.Runtime = Containerd
			}
			if f.Image == "" && ns != "moby" {
				f = r.native(ns, id, f)
			}
			return f
		}
	}
	for _, s := range stores {
		if more := r.readStored(s, id); more != nil {
			if spec := r.readSpec(filepath.Join(s, id, "userdata")); spec != nil {
				more = more.merge(spec)
			}
			return more
		}
	}
	return r.readDocker(id)
}

// readSpec reads the OCI configuration in a directory; nil when there is none.
func (r *Resolver) readSpec(bundle string) *Facts {
	b, _, err := r.files.read(filepath.Join(bundle, "config.json"), maxSpec)
	if err != nil {
		r.failed(err)
		return nil
	}
	f, _, err := specFacts(b, bundle)
	if err != nil {
		r.failed(err)
		return nil
	}
	return f
}

// readStored reads a container's entry in the lists of a store.
func (r *Resolver) readStored(store, id string) *Facts {
	for _, list := range lists {
		b, _, err := r.files.read(filepath.Join(store, list), maxFile)
		if err != nil {
			continue
		}
		if f, err := storedFacts(b, id); err == nil {
			return f
		}
	}
	return nil
}

// readDocker reads what Docker wrote down of a container, for an agent that may not use its
// socket.
func (r *Resolver) readDocker(id string) *Facts {
	b, _, err := r.files.read(filepath.Join(dockerContainers, id, "config.v2.json"), maxAnswer)
	if err != nil {
		return nil
	}
	var c struct {
		ID, Name, Image string
		Config          struct {
			Image  string
			Labels map[string]string
		}
	}
	if json.Unmarshal(b, &c) != nil || c.ID != id {
		return nil
	}
	f := &Facts{Runtime: Docker, Name: text(strings.TrimPrefix(c.Name, "/")), Image: text(c.Config.Image),
		ImageID: text(c.Image), Labels: labels(c.Config.Labels, nil)}
	f.podOf(c.Config.Labels)
	var host struct{ Privileged bool }
	if b, _, err := r.files.read(filepath.Join(dockerContainers, id, "hostconfig.json"), maxAnswer); err == nil && json.Unmarshal(b, &host) == nil {
		if f.Confinement.Privileged = event.No; host.Privileged {
			f.Confinement.Privileged = event.Yes
		}
	}
	return f
}

// answerNamed finds out about a container whose id somebody chose: a later one may be called
// the same, so that what is found is good for the cgroup that stands there now.
func (r *Resolver) answerNamed(q Request) bool {
	f := r.named(q)
	if f == nil || q.Cgroup == 0 || !r.stands(q) {
		return false
	}
	r.tell(about{id: q.ID, ref: q.Ref, cgroup: q.Cgroup, v1: q.V1}, f)
	return f.Image != ""
}

func (r *Resolver) named(q Request) *Facts {
	if strings.ContainsAny(q.ID, "/\x00") || q.ID == "." || q.ID == ".." {
		return nil
	}
	for i := range states {
		if s := r.readState(i, q.ID); s != nil && (r.cgroupOf(s, false) == q.Root || r.cgroupOf(s, true) == q.Root) {
			return r.stateFacts(states[i].runtime, q.ID, s)
		}
	}
	// ctr: /NAMESPACE/ID
	ns := filepath.Base(filepath.Dir(q.Root))
	for _, t := range tasks {
		f := r.readSpec(filepath.Join(t, ns, q.ID))
		if f == nil {
			continue
		}
		f.Runtime = Containerd
		f = r.native(ns, q.ID, f)
		if f.Name == "" {
			f.Name = q.ID
		}
		return f
	}
	return nil
}

// native adds what containerd knows of a container in one of its namespaces.
func (r *Resolver) native(ns, id string, f *Facts) *Facts {
	r.mu.Lock()
	var apis []*criAPI
	for e, c := range r.cris {
		if e.Runtime == Containerd && r.failing[e].Before(time.Now()) {
			apis = append(apis, c)
		}
	}
	r.mu.Unlock()
	for _, c := range apis {
		more, err := c.native(r.ctx, ns, id)
		if err == nil {
			return more.merge(f)
		}
		r.failed(err)
	}
	return f
}

// readState reads what runc or crun keeps of a container; nil when they do not know it.
func (r *Resolver) readState(i int, id string) *state {
	b, _, err := r.files.read(filepath.Join(states[i].dir, id, states[i].file), maxAnswer)
	if err != nil {
		return nil
	}
	parse := runcState
	if states[i].runtime == Crun {
		parse = crunState
	}
	s, err := parse(b)
	if err != nil {
		r.failed(err)
		return nil
	}
	return s
}

// cgroupOf is a container's cgroup from the root of its hierarchy. runc gives paths of the
// file system, as the host sees it.
func (r *Resolver) cgroupOf(s *state, v1 bool) string {
	tree := r.opt.V2
	if v1 {
		tree = r.opt.V1
	}
	if tree == nil {
		return ""
	}
	if path := s.Cgroups["*"]; path != "" {
		return filepath.Join("/", path)
	}
	names := tree.Controllers
	if !v1 {
		names = []string{""}
	}
	for _, n := range names {
		if below, ok := strings.CutPrefix(r.files.at(s.Cgroups[n]), tree.Mount+"/"); ok {
			return "/" + below
		}
	}
	return ""
}

// stateFacts is what is known of a container of runc's or crun's own. Those of podman and
// Docker are theirs as well: the configuration says whose.
func (r *Resolver) stateFacts(runtime, id string, s *state) *Facts {
	f := &Facts{}
	if s.Bundle != "" {
		if spec := r.readSpec(s.Bundle); spec != nil {
			f = spec
		}
	}
	if f.Runtime == Podman {
		if more := r.readStored(filepath.Dir(filepath.Dir(s.Bundle)), id); more != nil {
			f = more.merge(f)
		}
	}
	if f.Runtime == "" {
		f.Runtime = runtime
	}
	if f.Name == "" && !lasting(id) {
		f.Name = id
	}
	return f
}

// answerProcess finds the container of a process in no cgroup that tells.
func (r *Resolver) answerProcess(dir *procfs.Dir, q Request) bool {
	p, err := dir.Process(int(q.PID))
	if err != nil {
		return false
	}
	var ns procfs.Namespaces
	if p.Namespaces(&ns) != nil || ns.PID != uint64(q.PIDNamespace) {
		return false
	}
	m, ok := byMonitor(r.opt.FS, dir, int(q.PID))
	if !ok {
		return false
	}
	r.tell(about{id: m.id, ref: Ref{Runtime: m.runtime}, ns: q.PIDNamespace}, r.monitoredFacts(m))
	return true
}

func (r *Resolver) monitoredFacts(m monitored) *Facts {
	f := &Facts{}
	if filepath.IsAbs(m.bundle) {
		if spec := r.readSpec(m.bundle); spec != nil {
			f = spec
		}
		if stored := r.readStored(filepath.Dir(filepath.Dir(m.bundle)), m.id); stored != nil {
			f = stored.merge(f)
		}
	}
	if f.Runtime == "" {
		f.Runtime = m.runtime
	}
	if m.name != "" {
		f.Name = m.name
	}
	return f
}

// ofRootless finds out about a container in a user's own cgroups, whose files are that
// user's: by the monitor above a process in it.
func (r *Resolver) ofRootless(dir *procfs.Dir, q Request) *Facts {
	if r.opt.V2 == nil || q.V1 {
		return nil
	}
	r.trees.Lock()
	pid := r.opt.V2.AnyProcess(q.Root)
	r.trees.Unlock()
	if pid == 0 {
		return nil
	}
	m, ok := byMonitor(r.opt.FS, dir, pid)
	if !ok || m.id != q.ID {
		return nil
	}
	return r.monitoredFacts(m)
}
